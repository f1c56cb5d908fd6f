"""Bars: Scores of one axis, each with its number and its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ViewError
from ..records import Scores
from ..records.sketch import fragment, named
from . import axes, heat, wire
from .base import Answer, View
from .grids import MORE, Picked, Speller
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .cells import Cells

MOST_BARS = 100_000
SHOWN = 40


class Bars(View):
    """Bars of Scores; `selection` has the key of the chosen one."""

    KIND = "bars"
    OPTIONS = {"order": ("as given", "strongest", "largest", "smallest"), "most": ()}
    SHARED = ("layer", "head", "pos", "neuron", "site")

    def __init__(self, scores: Scores, *, title: str = "", order: str = "as given", most: int = SHOWN, source: Any = None,
                 spell: Speller | None = None, on_pick: Picked | None = None, of: Cells | None = None) -> None:
        _check(scores, most)
        self._scores, self._spell, self._on_pick, self._cells = scores, spell, on_pick, of
        self._axis = scores.axes[0]
        super().__init__(axes.of(scores), title=title or scores.name, source=source, order=order, most=int(most))
        self.observe(self._picked, "selection")
        self.draw()

    def describe(self) -> dict[str, Any]:
        scores = self._scores
        return {"axis": self._axis, "unit": shown(scores.unit), "value": shown(scores.name), "level": scores.level,
                "note": shown(scores.note, 400),
                "texts": [] if scores.labels is None else [shown(one) for one in scores.labels],
                "orders": list(self.OPTIONS["order"]), "runs": self._cells is not None and self._cells.runnable}

    def arrays(self) -> dict[str, np.ndarray]:
        scores = self._scores
        found = {"values": wire.held(scores.values, "values")}
        found |= {word: wire.held(array, word) for word in MORE if (array := getattr(scores, word)) is not None}
        if scores.control is not None:
            found["control"] = wire.held(scores.control.values, "the control")
        return found

    def spell(self, selection: Mapping[str, Any]) -> str:
        if self._axis not in selection:
            return ""
        if self._spell is not None:
            return self._spell(selection)
        if self._cells is None:
            return ""
        return self._cells.spell({self._axis: self._axes[self._axis].index(selection[self._axis])})

    def _picked(self, change: Any) -> None:
        if self._on_pick is not None and self._axis in change["new"]:
            self._on_pick(dict(change["new"]))

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"run": self._run}

    def _run(self, **keys: Any) -> Answer:
        """Run the chosen bar of a sweep, or the one whose key is given."""
        chosen = {**self.selection, **keys}
        if self._axis not in chosen:
            raise ViewError("choose a bar first")
        if self._cells is None:
            raise ViewError("these scores do not say which spec made them, so a bar of them cannot be run")
        return self._cells.measure({self._axis: self._axes[self._axis].index(chosen[self._axis])}), []

    def run(self, **keys: Any) -> dict[str, Any]:
        """Run the chosen bar on the model of the sweep, as the button does.

        Raises:
            ViewError: no bar is chosen, the model is gone, or it is busy.
        """
        return dict(self._run(**keys)[0])

    def _order(self) -> np.ndarray:
        """The bars that are shown, in their order."""
        values = np.asarray(self._scores.values, dtype=np.float64)
        size = np.where(np.isnan(values), -1.0, np.abs(values))
        keep = np.argsort(-size, kind="stable")[:int(self.options["most"]) or SHOWN]
        last = np.where(np.isnan(values), 0.0, values)
        by = {"as given": np.arange(len(values)), "strongest": -size, "largest": -last, "smallest": last}
        return keep[np.argsort(by[str(self.options["order"])][keep], kind="stable")]

    def static(self) -> str:
        if len(self._scores.values) <= SHOWN:
            return fragment(self._scores, self._title)
        best = [(named(cell), value) for cell, value in self._scores.top(SHOWN)]
        return heat.strongest(best, self._scores.unit, of=len(self._scores.values))

    def plot(self, ax: Any = None) -> Figure:
        from ..records.plot import Picture

        self._check_open()
        order, scores, axis = self._order(), self._scores, self._axes[self._axis]
        if ax is None:
            ax = Picture(figsize=(6.4, max(1.3, 0.9 + 0.26 * len(order))), layout="constrained").subplots()
        values = np.asarray(scores.values, dtype=np.float64)[order]
        ax.barh(range(len(order)), values, color=["#b2182b" if value > 0 else "#2166ac" for value in values])
        if scores.low is not None and scores.high is not None:
            ax.hlines(range(len(order)), scores.low[order], scores.high[order], color="#404040", linewidth=1.2)
        ax.set_yticks(range(len(order)), [axis.labels[i].replace("$", r"\$") for i in order])
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.axvline(0, color="grey", linewidth=0.8)
        for row in np.flatnonzero(np.isnan(values)):
            ax.annotate("× nan", (0, row), (5, 0), textcoords="offset points", va="center", fontsize=8, color="#595959",
                        bbox={"facecolor": ax.get_facecolor(), "linewidth": 0, "pad": 1.5})
        if np.isnan(values).all():
            ax.set_xlim(0, 1)
        ax.set_xlabel(scores.unit.replace("$", r"\$"))
        ax.set_ylabel(self._axis)
        ax.set_title(self._title.replace("$", r"\$"))
        found: Figure = ax.figure
        return found

    def release(self) -> None:
        self._scores, self._cells = Scores(np.zeros(0), (self._axis,)), None
        self._on_pick = self._spell = None


def _check(scores: Any, most: int) -> None:
    """Refuse what is no bars. Raises ViewError."""
    if not isinstance(scores, Scores):
        raise ViewError(f"bars draw Scores, not {type(scores).__name__}: hl.Scores(array, ('layer',))")
    if len(scores.axes) != 1:
        raise ViewError(f"bars draw one axis; these scores have {', '.join(scores.axes) or 'none'}: hl.view.grid draws two")
    if not scores.values.size:
        raise ViewError("there is nothing to draw: the scores are empty")
    if scores.values.size > MOST_BARS:
        raise ViewError(f"{scores.values.size:,} bars are more than the {MOST_BARS:,} that a view holds: choose a part with "
                        f"scores.sel({scores.axes[0]}=[…])")
    if most < 1:
        raise ViewError(f"most is how many bars to show, at least 1, not {most}")


def bars(scores: Scores, *, title: str = "", order: str = "as given", most: int = SHOWN, source: Any = None,
         on_pick: Picked | None = None, spell: Speller | None = None) -> Bars:
    """Scores of one axis as horizontal bars, with whiskers where there are intervals; a click chooses one.

    Args:
        scores: The numbers.
        title: What stands above; the name of the scores unless given.
        order: `"as given"`, `"strongest"` (furthest from zero first), `"largest"` or `"smallest"`.
        most: How many bars to show: the strongest ones. The view says of how many, and has a control for it.
        source: The run that the scores are from.
        on_pick: Called with the label of a bar when it is chosen.
        spell: Gives the spec text of a chosen bar, in place of that of the scores.

    >>> view = bars(Scores(np.array([0.5, -2.0]), ("layer",), name="effect"), order="strongest")
    >>> view.select(layer=1).selection
    {'layer': 1}

    Raises:
        ViewError: there is not exactly one axis, or nothing to draw.
    """
    from . import cells

    known = None if spell is not None or not isinstance(scores, Scores) else cells.of_scores(scores)
    return Bars(scores, title=title, order=order, most=most, source=source, on_pick=on_pick, spell=spell, of=known)
