"""The names of what `model.verify()` checks beside identities, as the rows of its report have them."""

from __future__ import annotations

SIZE = "the site is there and has its size"
BREAKS = "the site can be written to"
NOT_FINITE = "the output is finite"
EFFECT = "a change changes the output"
CAUSAL = "a change leaves earlier positions alone"
ORDER_LAW = "a change leaves earlier sites alone"
APART_LAW = "a change leaves unrelated sites alone"
REACH_LAW = "a change reaches what is made of it"
BOTTLENECK = "clean values everywhere give the clean output"
HEAD = "the head reads the last stream and nothing else"

LAWS = {EFFECT: "effect", CAUSAL: "earlier positions", ORDER_LAW: "earlier sites",
        APART_LAW: "unrelated sites", REACH_LAW: "reach", BOTTLENECK: "bottleneck"}
"""Write laws: name -> the word for it in the note of a site's row."""
INERT = "not tested: these weights make it inert on these tokens"
"""The note of a write whose effect the weights themselves say is none."""
