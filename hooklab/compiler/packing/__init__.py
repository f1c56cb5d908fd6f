"""Which sweeps can be run packed: every cell continues a shared pass from where it departs, suffix by suffix.

A cell of a sweep is the pass that all cells share (the run's prompt with the edits that are in every cell) up to its own
first change: a layer, a stage of that layer, and a first position. Blocks before it, and positions before it, need not be
computed again. This package says where each cell departs; `runtime.packed` does the arithmetic.

    choosing ─┬▶ rewrites (runs that pack better)
              └▶ departures ─▶ entries, of what is not shared
"""
