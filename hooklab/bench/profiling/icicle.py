"""A profile as a picture: callers above what they call, as wide as the time that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...views.strip_plot import drawable, wide
from .naming import OUTSIDE, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .measuring import Node

COLOURS = {"attn": "#9ecae1", "mlp": "#fdbe85", "norm": "#b5d8a8"}
OTHER, TOP = "#dcdcdc", "#efefef"
LETTER = 0.078
"""Inches that a letter is wide."""
NARROWEST = 5e-4
"""The share of the whole below which nothing is drawn."""


def figure(root: Node, parts: dict[int, Part], title: str, top: str, depth: int) -> Figure:
    """The tree, the whole call on top; a gap below a module is its own time."""
    from matplotlib.patches import Patch

    from ...records.plot import Picture

    deepest = min(depth, _depth(root))
    made = Picture(figsize=(11.0, 1.3 + 0.36 * (deepest + 1)), layout="constrained")
    ax = made.subplots()
    whole = root.time * 1e3 or 1.0
    seen: set[str] = set()
    _draw(ax, root, parts, 0.0, 0, deepest, whole, seen, top)
    ax.set_xlim(0, whole)
    ax.set_ylim(deepest + 1, 0)
    ax.set_yticks([])
    ax.set_xlabel("milliseconds")
    for side in ("top", "left", "right"):
        ax.spines[side].set_visible(False)
    ax.set_title(drawable(title), loc="left", fontsize=10.5, parse_math=False)
    keys = [Patch(facecolor=COLOURS[kind], label=kind) for kind in COLOURS if kind in seen]
    if keys:
        made.legend(handles=keys, loc="outside right upper", frameon=False, fontsize=8.5)
    return made


def _draw(ax: Any, node: Node, parts: dict[int, Part], left: float, level: int, deepest: int, whole: float,
          seen: set[str], text: str) -> None:
    from matplotlib.patches import Rectangle

    width = node.time * 1e3
    part = parts[id(node)]
    colour = TOP if part.layer == OUTSIDE and part.component == "rest" else COLOURS.get(part.component, OTHER)
    seen.add(part.component)
    box = Rectangle((left, level + 0.04), width, 0.92, facecolor=colour, edgecolor="white", linewidth=0.7)
    box.set_gid(node.name)
    ax.add_patch(box)
    room = int(10.2 * width / whole / LETTER) - 1
    if wide(text) <= room:
        ax.text(left + width / 2, level + 0.5, drawable(text), ha="center", va="center", fontsize=8, parse_math=False,
                clip_on=True)
    for child in node.children.values():
        if level < deepest and child.time * 1e3 >= NARROWEST * whole:
            _draw(ax, child, parts, left, level + 1, deepest, whole, seen, _short(child.name))
        left += child.time * 1e3


def _short(name: str) -> str:
    """The end of a path, with the number of its layer: `3.attn` becomes `attn`, and `h.3` stays `h.3`."""
    *rest, last = name.split(".")
    return f"{rest[-1]}.{last}" if last.isdigit() and rest else last


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, node.children.values())) if node.children else 0
