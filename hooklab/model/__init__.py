"""Opening models and taking them apart; the only place, with `hooklab.runtime`, that knows nnsight."""
