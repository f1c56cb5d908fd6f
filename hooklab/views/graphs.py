"""Graph: the nodes and edges of a circuit, layer above layer, as many edges as are stronger than a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from .. import html
from ..analysis.circuits import Circuit
from ..errors import ViewError, did_you_mean
from ..records import Scores
from . import allowed, layered, network
from .axes import Axis
from .base import Answer, View
from .layered import INLETS, Node
from .network import Edges
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUGGESTED = 60
"""Edges that the suggested threshold leaves."""
SPOKEN = ("head", "mlp", "attn", "neuron")
"""Kinds of nodes that stand in spec text, which takes out all others of these kinds."""
EVERY = {"head": "L*H*", "mlp": "L*.mlp", "attn": "L*.attn"}


class Graph(View):
    """A circuit; `selection` has the chosen `node`, and with it its `layer`, `head` and `pos`.

    Attributes:
        nodes: The nodes with their places.
        edges: Every edge that was kept.
    """

    KIND = "graph"
    OPTIONS = {"isolated": ("dim", "hide"), "layout": ("up", "right"), "part": ("all", "pinned"), "threshold": ()}

    def __init__(self, nodes: Sequence[Node], edges: Edges, *, threshold: float | None = None, title: str = "",
                 unit: str = "", removed: Iterable[str] = (), tokens: Sequence[str] = (), spec: str = "", note: str = "",
                 left_out: str = "", source: Any = None, **options: Any) -> None:
        self.nodes, self.edges = tuple(nodes), edges
        self._unit, self._note, self._left_out, self._lines = unit, note, left_out, spec
        self._removed = frozenset(removed)
        self._pinned: tuple[str, ...] = ()
        self._tokens = [shown(token) for token in tokens]
        super().__init__(self._made_axes(), title=title or "circuit", source=source,
                         threshold=_suggested(edges.weight) if threshold is None else float(threshold), **options)
        self.observe(lambda _: self._spell_again(), "options")
        self.draw()
        self._spell_again()

    def _made_axes(self) -> list[Axis]:
        def axis(word: str, keys: Iterable[Any]) -> Axis:
            found = tuple(dict.fromkeys(keys))
            return Axis(word, found, tuple(shown(key) for key in found))

        by = [layered.words(one) for one in self.nodes]
        return [axis("node", (one.name for one in self.nodes)),
                *(axis(word, sorted(one[word] for one in by if word in one)) for word in ("layer", "head", "pos")
                  if any(word in one for one in by))]

    def describe(self) -> dict[str, Any]:
        told = [{"name": one.name, "says": shown(one.name), "label": network.label(one), "kind": one.kind,
                 "layer": one.layer, "index": one.index, "pos": one.pos, "removed": one.name in self._removed}
                for one in self.nodes]
        return {"nodes": told, "inlets": list(INLETS), "unit": self._unit, "note": self._note, "left_out": self._left_out,
                "pinned": list(self._pinned), "rows": network.rows(self.nodes), "tokens": self._tokens,
                "measured": bool(np.isfinite(self.edges.weight).any()) or not self.edges.weight.size}

    def arrays(self) -> dict[str, np.ndarray]:
        edges = self.edges
        return {"start": edges.start.astype(np.int32), "stop": edges.stop.astype(np.int32),
                "inlet": edges.inlet.astype(np.uint8), "weight": edges.weight.astype(np.float32),
                "x": np.array([one.x for one in self.nodes], np.float32),
                "y": np.array([one.y for one in self.nodes], np.float32)}

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"pin": self._pin}

    # Which part is shown -------------------------------------------------------------------------------------------

    @property
    def pinned(self) -> tuple[str, ...]:
        """The pinned nodes; set it by `pin`."""
        return self._pinned

    def pin(self, *names: str) -> Graph:
        """Pin these nodes and no others; without a name, none. Returns the view.

        Raises:
            ViewError: there is no such node.
        """
        self._pin(list(names))
        self.draw()
        return self

    def _pin(self, nodes: Sequence[str]) -> Answer:
        known = self._axes["node"].keys
        for name in nodes:
            if name not in known:
                raise ViewError(f"there is no node {name!r}.{did_you_mean(str(name), known)}")
        self._pinned = tuple(dict.fromkeys(nodes))
        self._spell_again()
        return {"pinned": list(self._pinned)}, []

    @property
    def kept(self) -> np.ndarray:
        """Which edges are shown: those at least as strong as the threshold, among the pinned nodes if only those are."""
        strong = np.abs(self.edges.weight) >= self.options["threshold"]
        if self.options["threshold"] <= 0:
            strong = np.ones(len(strong), dtype=bool)
        if self.options["part"] == "pinned" and self._pinned:
            inside = np.array([one.name in self._pinned for one in self.nodes])
            strong &= inside[self.edges.start] & inside[self.edges.stop]
        return strong

    @property
    def shown(self) -> list[tuple[str, str, float]]:
        """The edges that are shown: (from, to, weight), the strongest first; `to` has its inlet, as in `L2H1.q`."""
        edges, found = self.edges, []
        for i in np.flatnonzero(self.kept):
            inlet = INLETS[int(edges.inlet[i])]
            to = self.nodes[int(edges.stop[i])].name
            stem, at, pos = to.partition(" @")
            to = f"{stem}.{inlet}{at}{pos}" if inlet else to
            found.append((self.nodes[int(edges.start[i])].name, to, float(edges.weight[i])))
        return found

    def _inside(self) -> list[Node]:
        """The nodes of the part that is shown: the pinned ones where there are some, else those with edges."""
        if self._pinned:
            return [one for one in self.nodes if one.name in self._pinned]
        at = set(self.edges.start[self.kept].tolist()) | set(self.edges.stop[self.kept].tolist())
        return [one for i, one in enumerate(self.nodes) if i in at and one.name not in self._removed]

    # Selecting ---------------------------------------------------------------------------------------------------------

    @traitlets.validate("selection")
    def _checked_selection(self, proposal: Any) -> dict[str, Any]:
        """A node brings its layer, head and position along; these, when they name one node, bring the node."""
        said = {one.name: layered.words(one) for one in self.nodes}
        return allowed.together(super()._checked_selection(proposal), self.selection, "node", said)

    def spell(self, selection: Mapping[str, Any]) -> str:
        """The part that is shown, as a group of its components and a run with all others taken out."""
        inside = [one for one in self._inside() if one.kind in SPOKEN]
        names = list(dict.fromkeys(one.name.partition(" @")[0] for one in inside))
        kinds = [kind for kind in EVERY if any(one.kind == kind for one in self.nodes)]
        lines = [line for line in self._lines.splitlines() if line.strip()]
        if not names:
            return ""
        lines.append(f"group shown = {', '.join(names)}")
        universe = [EVERY[kind] for kind in kinds if not (kind == "attn" and "head" in kinds)]
        if universe:
            said = {line.split()[1] for line in lines if line.startswith("prompt ")}
            others = f"{', '.join(universe)} except shown"
            act = f"patch {others} from corrupt" if {"clean", "corrupt"} <= said else f"zero {others}"
            lines += ["run circuit on clean:", f"    {act}"] if "clean" in said else [act]
        return "\n".join(lines)

    def _spell_again(self) -> None:
        if not self._closed:
            self._spec = self.spell(self.selection)

    # Without a front end -----------------------------------------------------------------------------------------------

    def static(self) -> str:
        kept = self.kept
        rows = [[start, to, weight] for start, to, weight in self.shown[:network.LISTED]]
        more = f" (the {len(rows)} strongest of {int(kept.sum()):,})" if kept.sum() > len(rows) else ""
        parts = [network.svg(self.nodes, self.edges, kept, self._removed), html.note(self._counts())]
        if self._left_out:
            parts.append(html.note(self._left_out))
        if rows:
            parts.append(html.table(["from", "to", self._unit or "weight"], rows, f"edges{more}"))
        return html.heading(self._title) + "".join(parts) + (html.note(self._note) if self._note else "")

    def _counts(self) -> str:
        kept = self.kept
        nodes = len(set(self.edges.start[kept].tolist()) | set(self.edges.stop[kept].tolist()))
        return (f"{int(kept.sum()):,} of {len(kept):,} edges, {nodes} of {len(self.nodes)} nodes; |weight| from "
                f"{html.number(float(self.options['threshold']))} on. Negative edges are blue and dashed.")

    def plot(self, ax: Any = None) -> Figure:
        return network.figure(self.nodes, self.edges, self.kept, self._title, ax)

    def release(self) -> None:
        super().release()
        empty = np.zeros(0)
        self.edges = Edges(empty, empty, empty, empty)

    def __repr__(self) -> str:
        return f"Graph({self._title} · {len(self.nodes)} nodes · {len(self.edges.weight):,} edges)"


def graph(source: Any, *, edges: Scores | None = None, threshold: float | None = None, title: str = "",
          tokens: Sequence[str] = (), spec: str = "", linked: Any = None, **options: Any) -> Graph:
    """The nodes and edges of a circuit: threshold them, follow them, pin a part, and take it away as spec text.

    Args:
        source: Scores of edges as `hl.analysis.edges` makes them; a `Circuit`; a list of (from, to, weight); or a dict,
            either {(from, to): weight} or {from: {to: weight}}. Names that are addresses (`embed`, `L0H3`, `L1H2.q`,
            `L1.mlp`, `logits`, `L1H2 @5`) stand in their layer; others above what leads to them.
        edges: With a circuit: the weights of the edges between its nodes. Without, every path that the circuit leaves open
            is drawn, as a line of unknown weight.
        threshold: The least |weight| that is shown; chosen so that 60 edges are when it is left out.
        title: Heading.
        tokens: The tokens that positions stand for.
        spec: Lines that declare the prompts and the metric, to go before the spec text of what is shown; a circuit has
            its own. Where they declare `clean` and `corrupt`, other components are patched from `corrupt`, else zeroed.
        linked: Whatever other views were made from, to share layer, head and position with them.
        options: `isolated="dim"` or `"hide"`, `layout="up"` or `"right"`, `part="all"` or `"pinned"`.

    Raises:
        ViewError: there are no edges, one is given twice or runs backwards, or the source is of another kind.

    Example:
        >>> import hooklab as hl
        >>> edges = [("embed", "L0H1.v", 0.5), ("L0H1", "L1H2.k", -0.2), ("L1H2", "logits", 1.5)]
        >>> view = hl.view.graph(edges, threshold=0.3)
        >>> view.shown
        [('L1H2', 'logits', 1.5), ('embed', 'L0H1.v', 0.5)]
        >>> view.select(node="L1H2").selection
        {'node': 'L1H2', 'layer': 1, 'head': 2}
    """
    unit, note, removed = "", "", tuple[str, ...]()
    if isinstance(source, Circuit):
        spec = spec or _declared(source.spec)
        removed = tuple(layered.node(name)[0].name for name in source.removed)
        title, note = title or "circuit", str(source).partition(":")[0]
        unit = "" if edges is None else edges.unit
        found = network.of_circuit(source, edges)
    elif isinstance(source, Scores):
        unit, note, title = source.unit, source.note, title or (f"edges: {source.name}" if source.name else "edges")
        spec = spec or _declared(source.spec)
        found = network.of_scores(source)
    else:
        found = network.of_list(source)
    if edges is not None and not isinstance(source, Circuit):
        raise ViewError("edges= goes with a circuit; give edges alone as the first argument")
    return Graph(found.nodes, found.edges, threshold=threshold, title=title, unit=unit, removed=removed, tokens=tokens,
                 spec=spec, note=note, left_out=found.left_out, source=linked, **options)


def _declared(spec: str) -> str:
    """The lines of a spec that say what there is, not what is done."""
    return "\n".join(line for line in spec.splitlines() if line.split(" ", 1)[0] in ("prompt", "answer", "metric", "mark",
                                                                                      "seed", "model", "let"))


def _suggested(weights: np.ndarray) -> float:
    known = np.abs(weights[np.isfinite(weights)])
    return float(np.sort(known)[-SUGGESTED]) if len(known) > SUGGESTED else 0.0
