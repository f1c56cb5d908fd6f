"""hooklab: look inside any Hugging Face transformer, from a notebook.

    import hooklab as hl

    model = hl.load("lab")
    with model.trace("When Mary and John went to the store, John gave a drink to"):
        stream = model.layers[2].resid_post.save()

Names are loaded on first use, so that `import hooklab` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load": "hooklab.model.load",
    "Model": "hooklab.model.model",
    "capture": "hooklab.runtime.trace",
    "parse": "hooklab.spec.parser",
    "spec": "hooklab.spec.builder",
    "Spec": "hooklab.spec.ast",
    "Activations": "hooklab.records",
    "Run": "hooklab.records",
    "Scores": "hooklab.records",
    "compare": "hooklab.records",
    "sweep": "hooklab.analysis.sweep",
    "path_patch": "hooklab.analysis.paths",
    "causal_trace": "hooklab.analysis.tracing",
    "attribute": "hooklab.analysis.attribute",
    "edges": "hooklab.analysis.edges",
    "agreement": "hooklab.analysis.agreement",
    "circuit": "hooklab.analysis.circuit",
    "Circuit": "hooklab.analysis.circuit",
    "Tokens": "hooklab.tokens",
    "Family": "hooklab.families",
    "register": "hooklab.families",
    "families": "hooklab.families",
    "SITES": "hooklab.sites",
    "errors": "hooklab.errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        from .errors import did_you_mean

        raise AttributeError(f"hooklab has no {name!r}.{did_you_mean(name, _HOME)}")
    module = importlib.import_module(_HOME[name])
    value = module if _HOME[name].endswith("." + name) and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """Add `%%hook` to a notebook: what `%load_ext hooklab` calls."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take `%%hook` out again: what `%unload_ext hooklab` calls."""
    from .magics import unload

    unload(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
