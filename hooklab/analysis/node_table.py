"""A table of nodes of one pass: heads, neurons, tokens, pairs of tokens … side by side, with the numbers of each.

`hl.analysis.nodes` makes it. Nodes are kept as columns of numbers, so a table may have millions of them; their addresses
are written when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..errors import RecordError, did_you_mean
from ..records import Scores
from ..records.drawn import shown
from .asking import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

INDEX = ("kind", "layer", "unit", "pos", "key")
SHOWN = 20


@dataclass(frozen=True, order=True)
class Kind:
    """What the nodes of a kind are called, and how one of them is addressed.

    Attributes:
        name: `"heads"`, `"neurons"` …
        form: The address without positions; `{layer}` and `{unit}` stand for numbers.
    """

    name: str
    form: str

    def address(self, layer: int, unit: int, pos: int, key: int) -> str:
        """A node's address; what is -1 is left out.

        >>> Kind("neurons", "L{layer}N{unit}").address(3, 17, 4, -1), Kind("pairs", "L{layer}H{unit}").address(3, 5, 7, 2)
        ('L3N17 @4', 'L3H5.pattern[7,2]')
        """
        name = self.form.format(layer=layer, unit=unit)
        if key >= 0:
            return f"{name}.pattern[{pos},{key}]"
        return name if pos < 0 else f"{name} @{pos}"


@dataclass(frozen=True, repr=False, eq=False)
class Nodes:
    """Nodes of one pass and their numbers.

    >>> table = Nodes((Kind("heads", "L{layer}H{unit}"),), np.array([[0, 0, 1, 4, -1], [0, 2, 0, 4, -1]]),
    ...               {"direct_effect": np.array([0.5, -2.0])}, ("the",) * 5, "logit_diff", 1.25)
    >>> table.ids, table.sum("direct_effect")
    (('L0H1 @4', 'L2H0 @4'), -1.5)
    >>> table.nlargest(1, "direct_effect", absolute=True).ids
    ('L2H0 @4',)

    Attributes:
        kinds: The kinds of node that there are.
        index: What each node is, [node 5]: the number of its kind, layer, unit (head, neuron, feature), position (of a
            pair: its query) and key; -1 for what it does not have.
        columns: The numbers, by name, [node]; NaN where a node has none.
        pieces: The text of each token.
        metric: What effects are on.
        value: Its value.
        note: What a reader should know.
    """

    kinds: tuple[Kind, ...]
    index: np.ndarray
    columns: dict[str, np.ndarray]
    pieces: tuple[str, ...] = ()
    metric: str = ""
    value: float = float("nan")
    note: str = field(default="")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def by(self) -> tuple[str, ...]:
        """The names of the columns of numbers."""
        return tuple(self.columns)

    @property
    def ids(self) -> tuple[str, ...]:
        """The address of every node, as the language writes it."""
        return tuple(self.kinds[kind].address(*rest) for kind, *rest in self.index.tolist())

    def __getitem__(self, by: str) -> np.ndarray:
        """A column of numbers, [node]. Raises RecordError when there is none of that name."""
        if by not in self.columns:
            raise RecordError(f"there is no column {by!r}.{did_you_mean(by, self.columns)} "
                              f"There are {', '.join(self.columns)}.")
        return self.columns[by]

    def _under(self, word: str) -> np.ndarray:
        """What filters compare with, [node]."""
        if word == "kind":
            return np.array([kind.name for kind in self.kinds], dtype=object)[self.index[:, 0]]
        return np.asarray(self.index[:, INDEX.index(word)])

    def _rows(self, rows: Any) -> Nodes:
        return replace(self, index=self.index[rows], columns={name: column[rows] for name, column in self.columns.items()})

    # Choosing ----------------------------------------------------------------------------------------------------------

    def filter(self, where: Any = None, **wanted: Any) -> Nodes:
        """The nodes with these labels: `filter(kind="heads", layer=[2, 3])`, or those of a mask [node].

        Raises:
            RecordError: there is no such label, or the mask is not one of these nodes.
        """
        keep = np.ones(len(self), dtype=bool)
        if where is not None:
            mask = np.asarray(where)
            if mask.shape != keep.shape or mask.dtype != bool:
                raise RecordError(f"a mask of {len(self)} nodes is {len(self)} true or false, not {mask.dtype} of shape "
                                  f"{mask.shape}")
            keep &= mask
        for word, given in wanted.items():
            if word not in INDEX:
                raise RecordError(f"nodes have no {word!r}.{did_you_mean(word, INDEX)} They have {', '.join(INDEX)}.")
            known = tuple(dict.fromkeys(kind.name for kind in self.kinds))
            if word == "kind" and (other := [one for one in ([given] if isinstance(given, str) else list(given))
                                             if one not in known]):
                raise RecordError(f"there are no nodes of kind {other[0]!r}.{did_you_mean(other[0], known)} "
                                  f"There are {', '.join(known)}.")
            several = isinstance(given, Iterable) and not isinstance(given, str)
            keep &= np.isin(self._under(word), list(given) if several else [given])
        return self._rows(keep)

    def nlargest(self, k: int = SHOWN, by: str | None = None, *, absolute: bool = False) -> Nodes:
        """The `k` nodes whose number is largest (or furthest from zero), largest first; those without one are left out.

        Raises:
            RecordError: there is no such column, or `k` is negative.
        """
        return self._ranked(k, by, -1, absolute=absolute)

    def nsmallest(self, k: int = SHOWN, by: str | None = None, *, absolute: bool = False) -> Nodes:
        """The other end of the same order. Raises RecordError as `nlargest`."""
        return self._ranked(k, by, 1, absolute=absolute)

    def _ranked(self, k: int, by: str | None, sign: int, *, absolute: bool) -> Nodes:
        k = whole("k", k, 0, error=RecordError)
        column = self[self._first(by)]
        size = sign * (np.abs(column) if absolute else column)
        there = np.flatnonzero(~np.isnan(size))
        if 0 < k < len(there):  # only the foremost need to be put in order
            there = there[size[there] <= np.partition(size[there], k - 1)[k - 1]]
        return self._rows(there[np.argsort(size[there], kind="stable")][:k])

    def _first(self, by: str | None) -> str:
        return next(iter(self.columns)) if by is None else by

    # Adding up ---------------------------------------------------------------------------------------------------------

    def sum(self, by: str | None = None, *, absolute: bool = False) -> float:
        """The total of a column, or of its sizes. Raises RecordError when there is no such column."""
        column = self[self._first(by)]
        return float(np.nansum(np.abs(column) if absolute else column))

    def over(self, axis: str = "pos") -> Nodes:
        """Nodes with their positions (`"pos"`, of pairs the key as well) or their keys (`"key"`) added up.

        Raises:
            RecordError: another axis.
        """
        if axis not in ("pos", "key"):
            raise RecordError(f"nodes are added up over pos or key, not over {axis!r}")
        index = self.index.copy()
        index[:, INDEX.index("key")] = -1
        if axis == "pos":
            index[:, INDEX.index("pos")] = -1
        found, number = np.unique(index, axis=0, return_inverse=True)
        number = number.reshape(-1)
        columns = {}
        for name, column in self.columns.items():
            there = ~np.isnan(column)
            total = np.bincount(number[there], column[there], len(found))
            columns[name] = np.where(np.bincount(number[there], minlength=len(found)) > 0, total, np.nan)
        return replace(self, index=found, columns=columns)

    def __add__(self, other: Nodes) -> Nodes:
        return self._with(other, np.add, "+")

    def __sub__(self, other: Nodes) -> Nodes:
        return self._with(other, np.subtract, "−")

    def __mul__(self, factor: float) -> Nodes:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return replace(self, columns={name: column * factor for name, column in self.columns.items()},
                       value=self.value * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Nodes:
        return self * (1 / divisor)

    def _with(self, other: Nodes, function: Callable[[Any, Any], Any], sign: str) -> Nodes:
        """Node by node; a feature that is active in one table only is 0 in the other."""
        if not isinstance(other, Nodes):
            return NotImplemented
        kinds = tuple(dict.fromkeys((*self.kinds, *other.kinds)))
        shared = [name for name in self.columns if name in other.columns]
        if not shared:
            raise RecordError(f"these tables share no column: {', '.join(self.columns)} and {', '.join(other.columns)}")
        both = [table._numbered(kinds) for table in (self, other)]
        index, number = np.unique(np.concatenate(both), axis=0, return_inverse=True)
        number = number.reshape(-1)
        mine, theirs = number[:len(self)], number[len(self):]
        _check_same(kinds, index, mine, theirs)
        columns = {}
        for name in shared:
            one, two = np.zeros(len(index)), np.zeros(len(index))
            one[mine], two[theirs] = self.columns[name], other.columns[name]
            columns[name] = function(one, two)
        kept = np.concatenate([mine, np.setdiff1d(theirs, mine)])  # in the order of this table
        pieces = self.pieces if self.pieces == other.pieces else _both(self.pieces, other.pieces)
        metric = self.metric if self.metric == other.metric else f"{self.metric} {sign} {other.metric}"
        note = self.note if self.note == other.note else f"{self.note} {sign} {other.note}"
        return Nodes(kinds, index[kept], {name: column[kept] for name, column in columns.items()}, pieces, metric,
                     float(function(self.value, other.value)), note)

    def _numbered(self, kinds: Sequence[Kind]) -> np.ndarray:
        """The index with kinds counted as in another list."""
        index = self.index.copy()
        index[:, 0] = np.array([kinds.index(kind) for kind in self.kinds], dtype=index.dtype)[self.index[:, 0]]
        return index

    # Handing on --------------------------------------------------------------------------------------------------------

    def to_pandas(self) -> DataFrame:
        """A row for each node: its address as `node`, what it is, its token, and its numbers.

        Raises:
            RecordError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RecordError("to_pandas() needs pandas: pip install pandas") from error
        table: dict[str, Any] = {"node": list(self.ids)}
        table |= {word: self._under(word) for word in INDEX}
        table["token"] = [self._token(pos) for pos in self._under("pos").tolist()]
        return pandas.DataFrame(table | self.columns)

    def _token(self, pos: int) -> str:
        return self.pieces[pos] if 0 <= pos < len(self.pieces) else ""

    def scores(self, by: str | None = None) -> Scores:
        """A column as Scores [node], labelled by address. Raises RecordError when there is no such column."""
        by = self._first(by)
        return Scores(self[by], ("node",), {"node": self.ids}, name=by.replace("_", " "), note=self.note)

    def show(self, by: str | None = None, **options: Any) -> Any:
        """A live view of the nodes, those furthest from zero first; options as of `hl.view.nodes`.

        Raises:
            RecordError: there is no such column.
            ViewError: as `hl.view.nodes`.
        """
        return shown(self, by=by, **options)

    def plot(self, k: int = SHOWN, by: str | None = None) -> Figure:
        """A matplotlib figure of the `k` nodes furthest from zero, as bars. Raises RecordError."""
        return self.nlargest(k, by, absolute=True).scores(by).plot(kind="bars")

    def __repr__(self) -> str:
        names, counts = np.unique(self._under("kind").astype(str), return_counts=True)
        said = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
        return f"Nodes({said or 'none'}; {', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        if not len(self):
            return html.block(html.heading("No nodes"))
        first = self._first(None)
        best = self.nlargest(SHOWN, first, absolute=True)
        numbers = zip(*(column.tolist() for column in best.columns.values()), strict=True)
        rows = [[name, self._token(pos), *("" if np.isnan(number) else number for number in row)]
                for name, pos, row in zip(best.ids, best._under("pos").tolist(), numbers, strict=True)]
        said = f"{len(best)} of {len(self):,} nodes, furthest from zero by {first}"
        head = f"{self.metric} = {self.value:.4g}" if self.metric else "Nodes"
        return html.block(html.heading(head), html.table(["node", "token", *self.columns], rows, said),
                          html.note(self.note) if self.note else "")


def _check_same(kinds: tuple[Kind, ...], index: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> None:
    """Refuse tables of other nodes; features are left out where they are inactive, so they may differ."""
    only = np.setxor1d(mine, theirs)
    lone = [i for i in only.tolist() if kinds[index[i][0]].name != "latents"]
    if lone:
        kind, *rest = index[lone[0]].tolist()
        raise RecordError(f"{kinds[kind].address(*rest)} is in one of these tables only, and {len(lone) - 1} more: tables "
                          "are compared node by node, before they are filtered; for prompts of different lengths add "
                          'positions up first, with over("pos")')


def _both(one: tuple[str, ...], two: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens of two prompts."""
    if len(one) != len(two):
        return ()
    return tuple(a if a == b else f"{a} | {b}" for a, b in zip(one, two, strict=True))


def average(tables: Sequence[Nodes]) -> Nodes:
    """The mean of tables of the same nodes, such as those of several prompts of one length.

    Raises:
        RecordError: there is none, or their nodes differ.
    """
    if not tables or not all(isinstance(table, Nodes) for table in tables):
        raise RecordError("a mean is one of tables that nodes(…) gives, at least one")
    return reduce(Nodes.__add__, tables) / len(tables)


__all__ = ["Kind", "Nodes", "average"]
