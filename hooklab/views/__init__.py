"""Views: what a notebook shows. Each function takes numbers, a run or a model, and returns a widget to point at.

    hl.view.attention(model, "When Mary and John went to the store")
    run.show()

Names are loaded on first use; nothing is displayed but what a cell returns.
"""

from __future__ import annotations

from ..lazy import lazily

_HOME = {
    "attention": "patterns",
    "tokens": "strips",
    "heads": "maps",
    "neurons": "maps",
    "residual": "stream",
    "lens": "lenses",
    "grid": "grids",
    "sweep": "grids",
    "bars": "bar_charts",
    "graph": "graphs",
    "features": "dashboards",
    "generation": "continuations",
    "nodes": "node_tables",
    "store": "store_tables",
    "runs": "browser",
    "of": "choosing",
    "Board": "boards",
    "View": "base",
    "interact": "controls",
    "circuitsvis": "handover",
    "close_all": "registry",
    "link": "registry",
    "prefer_static": "registry",
}
"""Where each name lives. No module is called as a name is: importing one would put it in the function's place."""

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME, unknown="there is no view {}")
