"""Records that draw themselves: a result of several Scores names its parts, and shows, plots and prints them.

    class Movement(Drawn):  pictures() ──{name: Scores or number}──▶ show · plot · one line of text · HTML

A result that a view draws by itself is `Viewed`: the same by that view.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import html
from ..errors import RecordError, ViewError
from .scores import Scores
from .sketch import fragment, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..views.base import View
    from ..views.boards import Board

Part = Scores | float | int | str | None
LONG = 200
"""Entries of an axis of steps from which it is shown as a picture of the curve, not as bars to point at."""
CUT = 60


class Drawn(ABC):
    """A result that is made of Scores and numbers. A dataclass that is one says `repr=False`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, repr=False)
    ... class Found(Drawn):
    ...     effect: Scores
    ...     tokens: int
    ...     def pictures(self):
    ...         return {"effect": self.effect, "tokens": self.tokens}
    >>> found = Found(Scores(np.array([0.5, -1.0]), ("layer",), unit="logits"), 12)
    >>> found
    Found(effect: layer 2, logits, -1 to 0.5; tokens: 12)
    >>> len(found.plot().axes), list(found.show())
    (1, ['effect'])
    """

    LINES: ClassVar[tuple[str, ...]] = ()
    """The parts of two axes that are drawn as lines, not as a map."""

    @abstractmethod
    def pictures(self) -> Mapping[str, Part]:
        """What it is made of, in the order in which it is drawn; what is None, or has no entries, is left out."""

    def show(self, *, title: str = "") -> Board:
        """A live view of every part, under each other, with the numbers above; a part that is too much for one is a picture.

        Args:
            title: What stands above; the kind of result unless given.
        """
        from ..views.boards import Board

        numbers, scores = self._split()
        parts: list[Any] = [("", html.heading(title or type(self).__name__) + _table(numbers))]
        return Board([*parts, *((name, _live(one, name)) for name, one in scores.items())], text=repr(self))

    def plot(self) -> Figure:
        """A matplotlib figure with a small picture of every part; settings of pyplot stay as they are.

        Raises:
            RecordError: no part has entries.
        """
        from .plot import together

        numbers, scores = self._split()
        if not scores:
            raise RecordError(f"There is nothing to plot in {self!r}.")
        said = " · ".join([type(self).__name__, *(f"{name} {_brief(value)}" for name, value in numbers.items())])
        return together(said, scores, dict.fromkeys(self.LINES, "line"))

    def _split(self) -> tuple[dict[str, float | int | str], dict[str, Scores]]:
        """The numbers and texts, and the Scores that have entries."""
        found = self.pictures()
        scores = {name: one for name, one in found.items() if isinstance(one, Scores) and one.values.size}
        return {name: one for name, one in found.items() if one is not None and not isinstance(one, Scores)}, scores

    def __repr__(self) -> str:
        said = [f"{name}: {_brief(one)}" for name, one in self.pictures().items() if one is not None]
        return f"{type(self).__name__}({'; '.join(said)})"

    def _repr_html_(self) -> str:
        numbers, scores = self._split()
        return html.block(html.heading(type(self).__name__), _table(numbers),
                          *(fragment(one, name) for name, one in scores.items()))


class Viewed:
    """A result that one view draws; see `OTHERS` of `hooklab.views.choosing`."""

    def show(self, **options: Any) -> View:
        """Its live view, with the options of that view. Raises ViewError."""
        view: View = shown(self, **options)
        return view

    def plot(self, **chosen: Any) -> Figure:
        """The same as a matplotlib figure; settings of pyplot stay as they are.

        Args:
            chosen: What is chosen in the view, by axis word, such as `neuron=17`.

        Raises:
            ViewError: there is nothing to draw, or no such entry.
        """
        view = self.show()
        try:
            return view.select(**chosen).plot()
        finally:
            view.close()

    def _repr_html_(self) -> str:
        view = self.show()
        try:
            return html.block(view.static())
        finally:
            view.close()


def shown(thing: Any, **options: Any) -> Any:
    """The live view of a result, for those whose `show` takes more than this; see `hooklab.views.of`. Raises ViewError."""
    from ..views.choosing import of

    return of(thing, **options)


def _brief(part: Part) -> str:
    """A part in a few words: `layer 5, logits, -1 to 0.5`."""
    if not isinstance(part, Scores):
        text = html.number(part) if isinstance(part, (int, float, np.number)) else html.printable(part)
        return text if len(text) <= CUT else text[:CUT - 1] + "…"
    sizes = " · ".join(f"{axis} {size}" for axis, size in zip(part.axes, part.shape, strict=True))
    return ", ".join(filter(None, [sizes, spread(part)]))


def _table(numbers: Mapping[str, float | int | str]) -> str:
    return html.table(list(numbers), [[one if isinstance(one, str) else _brief(one) for one in numbers.values()]]
                      ) if numbers else ""


def _live(scores: Scores, name: str) -> Any:
    """A view of one part; HTML of what is no view's: one number, a curve of many steps, more than a view holds."""
    from ..views.choosing import of_scores

    if not scores.axes:
        return fragment(scores, name)
    if _long(scores):
        return _picture(scores, name, "line")
    try:
        return of_scores(scores, title=name)
    except ViewError:
        return _picture(scores, name, None)


def _long(scores: Scores) -> bool:
    """Whether this is a curve over many steps, which nobody reads as bars."""
    return len(scores.axes) == 1 and scores.axes[0] == "step" and scores.values.size >= LONG


def _picture(scores: Scores, name: str, kind: str | None) -> str:
    """Scores as a picture in HTML."""
    data = base64.b64encode(scores.plot(kind=kind)._repr_png_()).decode()  # type: ignore[attr-defined]
    said = html.safe(f"{name}: {_brief(scores)}")
    return html.note(name) + f'<img alt="{said}" title="{said}" style="max-width:100%" src="data:image/png;base64,{data}">'
