"""Nodes of one pass as a table: heads, neurons, tokens and pairs of tokens by what they write and what that does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..analysis.node_table import Nodes
from ..errors import HooklabError, ViewError
from . import axes
from .axes import Axis
from .tables import MOST, Column, Table

if TYPE_CHECKING:
    from ..model.model import Model

LIKELY = 8
"""Tokens that a node speaks for, and against, which are listed."""
UNITS = {"heads": "head", "pairs": "head", "neurons": "neuron"}
"""The kinds whose units other views choose by a word of their own."""


class NodeTable(Table):
    """Nodes and their numbers; `selection` has the chosen `node`, with its `layer`, `head` or `neuron`, `pos` and `key_pos`.

    Attributes:
        nodes: Those that the view holds.
    """

    WORD = "node"
    SHARED = ("layer", "head", "neuron", "pos")

    def __init__(self, nodes: Nodes, *, by: str | None = None, most: int = MOST, model: Model | None = None,
                 prompt: Any = None, title: str = "", source: Any = None, **options: Any) -> None:
        by = next(iter(nodes.columns)) if by is None else by
        size = np.abs(nodes[by])
        first = np.sort(np.argsort(np.where(np.isnan(size), np.inf, -size), kind="stable")[:most])
        self.nodes = nodes if len(nodes) <= most else nodes.filter(np.isin(np.arange(len(nodes)), first))
        self._model, self._prompt = model, prompt
        columns = [Column("token", self._tokens()), *(Column(name.replace("_", " "), column)
                                                     for name, column in self.nodes.columns.items())]
        narrow = [Column("kind", [kind.name for kind in self._kinds]),
                  Column("layer", [str(n) if n >= 0 else "none" for n in self.nodes.index[:, 1].tolist()])]
        cut = f"the {most:,} furthest from zero by {by.replace('_', ' ')}" if len(nodes) > most else ""
        value = f"{nodes.metric} = {nodes.value:.4g}" if nodes.metric else ""
        super().__init__(self.nodes.ids, columns, axes=self._words(), by=by.replace("_", " "), narrow=narrow, signed=True,
                         total=len(nodes), note=" · ".join(one for one in (cut, nodes.note) if one),
                         title=title or value or "nodes", source=source, **{"order": "size", **options})

    @property
    def _kinds(self) -> list[Any]:
        return [self.nodes.kinds[number] for number in self.nodes.index[:, 0].tolist()]

    def _tokens(self) -> list[str]:
        """The token of each node; of a pair, that from which it moves something, and that to which."""
        def piece(pos: int) -> str:
            return self.nodes.pieces[pos] if 0 <= pos < len(self.nodes.pieces) else ""

        return [piece(pos) if key < 0 else f"{piece(key)} → {piece(pos)}" for pos, key in self.nodes.index[:, 3:].tolist()]

    def _words(self) -> list[Axis]:
        made = []
        for word in self.SHARED[:3]:
            keys = sorted({one[word] for one in self._said.values() if word in one})
            made += [axes.axis(word, keys)] if keys else []
        pieces = self.nodes.pieces
        for word, column in (("pos", 3), ("key_pos", 4)):
            last = max(self.nodes.index[:, column].tolist(), default=-1)
            if last >= 0:
                made.append(axes.positions(word, [*pieces, *map(str, range(len(pieces), last + 1))]))
        return made

    @cached_property
    def _said(self) -> dict[str, dict[str, int]]:
        found = {}
        rows = zip(self.nodes.ids, self._kinds, self.nodes.index.tolist(), strict=True)
        for name, kind, (_, layer, unit, pos, key) in rows:
            words = {"layer": layer, UNITS.get(kind.name, ""): unit, "pos": pos, "key_pos": key}
            found[name] = {word: key for word, key in words.items() if word and key >= 0}
        return found

    def said(self) -> Mapping[str, Mapping[str, Any]]:
        return self._said

    def look(self, row: int) -> tuple[list[tuple[str, str]], list[tuple[str, list[str], list[list[Any]]]], str]:
        pos, key = self.nodes.index[row, 3:].tolist()
        pieces = self.nodes.pieces
        about = [("kind", self._kinds[row].name)]
        about += [(word, f"{at}: {pieces[at]}" if at < len(pieces) else str(at))
                  for word, at in (("position", pos), ("looks at", key)) if at >= 0]
        about += [(name.replace("_", " "), html.number(float(column[row]), 6))
                  for name, column in self.nodes.columns.items() if not np.isnan(column[row])]
        if self._model is None:
            return about, [], ""
        try:
            return about, [self._likely(self.names[row])], ""
        except HooklabError as error:
            return about, [], str(error)

    def _likely(self, node: str) -> tuple[str, list[str], list[list[Any]]]:
        """The tokens that what a node writes speaks for and against."""
        from ..analysis.directions import token_direction
        from ..analysis.node_tokens import node_write

        assert self._model is not None
        write = node_write(self._model, self._prompt, node)
        lines: list[list[Any]] = [[] for _ in range(LIKELY)]
        for lowest in (False, True):
            end = token_direction(self._model, write, LIKELY, lowest=lowest)
            assert end.labels is not None
            for line, label, value in zip(lines, end.labels.tolist(), end.values.tolist(), strict=False):
                line += [str(label), value]
        return "What it writes speaks", ["for", "", "against", ""], lines

    def spell(self, selection: Mapping[str, Any]) -> str:
        """A line that takes the node away: its output to zero, or its attention from one token to another."""
        if "node" not in selection:
            return ""
        row = self._axes["node"].index(selection["node"])
        kind, (layer, unit, pos, key) = self._kinds[row], self.nodes.index[row, 1:].tolist()
        if kind.name == "biases":
            return ""
        if key >= 0:
            return f"cut L{layer}H{unit} @{key} -> @{pos}"
        return f"zero {selection['node']}"

    def release(self) -> None:
        super().release()
        self.__dict__.pop("_said", None)
        self.nodes = self.nodes.filter(np.zeros(len(self.nodes), dtype=bool))
        self._model = self._prompt = None


def nodes(table: Nodes, *, by: str | None = None, most: int = MOST, model: Model | None = None, prompt: Any = None,
          title: str = "", source: Any = None) -> NodeTable:
    """Nodes of one pass to search, sort, narrow by kind and layer, and look into.

    Args:
        table: What `hl.analysis.nodes` gives, or a difference of two such tables (before and after an ablation, or of two
            prompts).
        by: The column that nodes are sorted by, and by whose size they are kept; the first unless given.
        most: How many nodes the view holds: those furthest from zero.
        model: With it, a node that is chosen also tells the tokens that its write speaks for and against.
        prompt: What the pass was on; goes with `model`.
        title: A heading; the metric and its value unless given.
        source: Whatever other views were made from, to share layer, head and position with them.

    Returns:
        A view whose `spec` takes the chosen node away: `zero L2H3 @9`, `cut L2H3 @4 -> @9`.

    Raises:
        ViewError: this is no table of nodes, `most` is not positive, or a model is given without its prompt.
        RecordError: there is no such column.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> table = hl.analysis.nodes(model, "When Mary and John went to the store, John gave a drink to",
        ...                           answer=" Mary", wrong=" John", kinds="heads")
        >>> view = hl.view.nodes(table)
        >>> view.select(layer=2, head=1, pos=14).spec
        'zero L2H1 @14'
    """
    if not isinstance(table, Nodes):
        raise ViewError(f"a table of nodes is what hl.analysis.nodes(model, prompt, …) gives, not {type(table).__name__}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ViewError(f"most is how many nodes the view holds, at least 1, not {most!r}")
    if model is not None and prompt is None:
        raise ViewError("with a model, say what the pass was on: hl.view.nodes(table, model=model, prompt=text)")
    return NodeTable(table, by=by, most=min(most, MOST), model=model, prompt=prompt, title=title, source=source)
