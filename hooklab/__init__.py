"""hooklab: look inside any Hugging Face transformer, from a notebook.

    import hooklab as hl

    model = hl.load("lab")
    with model.trace("When Mary and John went to the store, John gave a drink to"):
        stream = model.layers[2].resid_post.save()

Names are loaded on first use, so that `import hooklab` itself costs next to nothing. The shelf of analyses is
`hl.analysis`, sparse autoencoders are `hl.sae`, pictures `hl.view`, stores and tasks `hl.data`, experiments `hl.bench`.
"""

from __future__ import annotations

from typing import Any

from .lazy import lazily

__version__ = "0.1.0"

_HOME = {
    # models, specs and what comes of them
    "load": "model.load",
    "Model": "model.model",
    "Family": "families",
    "register": "families",
    "SITES": "sites",
    "Tokens": "tokens",
    "parse": "spec.parser",
    "spec": "spec",
    "Spec": "spec.ast",
    "Activations": "records",
    "Run": "records",
    "Scores": "records",
    "compare": "records",
    # the questions asked most
    "sweep": "analysis.sweep",
    "path_patch": "analysis.paths",
    "causal_trace": "analysis.tracing",
    "attribute": "analysis.attribute",
    "lens": "analysis.lens",
    "induction_scores": "analysis.heads",
    "generate": "analysis.generate",
    "interact": "views",
    # data sets
    "extract": "data.extraction.extract",
    "open_store": "data",
    "evaluate": "data.evaluation.evaluate",
    # the rooms of the house
    "analysis": "analysis",
    "sae": "sae",
    "data": "data",
    "view": "views",
    "bench": "bench",
    "Bench": "bench",
    "check": "check",
    "errors": "errors",
}

__all__ = ["__version__", *_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME, unknown="hooklab has no {}",
                                whole=("analysis", "bench", "check", "data", "errors", "sae", "spec", "view"),
                                rooms={f"hl.{room}": f"hooklab.{_HOME[room]}"
                                       for room in ("analysis", "sae", "data", "view", "bench", "check")})


def load_ipython_extension(shell: Any) -> None:
    """Add `%%hook` to a notebook: what `%load_ext hooklab` calls."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take `%%hook` out again: what `%unload_ext hooklab` calls."""
    from .magics import unload

    unload(shell)
