"""Where the nodes of a graph stand: layers upward, heads beside each other, positions in columns.

In: names (addresses of components, or anything else) and which leads to which. Out: `Node`s with `x` counted in places and
`y` in layers. Names that are addresses are read as such: `L1H0.q`, what a head's queries read, is an inlet of the node
`L1H0`, `L0.mlp_out` is the node `L0.mlp`, and `L1H0 @5` is `L1H0` at position 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..errors import ViewError

_PLACE = re.compile(r"L(\d+)(?:H(\d+)|N(\d+))?(?:\.(\w+))?")
_AT = re.compile(r"(.*?)\s*@\s*(\d+)")
INLETS = ("", "q", "k", "v")
_HEAD_SITES = (None, "result", "z", "pattern", "scores", "rot_q", "rot_k")
_SAME = {"attn_out": "attn", "mlp_out": "mlp", "mlp_pre": "mlp", "mlp_pre_linear": "mlp", "mlp_post": "mlp"}
_HEIGHT = {"resid_pre": -0.25, "kv": -0.3, "resid_mid": 0.25, "mlp": 0.5, "neuron": 0.5, "resid_post": 0.75}
"""How far above its layer's heads a node stands."""
STEP = 0.5
"""How far above the highest of its sources a node stands whose name is no address."""


@dataclass(frozen=True)
class Node:
    """One component.

    Attributes:
        name: Its address, such as `L2H1` or `L2H1 @5`; or whatever it was called.
        label: What is written in it.
        kind: head, kv, attn, mlp, neuron, site, embed, logits, or other.
        layer: Its layer.
        index: Its head, kv head or neuron.
        pos: Its position.
        x: Places from the left.
        y: Layers from the first one.
    """

    name: str
    label: str
    kind: str
    layer: int | None = None
    index: int | None = None
    pos: int | None = None
    x: float = 0.0
    y: float = 0.0


@lru_cache(maxsize=8192)
def node(name: str, *, grouped: bool = False) -> tuple[Node, str]:
    """A node by name, and the inlet that the name singles out; `grouped` keeps kv heads apart from heads.

    >>> node("L2H1.q")[0].name, node("L2H1.q")[1], node("L0.mlp_out @3")[0].name, node("hats")[0].kind
    ('L2H1', 'q', 'L0.mlp @3', 'other')
    """
    at = _AT.fullmatch(name)
    stem, pos = (at[1], int(at[2])) if at else (name, None)
    found, inlet = _component(stem, grouped)
    if pos is not None:
        found = replace(found, name=f"{found.name} @{pos}", pos=pos)
    return found, inlet


def _component(stem: str, grouped: bool) -> tuple[Node, str]:
    if stem in ("embed", "pos_embed", "logits"):
        return Node(stem, stem, "logits" if stem == "logits" else "embed"), ""
    place = _PLACE.fullmatch(stem)
    if place is None:
        return Node(stem, stem, "other"), ""
    layer, site = int(place[1]), place[4]
    if place[2] is not None and site in ("k", "v") and grouped:
        return Node(f"L{layer} kv {place[2]}", f"KV{place[2]}", "kv", layer, int(place[2])), site
    if place[2] is not None and (site in INLETS or site in _HEAD_SITES):
        return Node(f"L{layer}H{place[2]}", f"H{place[2]}", "head", layer, int(place[2])), site if site in INLETS else ""
    if place[3] is not None and site in (None, "mlp_post"):
        return Node(f"L{layer}N{place[3]}", f"N{place[3]}", "neuron", layer, int(place[3])), ""
    if place[2] is place[3] is None and site is not None:
        word = _SAME.get(site, site)
        kind = word if word in ("attn", "mlp") else "site"
        return Node(f"L{layer}.{word}", word.upper() if kind == "mlp" else word, kind, layer), ""
    return Node(stem, stem, "other"), ""


def placed(nodes: Sequence[Node], arrows: Iterable[tuple[int, int]]) -> list[Node]:
    """The same nodes with their places.

    Raises:
        ViewError: arrows run in a circle, or against the forward pass.
    """
    heights = _heights(nodes, list(arrows))
    columns = sorted({one.pos for one in nodes if one.pos is not None})
    found: dict[int, float] = {}
    start = 0.0
    for pos in (*columns,) or (None,):
        inside = [i for i, one in enumerate(nodes) if one.pos == pos]
        width = _across(nodes, inside, heights, start, found)
        start += width + 0.5
    whole = max(start - 0.5, 1.0)
    if columns:  # nodes without a position stand in the middle
        loose = [i for i, one in enumerate(nodes) if one.pos is None]
        _centred(loose, heights, 0.0, whole, found)
    return [replace(one, x=found[i], y=heights[i]) for i, one in enumerate(nodes)]


def _across(nodes: Sequence[Node], inside: list[int], heights: list[float], start: float, found: dict[int, float]) -> float:
    """Place the nodes of one position from a start on; returns how wide they are."""
    fixed = [i for i in inside if nodes[i].kind == "head"]
    heads = sorted({nodes[i].index or 0 for i in fixed})
    mlps = [i for i in inside if nodes[i].kind == "mlp"]
    beside = bool(fixed and mlps)
    for i in fixed:
        found[i] = start + heads.index(nodes[i].index or 0)
    if beside:
        found.update({i: start + len(heads) for i in mlps})
    loose = [i for i in inside if i not in found]
    rows: dict[float, int] = {}
    for i in loose:
        rows[heights[i]] = rows.get(heights[i], 0) + 1
    width = max(len(heads) + beside, *rows.values(), 1) if rows else max(len(heads) + beside, 1)
    _centred(loose, heights, start, start + max(len(heads), *(rows.values() or [0]), 1), found)
    return float(width)


def _centred(loose: list[int], heights: list[float], start: float, stop: float, found: dict[int, float]) -> None:
    rows: dict[float, list[int]] = {}
    for i in loose:
        rows.setdefault(heights[i], []).append(i)
    for row in rows.values():
        step = min(1.0, (stop - start) / len(row))
        first = (start + stop - 1) / 2 - step * (len(row) - 1) / 2
        found.update({i: first + step * n for n, i in enumerate(row)})


def _heights(nodes: Sequence[Node], arrows: list[tuple[int, int]]) -> list[float]:
    """How high each node stands: by its layer, or above what leads to it."""
    last = max((one.layer for one in nodes if one.layer is not None), default=0)
    fixed = {i: height for i, one in enumerate(nodes) if (height := _height(one, last)) is not None}
    into: Mapping[int, list[int]] = {i: [] for i in range(len(nodes))}
    for start, stop in arrows:
        if start in fixed and stop in fixed and not fixed[start] < fixed[stop]:
            raise ViewError(f"{nodes[start].name} → {nodes[stop].name} runs against the forward pass: an edge is (from, to, "
                            "weight)")
        into[stop].append(start)
    found: dict[int, float] = {}
    for i in _ordered(nodes, into):
        above = max((found[j] for j in into[i]), default=-1.0 - STEP) + STEP
        found[i] = fixed.get(i, above)
    return [found[i] for i in range(len(nodes))]


def _height(one: Node, last: int) -> float | None:
    if one.kind in ("embed", "logits"):
        return -1.0 if one.kind == "embed" else last + 1.0
    if one.layer is None:
        return None
    return one.layer + _HEIGHT.get(one.kind, _HEIGHT.get(one.label, 0.0))


def _ordered(nodes: Sequence[Node], into: Mapping[int, list[int]]) -> list[int]:
    """Nodes after all that lead to them. Raises ViewError when arrows run in a circle."""
    out: dict[int, list[int]] = {i: [] for i in into}
    left = {i: len(sources) for i, sources in into.items()}
    for i, sources in into.items():
        for j in sources:
            out[j].append(i)
    ready, found = [i for i, n in left.items() if not n], []
    while ready:
        one = ready.pop(0)
        found.append(one)
        for i in out[one]:
            left[i] -= 1
            if not left[i]:
                ready.append(i)
    if len(found) < len(left):
        round_ = [nodes[i].name for i, n in left.items() if n][:6]
        raise ViewError(f"the edges run in a circle through {', '.join(round_)}: a graph is drawn from its start to its end")
    return found


def words(one: Node) -> dict[str, Any]:
    """What a selection says of a node, besides its name."""
    found: dict[str, Any] = {}
    if one.layer is not None:
        found["layer"] = one.layer
    if one.kind == "head":
        found["head"] = one.index
    if one.pos is not None:
        found["pos"] = one.pos
    return found
