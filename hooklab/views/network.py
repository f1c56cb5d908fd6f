"""A graph's edges out of what they are given as, and its picture without a front end: part of the graph view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..errors import ViewError
from . import layered
from .layered import INLETS, Node
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.circuits import Circuit
    from ..records import Scores

MOST_NODES, MOST_EDGES = 500, 20_000
LISTED = 12
LONGEST = 16
DRAWN, CROWDED = 150, 120
"""Edges that the picture without script has, and nodes up to which it has those without an edge."""
POSITIVE, NEGATIVE, UNKNOWN = "#e66101", "#2c7bb6", "#8a8a8a"
PLACE, LEVEL = 46, 54
"""Pixels of the picture without script from one place to the next, and from one layer to the next."""
Triple = tuple[str, str, float]


@dataclass(frozen=True)
class Edges:
    """Edges, the strongest first, those of unknown weight last.

    Attributes:
        start: Which node each leaves, [edge].
        stop: Which node each enters, [edge].
        inlet: Where it enters: an index into `INLETS`, [edge].
        weight: Its weight, [edge].
    """

    start: np.ndarray
    stop: np.ndarray
    inlet: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Found:
    """Nodes with their places, edges with the strongest first, and what was left out in words."""

    nodes: tuple[Node, ...]
    edges: Edges
    left_out: str = ""


def of_scores(scores: Scores) -> Found:
    """Edges of Scores over sender and receiver; cells that are not a number are no edges.

    Raises:
        ViewError: these are no scores of edges.
    """
    if len(scores.axes) != 2 or not all(isinstance(label, str) for axis in scores.axes for label in scores.coords[axis]):
        raise ViewError(f"scores of edges have two axes, sender and receiver, with a name for each entry; these have "
                        f"{', '.join(scores.axes) or 'none'}. Make them with hl.analysis.edges, "
                        "or show these with hl.view.grid.")
    values = np.asarray(scores.values, dtype=np.float64)
    there = np.flatnonzero(~np.isnan(values))
    total = len(there)
    there = there[np.argsort(-np.abs(values.flat[there]), kind="stable")][:MOST_EDGES]
    senders, receivers = (scores.coords[axis] for axis in scores.axes)
    triples = [(str(senders[i // len(receivers)]), str(receivers[i % len(receivers)]), float(values.flat[i])) for i in there]
    return _found(triples, total, grouped=_grouped(receivers))


def of_list(source: Any) -> Found:
    """Edges of a list of (from, to, weight), or of a dict.

    Raises:
        ViewError: it holds something else.
    """
    triples = list(_triples(source))
    for start, stop, weight in triples:
        if not isinstance(start, str) or not isinstance(stop, str) or isinstance(weight, (bool, str)):
            raise ViewError(f"an edge is (from, to, weight) with two names and a number, not {(start, stop, weight)!r}")
    order = np.argsort([-abs(float(weight)) for _, _, weight in triples], kind="stable")
    return _found([(triples[i][0], triples[i][1], float(triples[i][2])) for i in order], len(triples))


def of_circuit(circuit: Circuit, scores: Scores | None) -> Found:
    """A circuit's nodes; its edges are the scores between them, or of unknown weight every path that it leaves open.

    Raises:
        ViewError: the scores are no scores of edges, or have none between the circuit's nodes.
    """
    stay = [layered.node(name)[0] for name in circuit.nodes]
    names = ["embed", *(one.name for one in stay), "logits"]
    if scores is None:
        whole = layered.placed([layered.node(name)[0] for name in names], [])
        triples = [(a.name, b.name, np.nan) for a, b in product(whole, whole) if a.y < b.y]
    else:
        found = of_scores(scores)
        edges = found.edges
        triples = [(found.nodes[a].name, _full(found.nodes[b].name, int(inlet)), float(weight)) for a, b, inlet, weight in
                   zip(edges.start, edges.stop, edges.inlet, edges.weight, strict=True)
                   if found.nodes[a].name in names and found.nodes[b].name in names]
        if not triples:
            raise ViewError("the scores have no edges between the circuit's nodes: make them on the same model")
    return _found(triples, len(triples), more=[*names, *circuit.removed])


def _full(name: str, inlet: int) -> str:
    return f"{name}.{INLETS[inlet]}" if inlet else name


def _triples(source: Any) -> Iterable[tuple[Any, Any, Any]]:
    if isinstance(source, Mapping):
        for key, value in source.items():
            if isinstance(value, Mapping):
                yield from ((key, stop, weight) for stop, weight in value.items())
            elif isinstance(key, tuple) and len(key) == 2:
                yield (*key, value)
            else:
                raise ViewError(f"a dict of edges is {{(from, to): weight}} or {{from: {{to: weight}}}}, not {{{key!r}: …}}")
        return
    if isinstance(source, str) or not isinstance(source, Iterable):
        raise ViewError(f"a graph is drawn of Scores of edges, a Circuit, a list of (from, to, weight) or a dict, not of a "
                        f"{type(source).__name__}")
    for one in source:
        if isinstance(one, str) or not isinstance(one, Sequence) or len(one) != 3:
            raise ViewError(f"an edge is (from, to, weight), not {one!r}")
        yield one[0], one[1], one[2]


def _grouped(receivers: Iterable[str]) -> bool:
    """Whether there are fewer keys than queries."""
    receivers = list(receivers)
    return sum(name.endswith(".k") for name in receivers) < sum(name.endswith(".q") for name in receivers)


def _found(triples: Sequence[Triple], total: int, *, grouped: bool = False, more: Sequence[str] = ()) -> Found:
    """Nodes and edges of triples that are sorted, as many as are drawn."""
    if not triples:
        raise ViewError("there is nothing to draw: no edges. Give at least one (from, to, weight).")
    nodes: dict[str, int] = {}
    known: list[Node] = []
    every: set[str] = set()
    rows: dict[tuple[int, int, int], float] = {}

    def number(one: Node) -> int | None:
        every.add(one.name)
        if one.name not in nodes and len(known) < MOST_NODES:
            nodes[one.name] = len(known)
            known.append(one)
        return nodes.get(one.name)

    for start, stop, weight in triples[:MOST_EDGES]:
        (a, _), (b, inlet) = layered.node(start), layered.node(stop, grouped=grouped)
        if a.name == b.name:
            raise ViewError(f"{start} → {stop} leads from a node to itself")
        i, j = number(a), number(b)
        if i is None or j is None:
            continue
        key = (i, j, INLETS.index(inlet))
        if key in rows:
            raise ViewError(f"the edge {start} → {stop} is given twice")
        rows[key] = weight
    for name in more:
        number(layered.node(name)[0])
    order = sorted(range(len(known)), key=lambda i: (known[i].layer is None, known[i].layer, known[i].kind,
                                                     known[i].index or 0, i))
    place = {old: new for new, old in enumerate(order)}
    ends = [(place[i], place[j], inlet) for i, j, inlet in rows]
    placed = layered.placed([known[i] for i in order], [(i, j) for i, j, _ in ends])
    columns = np.array(ends, dtype=np.int64).reshape(-1, 3)
    edges = Edges(columns[:, 0], columns[:, 1], columns[:, 2], np.array(list(rows.values()), dtype=np.float64))
    return Found(tuple(placed), edges, _left_out(len(known), len(every), len(rows), total))


def _left_out(nodes: int, all_nodes: int, edges: int, all_edges: int) -> str:
    if edges >= all_edges and nodes >= all_nodes:
        return ""
    few = f" between the {nodes} nodes of the strongest ones" if nodes < all_nodes else ""
    return f"Of {all_edges:,} edges the {edges:,} strongest{few} are kept: more could not be read."


def rows(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """The names of the layers, and how high each stands."""
    return [{"y": float(layer), "label": f"layer {layer}"}
            for layer in sorted({one.layer for one in nodes if one.layer is not None})]


def label(one: Node) -> str:
    """What stands in a node; a long name is cut, its whole is the tooltip."""
    text = shown(one.label)
    return text if len(text) <= LONGEST else text[:LONGEST - 1] + "…"


# Pictures --------------------------------------------------------------------------------------------------------------


def svg(nodes: Sequence[Node], edges: Edges, kept: np.ndarray, removed: frozenset[str]) -> str:
    """The layout as SVG without script: the strongest edges on top, nodes above them."""
    ys = sorted({one.y for one in nodes})
    width = (max(one.x for one in nodes) + 1) * PLACE + 100
    height = (ys[-1] - ys[0]) * LEVEL + 48

    def at(one: Node) -> tuple[float, float]:
        return 56 + (one.x + 0.5) * PLACE, height - 24 - (one.y - ys[0]) * LEVEL

    limit = _largest(edges.weight)
    drawn = np.flatnonzero(kept)[:DRAWN][::-1]
    lines = ""
    for i in drawn:
        a, b = nodes[int(edges.start[i])], nodes[int(edges.stop[i])]
        lines += _curve(at(a), at(b), float(edges.weight[i]), limit, f"{a.name} → {_full(b.name, int(edges.inlet[i]))}")
    used = {int(i) for i in drawn for i in (edges.start[i], edges.stop[i])}
    alone = len(nodes) <= CROWDED
    boxes = "".join(_box(one, *at(one), i in used, one.name in removed) for i, one in enumerate(nodes) if alone or i in used)
    names = "".join(f'<text x="2" y="{height - 20 - (row["y"] - ys[0]) * LEVEL:.0f}" font-size="10" opacity=".7">'
                    f'{html.safe(row["label"])}</text>' for row in rows(nodes))
    cut = int(kept.sum()) - len(drawn)
    return (f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="graph of '
            f'{len(nodes)} nodes" style="max-width:100%;font:11px system-ui,sans-serif" fill="currentColor" '
            f'text-anchor="middle"><g fill="none">{lines}</g><g stroke-opacity=".5">{boxes}</g>'
            f'<g text-anchor="start">{names}</g></svg>'
            + (html.note(f"Drawn are the {len(drawn)} strongest edges; {cut:,} more are shown.") if cut else "")
            + ("" if alone else html.note("Nodes without a drawn edge are left out.")))


def _curve(a: tuple[float, float], b: tuple[float, float], weight: float, limit: float, said: str) -> str:
    share = 0.3 if np.isnan(weight) else min(1.0, abs(weight) / limit) if limit else 0.0
    colour = UNKNOWN if np.isnan(weight) else POSITIVE if weight >= 0 else NEGATIVE
    dash = ' stroke-dasharray="5 4"' if weight < 0 else ' stroke-dasharray="1 3"' if np.isnan(weight) else ""
    y0, y1 = a[1] - 10, b[1] + 10
    bend = max((y0 - y1) / 2, 14)
    out = 14 + (y0 - y1) / 8 if abs(a[0] - b[0]) < 1 and y0 - y1 > LEVEL else 0  # past the nodes between
    tip = html.safe(f"{said}: {'not measured' if np.isnan(weight) else html.number(weight, 6)}")
    return (f'<path d="M{a[0]:.0f} {y0:.0f}C{a[0] + out:.0f} {y0 - bend:.0f} {b[0] + out:.0f} {y1 + bend:.0f} '
            f'{b[0]:.0f} {y1:.0f}" '
            f'stroke="{colour}" stroke-width="{0.7 + 3.8 * share:.1f}" opacity="{0.5 + 0.45 * share:.2f}"{dash}>'
            f"<title>{tip}</title></path>")


def _box(one: Node, x: float, y: float, used: bool, removed: bool) -> str:
    text = label(one)
    wide = max(26, 6.4 * len(text) + 10)
    dim = "" if used and not removed else ' opacity=".35"'
    dash = ' stroke-dasharray="3 2"' if removed else ""
    return (f'<g{dim}><rect x="{x - wide / 2:.0f}" y="{y - 10:.0f}" width="{wide:.0f}" height="20" rx="5" '
            f'stroke="currentColor" style="fill:var(--jp-layout-color1,Canvas)"{dash}/><text x="{x:.0f}" y="{y + 4:.0f}">'
            f'{html.safe(text)}</text>'
            f"<title>{html.safe(shown(one.name))}</title></g>")


def _largest(weights: np.ndarray) -> float:
    finite = np.abs(weights[np.isfinite(weights)])
    return float(finite.max(initial=0.0))


def figure(nodes: Sequence[Node], edges: Edges, kept: np.ndarray, title: str, ax: Any = None) -> Figure:
    """The same as a matplotlib figure."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    from ..records.plot import Picture, _literal

    low, high = min(one.y for one in nodes), max(one.y for one in nodes)
    wide = max(one.x for one in nodes) + 1
    picture = Picture(figsize=(max(4.8, 0.62 * wide + 1), max(3.2, 0.62 * (high - low + 1))),
                      layout="constrained") if ax is None else ax.figure
    place = picture.subplots() if ax is None else ax
    limit = _largest(edges.weight)
    for i in np.flatnonzero(kept)[::-1]:
        a, b, weight = nodes[int(edges.start[i])], nodes[int(edges.stop[i])], float(edges.weight[i])
        middle = (a.y + b.y) / 2
        share = 0.2 if np.isnan(weight) else min(1.0, abs(weight) / limit) if limit else 0.0
        colour = UNKNOWN if np.isnan(weight) else POSITIVE if weight >= 0 else NEGATIVE
        out = 0.25 + (b.y - a.y) / 8 if abs(a.x - b.x) < 0.01 and b.y - a.y > 1 else 0  # past the nodes between
        path = Path([(a.x, a.y), (a.x + out, middle), (b.x + out, middle), (b.x, b.y)], [1, 4, 4, 4])
        place.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=0.5 + 3 * share,
                                  alpha=0.35 + 0.6 * share, linestyle="--" if weight < 0 else "-"))
    used = set(edges.start[kept].tolist()) | set(edges.stop[kept].tolist())
    for i, one in enumerate(nodes):
        place.text(one.x, one.y, _literal(label(one)), ha="center", va="center", fontsize=8,
                   alpha=1.0 if i in used else 0.4, bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "#888888"})
    place.set(xlim=(-0.8, wide + 0.2), ylim=(low - 0.5, high + 0.5), xticks=[], title=_literal(title))
    place.set_yticks([row["y"] for row in rows(nodes)], [row["label"] for row in rows(nodes)], fontsize=8)
    place.tick_params(length=0)
    for side in place.spines.values():
        side.set_visible(False)
    return picture
