"""The experiment bench: every call of a function is kept, with its code, what went in and what came out.

    bench = Bench("experiments")

    @bench.experiment(seed=0)
    def last_token(model, prompt): ...

    last_token(model, "The capital of France is")
    bench.runs("last_token")

    function ──code──▶ version ─┐
    call ──experiment──▶ running ─┼─▶ database (bench.sqlite) + artefacts (runs/ID/) ──▶ Record ──restoring──▶ function
    model, versions, git, seeds ──┘

Names are loaded on first use, so that a bench costs nothing until there is one.
"""

from __future__ import annotations

from ..lazy import lazily

_HOME = {
    "Bench": "workbench",
    "Code": "code",
    "Difference": "differences",
    "Experiment": "experiment",
    "Plot": "drawing",
    "Record": "record",
    "Records": "listing",
    "Rerun": "restoring",
    "Restored": "restoring",
    "code_of": "code",
    "profile": "profiler",
    "test_hypothesis": "hypothesis",
    "tool": "toolbox",
    "tools": "toolbox",
}

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME)
