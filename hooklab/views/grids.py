"""Grid: Scores of two axes or more as a heat map; further axes are chosen above it.

`heads` and `neurons` (in `maps`) and `sweep` are grids too. A cell of a sweep knows its own spec, and can be run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ViewError
from ..records import Run, Scores
from ..records.sketch import fragment, named
from . import axes, cells, colours, heat, wire
from .base import Answer, View
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .bar_charts import Bars

MOST_CELLS = 1_000_000
MOST_MORE = 8 * 2**20
"""Bytes of bounds, p-values, controls and texts that travel with the numbers; more are asked for cell by cell."""
MORE = ("low", "high", "p")
Speller = Callable[[Mapping[str, Any]], str]
Picked = Callable[[dict[str, Any]], Any]


class Grid(View):
    """A heat map of Scores; `selection` has a key per axis."""

    KIND = "grid"
    OPTIONS = {"limit": ()}
    SIGNED = False
    """Whether zero is in the middle of the colours even where no number is below it."""
    STRONGEST = 0
    """How many of the strongest cells are listed beside the map."""

    def __init__(self, scores: Scores, *, rows: str | None = None, columns: str | None = None, title: str = "",
                 spell: Speller | None = None, source: Any = None, signed: bool | None = None, limit: float = 0.0,
                 strongest: int | None = None, on_pick: Picked | None = None, of: cells.Cells | None = None) -> None:
        self._scores, self._spell, self._cells, self._on_pick = scores, spell, of, on_pick
        self._signed = self.SIGNED if signed is None else signed
        self._strongest = self.STRONGEST if strongest is None else strongest
        self._rows, self._columns = _drawn(scores, rows, columns)
        self._others = [axis for axis in scores.axes if axis not in (self._rows, self._columns)]
        self._above = self._prompts(source)
        _check(scores, self._rows, limit)
        super().__init__(axes.of(scores), title=title or scores.name, source=source, limit=float(limit))
        self.observe(self._picked, "selection")
        self.draw()

    def describe(self) -> dict[str, Any]:
        scores = self._scores
        return {"rows": self._rows, "columns": self._columns, "others": self._others,
                "unit": shown(scores.unit), "value": shown(scores.name), "scale": self.scale.facts,
                "level": scores.level, "note": shown(scores.note, 400),
                "most": wire.fitting(scores.values, kind="diverging").high,
                "above": self._above, "strongest": self._strongest, "asked": not self._fits,
                "runs": self._cells is not None and self._cells.runnable,
                "texts": [] if scores.labels is None or not self._fits else self._texts[0]}

    @property
    def scale(self) -> wire.Scale:
        """How numbers become colours."""
        limit = float(self.options.get("limit") or 0.0)
        return heat.scale_for(self._scores, signed=self._signed, limit=limit)

    def arrays(self) -> dict[str, np.ndarray]:
        scores = self._scores
        found = {"values": self._ordered(scores.values), "colours": colours.for_codes(self.scale.kind)}
        if not self._fits:
            return found
        found |= {word: self._ordered(array) for word in MORE if (array := getattr(scores, word)) is not None}
        if scores.control is not None:
            found["control"] = self._ordered(scores.control.values)
        if scores.labels is not None:
            found["label"] = self._ordered(self._texts[1], np.int32)
        return found

    @property
    def _fits(self) -> bool:
        """Whether everything there is to say of the cells travels with their numbers."""
        scores = self._scores
        count = sum(getattr(scores, word) is not None for word in (*MORE, "control", "labels"))
        return 4 * count * scores.values.size <= MOST_MORE

    @property
    def _texts(self) -> tuple[list[str], np.ndarray]:
        """The different labels of cells, and which one each cell has."""
        texts, which = np.unique(np.asarray(self._scores.labels).astype(str), return_inverse=True)
        return [shown(text) for text in texts.tolist()], which.reshape(self._scores.shape)

    def _ordered(self, array: Any, dtype: type = np.float32) -> np.ndarray:
        """An array with the rows and columns of the map last."""
        order = [self._scores.axes.index(axis) for axis in (*self._others, self._rows, self._columns)]
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(np.asarray(array).transpose(order), dtype=dtype)

    def _prompts(self, source: Any) -> list[dict[str, Any]]:
        if not isinstance(source, Run) or self._columns != "pos":
            return []
        return cells.prompts(source, "", axes.axis("pos", self._scores.coords["pos"]).keys)

    # Choosing a cell ---------------------------------------------------------------------------------------------------

    def _places(self, selection: Mapping[str, Any]) -> dict[str, int] | None:
        """Where a chosen cell lies along each axis; None while no cell is chosen. An axis not yet chosen is at its start."""
        if self._rows not in selection or self._columns not in selection:
            return None
        return {name: axis.index(selection[name]) if name in selection else 0 for name, axis in self._axes.items()}

    def spell(self, selection: Mapping[str, Any]) -> str:
        places = self._places(selection)
        if places is None:
            return ""
        keys = {name: self._axes[name].keys[i] for name, i in places.items()}
        if self._spell is not None:
            return self._spell(keys)
        return self._cells.spell(places) if self._cells is not None else ""

    def _picked(self, change: Any) -> None:
        places = self._places(change["new"])
        if self._on_pick is not None and places is not None:
            self._on_pick({name: self._axes[name].keys[i] for name, i in places.items()})

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"run": self._run, "cell": self._cell}

    def _run(self, **keys: Any) -> Answer:
        """Run the chosen cell, or the one whose keys are given."""
        places = self._places(keys or self.selection)
        if places is None:
            raise ViewError("choose a cell first")
        if self._cells is None:
            raise ViewError("these scores do not say which spec made them, so a cell of them cannot be run")
        return self._cells.measure(places), []

    def run(self, **keys: Any) -> dict[str, Any]:
        """Run the chosen cell on the model of the sweep, as the button does: its metrics and the likeliest next tokens.

        Raises:
            ViewError: no cell is chosen, the model is gone, or it is busy.
        """
        return dict(self._run(**keys)[0])

    def _cell(self, **keys: Any) -> Answer:
        """What there is to say of a cell, where that was too much to send at once."""
        places = self._places(keys or self.selection)
        if places is None:
            raise ViewError("choose a cell first")
        at = tuple(places[axis] for axis in self._scores.axes)
        found = {word: float(array[at]) for word in MORE if (array := getattr(self._scores, word)) is not None}
        if self._scores.control is not None:
            found["control"] = float(self._scores.control.values[at])
        label = {} if self._scores.labels is None else {"label": shown(self._scores.labels[at])}
        return {**found, **label}, []

    # Without a browser -------------------------------------------------------------------------------------------------

    def _map(self) -> tuple[np.ndarray, dict[str, Any]]:
        """The numbers of the map that is shown, [rows columns], and what it takes to draw them."""
        chosen = {name: self.selection.get(name, self._axes[name].keys[0]) for name in self._others}
        at = tuple(self._axes[name].index(key) for name, key in chosen.items())
        where = named({name: self._axes[name].labels[i] for name, i in zip(chosen, at, strict=True)})
        rows, columns = self._axes[self._rows], self._axes[self._columns]
        return self._ordered(self._scores.values, np.float64)[at], {
            "title": " · ".join(filter(None, [self._title, where])), "rows": rows.labels, "columns": columns.labels,
            "axes": (self._rows, self._columns), "unit": self._scores.unit}

    def static(self) -> str:
        scores = self._scores
        if scores.values.size <= heat.MOST_WRITTEN:
            return fragment(scores, self._title)
        values, about = self._map()
        best = [(named(cell), value) for cell, value in scores.top(max(self._strongest, 5))]
        return (heat.picture(values, self.scale, caption=about.pop("title"), **about)
                + heat.strongest(best, scores.unit, of=scores.values.size))

    def plot(self, ax: Any = None) -> Figure:
        self._check_open()
        values, about = self._map()
        return heat.figure(values, self.scale, ax=ax, **about)

    def release(self) -> None:
        self._scores, self._cells = Scores(np.zeros((0,) * len(self._axes)), tuple(self._axes)), None
        self._on_pick = self._spell = None


def _check(scores: Scores, rows: str, limit: float) -> None:
    """Refuse what cannot be drawn. Raises ViewError."""
    if not scores.values.size:
        raise ViewError("there is nothing to draw: the scores are empty")
    if scores.values.size > MOST_CELLS:
        raise ViewError(f"{scores.values.size:,} cells are more than the {MOST_CELLS:,} that a grid draws: choose a part "
                        f"with scores.sel({rows}=…)")
    if not limit >= 0 or limit == float("inf"):
        raise ViewError(f"limit is the number at the end of the colours, 0 for the largest; it cannot be {limit}")
    finite = np.asarray(scores.values, dtype=np.float64)
    if (largest := np.abs(finite[np.isfinite(finite)]).max(initial=0.0)) > np.finfo(np.float32).max:
        raise ViewError(f"{largest:.3g} is more than a view can draw: divide the scores by a power of ten first")


def _drawn(scores: Scores, rows: str | None, columns: str | None) -> tuple[str, str]:
    """The two axes of the map: those asked for, else the last two."""
    if not isinstance(scores, Scores):
        raise ViewError(f"a grid draws Scores, not {type(scores).__name__}: hl.Scores(array, ('layer', 'pos')), or "
                        "hl.view.sweep(run) for what a run swept")
    if len(scores.axes) < 2:
        raise ViewError(f"a grid needs two axes; these scores have {', '.join(scores.axes) or 'none'}. "
                        "hl.view.bars draws one")
    for axis in (rows, columns):
        if axis is not None and axis not in scores.axes:
            raise ViewError(f"the scores have no axis {axis!r}; they have {', '.join(scores.axes)}")
    if rows is not None and rows == columns:
        raise ViewError(f"rows and columns are both {rows}: they must be different axes")
    left = [axis for axis in scores.axes if axis not in (rows, columns)]
    columns = columns or left.pop()
    return rows or left.pop(), columns


def grid(scores: Scores, *, rows: str | None = None, columns: str | None = None, title: str = "", limit: float = 0.0,
         signed: bool | None = None, strongest: int | None = None, on_pick: Picked | None = None, source: Any = None,
         spell: Speller | None = None) -> Grid:
    """Any Scores of two axes or more as a heat map; one cell's exact number on hover, its labels as `.selection`.

    Args:
        scores: The numbers. Intervals, p-values, a control and texts are shown with the cell.
        rows: The axis that runs down; the one before the last unless given.
        columns: The axis that runs across; the last unless given. Further axes are chosen above the map.
        title: What stands above; the name of the scores unless given.
        limit: The number at the end of the colours; the largest unless given.
        signed: Put zero in the middle of the colours even where no number is below it.
        strongest: How many of the strongest cells to list beside the map.
        on_pick: Called with the labels of a cell when it is chosen.
        source: The run that the scores are from: views of one run share their selection.
        spell: Gives the spec text of a chosen cell, in place of that of the scores.

    >>> view = grid(Scores(np.eye(2), ("layer", "head"), name="effect"))
    >>> view.select(layer=1, head=0).selection
    {'layer': 1, 'head': 0}

    Raises:
        ViewError: there are fewer than two axes, no cells, or too many.
    """
    known = None if spell is not None or not isinstance(scores, Scores) else cells.of_scores(scores)
    return Grid(scores, rows=rows, columns=columns, title=title, limit=limit, signed=signed, strongest=strongest,
                on_pick=on_pick, source=source, spell=spell, of=known)


def sweep(swept: Run | Scores, model: Any = None, *, score: str | None = None, run: str | None = None,
          rows: str | None = None, columns: str | None = None, title: str = "", limit: float = 0.0,
          strongest: int | None = None, on_pick: Picked | None = None) -> Grid | Bars:
    """What was swept over, as a map whose cells know their spec and can be run; bars where there is one axis.

    Zero is in the middle of the colours. Where positions run across and a Run is given, its prompts stand above the map as
    aligned rows of tokens, differences marked.

    Args:
        swept: A Run, or the Scores of a sweep (`hl.sweep`).
        model: The model to run a chosen cell on; a Run knows its own while that is open.
        score: Which scores of the run: `"patched.prob"`, or `"prob"`; the first that was swept unless given.
        run: The name of the swept run, where the text of the scores has several.
        rows: The axis that runs down.
        columns: The axis that runs across.
        title: What stands above.
        limit: The number at the end of the colours; the largest unless given.
        strongest: How many of the strongest cells to list beside the map.
        on_pick: Called with the labels of a cell when it is chosen.

    Raises:
        ViewError: there are no such scores, no cells, or too many.
        RecordError: nothing was swept.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> run = model.run('''
        ... prompt "When Mary and John went to the store, John gave a drink to"
        ... answer " Mary" vs " John"
        ... metric logit_diff
        ... zero each L*H* @last
        ... ''')
        >>> view = sweep(run)
        >>> print(view.select(layer=1, head=3).spec.splitlines()[-1])
        zero L1H3 @last
    """
    scores, of, source = _swept(swept, model, score, run)
    options: dict[str, Any] = {"title": title, "on_pick": on_pick, "source": source, "of": of}
    if len(scores.axes) == 1:
        from .bar_charts import Bars

        return Bars(scores, **options)
    return Grid(scores, rows=rows, columns=columns, limit=limit, signed=True, strongest=strongest, **options)


def _swept(swept: Any, model: Any, score: str | None, run: str | None) -> tuple[Scores, cells.Cells | None, Any]:
    """The scores to draw, their cells, and the run that they are from."""
    if isinstance(swept, Run):
        key = cells.pick(swept, score)
        return swept.scores[key], cells.of_run(swept, key, model), swept
    if not isinstance(swept, Scores):
        raise ViewError(f"a sweep is a Run or Scores, not {type(swept).__name__}")
    if score is not None:
        raise ViewError("score= chooses among the scores of a Run; these are Scores already")
    return swept, cells.of_scores(swept, model, run), None


