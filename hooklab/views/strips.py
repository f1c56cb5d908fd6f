"""Tokens: running text coloured by any number per token, with what a model expected next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..analysis.predictions import Predictions, predictions
from ..errors import ViewError
from ..html import printable
from ..model.model import Model
from ..model.opened import unopened
from ..records import Run, Scores
from ..tokens import Tokens
from . import tints, wire
from .axes import Axis
from .base import View
from .strip_rows import Ahead, Coloured, of_strings, of_tokens, starts
from .strip_sources import ahead_of, of_predictions, of_run, of_scores, ranked, with_numbers
from .text import JOINERS, LONGEST, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS = 200_000
AT_ONCE = 3000
"""Tokens that are on the page at once; the others are turned to."""
MOST_STATIC = 600
MOST_PLOTTED = 1500
ACROSS = 88
"""Characters of a line of a picture."""
MARKS = {"\t": "⇥", "\n": "↵\n", "\r": "␍", "\u00a0": "⍽", "\u3000": "□"}


class Strip(View):
    """Coloured text; `selection` has a `pos`, the row (`batch`) where there are several, and the set of numbers."""

    KIND = "tokens"
    SHARED = ("layer", "head", "pos", "batch")

    def __init__(self, found: Coloured, *, title: str = "", limit: float = 0.0, signed: bool | None = None) -> None:
        if found.total > MOST_TOKENS:
            raise ViewError(f"{found.total:,} tokens are more than the {MOST_TOKENS:,} that this view takes: give a part")
        if not limit >= 0 or limit == float("inf"):
            raise ViewError(f"limit is the number at the end of the colours, 0 for the largest; it cannot be {limit}")
        self._found, self._signed, self._limit = found, signed, float(limit)
        super().__init__(self._counted(), title=title, source=found.source)
        self.draw()

    def _counted(self) -> list[Axis]:
        rows, which = self._found.rows, self._found.which
        if len(rows) == 1:
            keys = tuple(range(len(rows[0]))) if self._found.positions is None else self._found.positions.keys
            own = [Axis("pos", keys, tuple(map(shown, rows[0].pieces)))]
        else:
            longest = max(map(len, rows))
            labels = tuple(shown(row.label or i) for i, row in enumerate(rows))
            own = [Axis("batch", tuple(range(len(rows))), labels),
                   Axis("pos", tuple(range(longest)), tuple(map(str, range(longest))))]
        return [*([which] if which is not None else []), *own]

    # What is drawn -----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        found = self._found
        scales = [self._scale(i) for i in range(len(found.values))]
        ahead = found.ahead
        return {"rows": [{"label": shown(row.label), "pieces": [visible(piece) for piece in row.pieces], "apart": row.apart,
                          "special": [i for i, odd in enumerate(row.special) if odd]} for row in found.rows],
                "which": "" if found.which is None else found.which.name,
                "sets": [{"name": shown(name), "unit": shown(unit), "scale": scale.facts, "tint": tints.tint(scale)}
                         for (name, unit), scale in zip(found.names, scales, strict=True)],
                "tokens": {} if ahead is None else {str(i): shown(text) for i, text in ahead.texts.items()},
                "ahead": ahead is not None, "most": AT_ONCE, "note": shown(found.note, 400)}

    def arrays(self) -> dict[str, np.ndarray]:
        """`values` [which token], a table of colours for each tint, and what was expected next."""
        found = self._found
        arrays = {"values": np.ascontiguousarray(found.values, np.float32)}
        arrays |= {f"tint.{name}": tints.table(name) for name in ("up", "down", "both")}
        if found.ahead is not None:
            arrays |= {"ids": found.ahead.ids.astype(np.int32), "probs": found.ahead.probs, "prob": found.ahead.prob,
                       "rank": found.ahead.rank}
        return arrays

    def _scale(self, i: int) -> wire.Scale:
        """How a set of numbers becomes colours: on a scale of its own where sets are different things."""
        found = self._found
        values = found.values[i] if found.own else found.values
        return scale_for(values, found.names[i], signed=self._signed, limit=self._limit)

    @property
    def _set(self) -> int:
        which = self._found.which
        return 0 if which is None or which.name not in self.selection else which.index(self.selection[which.name])

    def spell(self, selection: Mapping[str, Any]) -> str:
        found = self._found
        if "pos" not in selection or (len(found.rows) > 1 and "batch" not in selection):
            return ""
        row = found.rows[self._axes["batch"].index(selection["batch"]) if len(found.rows) > 1 else 0]
        at = self._axes["pos"].index(selection["pos"])
        if at >= len(row):
            return ""
        if found.spell is not None and np.isfinite(found.values[:, at]).any():
            return found.spell(selection)
        return row.spell(selection["pos"]) if isinstance(selection["pos"], int) else ""

    # Without a browser -------------------------------------------------------------------------------------------------

    def _drawn_values(self) -> tuple[np.ndarray | None, str, wire.Scale | None]:
        if not len(self._found.values):
            return None, "", None
        name, unit = self._found.names[self._set]
        named = name if unit in ("", name) else f"{name} · {unit}"
        return self._found.values[self._set].astype(np.float64), named, self._scale(self._set)

    def static(self) -> str:
        values, unit, scale = self._drawn_values()
        parts, left = [], MOST_STATIC
        parts += [html.heading(self._title)] if self._title else []
        for row, start in zip(self._found.rows, starts(self._found.rows), strict=True):
            pieces = [visible(piece) for piece in row.pieces[:max(0, left)]]
            parts += [html.note(row.label)] if row.label and len(self._found.rows) > 1 else []
            own = None if values is None else values[start:start + len(pieces)].tolist()
            limit = None if scale is None else max(abs(scale.low), abs(scale.high))
            parts += [html.strip(pieces, own, unit=unit, limit=limit)] if pieces else []
            left -= len(row)
            if left < 0:
                parts.append(html.note(f"The first {MOST_STATIC} of {self._found.total:,} tokens."))
                break
        return "".join(parts) + (html.note(self._found.note) if self._found.note else "")

    def plot(self, ax: Any = None) -> Figure:
        """The coloured text, wrapped, one colour bar below it."""
        from .strip_plot import figure

        self._check_open()
        values, unit, scale = self._drawn_values()
        rows = [(shown(row.label), [visible(piece) for piece in row.pieces]) for row in self._found.rows]
        return figure(rows, values, unit, scale, title=self._title, most=MOST_PLOTTED, across=ACROSS, ax=ax)

    def release(self) -> None:
        self._found = Coloured((), np.zeros((0, 0), np.float32))


def scale_for(values: np.ndarray, name: tuple[str, str], *, signed: bool | None = None, limit: float = 0.0) -> wire.Scale:
    """The scale of numbers: from zero away, to both sides where some lie on each.

    >>> scale_for(np.array([-3.0, -1.0]), ("log-probability", "nats"))
    Scale(kind='linear', low=-3.0, high=0.0)
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed or (signed is None and low < 0 < high):
        end = limit or max(abs(low), abs(high)) or 1.0
        return wire.Scale("diverging", -end, end)
    if low < 0 and high <= 0:
        return wire.Scale("linear", -limit or low, 0.0)
    if "probability" in name[1] and high <= 1:
        return wire.Scale("probability", 0.0, limit or 1.0)
    if name[1] == "rank":  # a few tokens are very far down
        return wire.Scale("probability", 0.0, limit or max(high, 1.0))
    return wire.Scale("linear", 0.0, limit or high or 1.0)


def visible(piece: str, longest: int = LONGEST) -> str:
    """A token as running text: one space before it stays, all other white space and what does not print gets a sign.

    A line end is a sign and breaks the line.

    >>> visible(" she"), visible("  x "), visible("a\\n"), visible(""), visible("\\x00")
    (' she', '··x·', 'a↵\\n', '∅', '\\\\x00')
    """
    if not piece:
        return "∅"
    cut = piece[:longest]
    core = cut.strip(" ")
    left = len(cut) - len(cut.lstrip(" "))
    before = " " if left == 1 and core else "·" * left
    after = "·" * (len(cut) - left - len(core))
    middle = "".join(MARKS.get(c) or (c if c in JOINERS else printable(c)) for c in core)
    more = f"… ({len(piece)} characters)" if len(piece) > longest else ""
    return f"{before}{middle}{after}{more}"


def tokens(source: Any, values: Any = None, *, top: Any = None, prompt: Any = None, title: str = "", limit: float = 0.0,
           signed: bool | None = None) -> Strip:
    """Text coloured by a number per token; the number, and what a model expected next, on hover and by keyboard.

    Args:
        source: Tokens (`model.tokens(text)`); a list of strings, or of lists of strings; Scores over pos, with one axis more
            at most; a Run; a model; or what `hooklab.analysis.predictions.predictions` gives.
        values: A number per token: [pos], [batch pos], a list per row, Scores, or a dict of several by name, which are
            chosen above the text. For a model its prompt, coloured by log-probability unless prompt= says otherwise. For a
            Run the name of its scores. None leaves the text plain.
        top: How many of the likeliest next tokens a model shows at each position (10); for other sources the predictions
            themselves, or Scores [pos rank] whose labels are tokens.
        prompt: What a model runs on when `values` are numbers.
        title: What stands above.
        limit: The number at the end of the colours; the largest unless given.
        signed: Put zero in the middle of the colours even where no number is below it; False never does.

    Raises:
        ViewError: there are no tokens, or the numbers do not fit them; the message has both sizes.
        PredictionError: the model predicts no next token.

    Example:
        >>> view = tokens(["The", " cat", " sat"], [0.0, 2.0, -1.0], title="effect")
        >>> view.select(pos=1).selection
        {'pos': 1}
        >>> import hooklab as hl
        >>> view = tokens(hl.load("lab"), "When Mary and John went to the store")
        >>> print(view.select(pos=2).spec)
        prompt "When Mary and John went to the store"
        save L*.resid_post @2
    """
    found = _read(source, values, top, prompt)
    return Strip(found, title=title, limit=limit, signed=signed)


def _read(source: Any, values: Any, top: Any, prompt: Any) -> Coloured:
    if isinstance(source, Model):
        return _of_model(source, values, top, prompt)
    if prompt is not None:
        unopened(source)
        raise ViewError("prompt= belongs to a model: this source has its tokens")
    if isinstance(source, Run):
        if values is not None and not isinstance(values, str):
            raise ViewError('values= of a Run is the name of its scores, such as "patched.prob"; for other numbers give its '
                            "tokens: hl.view.tokens(run.tokens, values)")
        return _with_ahead(of_run(source, values), top)
    if isinstance(source, Scores):
        if values is not None:
            raise ViewError("Scores are the numbers already; on other tokens they are hl.view.tokens(tokens, scores)")
        return _with_ahead(of_scores(source), top)
    if isinstance(source, Predictions):
        return of_predictions(source) if values is None else replace(
            with_numbers(of_tokens(source.tokens), values, source.tokens), ahead=ahead_of(source))
    if isinstance(source, Tokens):
        return _with_ahead(with_numbers(of_tokens(source), values, source), top)
    if isinstance(source, str):
        raise ViewError("this is one string: a model divides it into tokens, as in hl.view.tokens(model, text) or "
                        "hl.view.tokens(model.tokens(text), values)")
    if isinstance(source, Sequence):
        return _with_ahead(with_numbers(of_strings(source), values), top)
    raise ViewError("text is coloured from Tokens, a list of strings, Scores, a Run or a model, not "
                    f"{type(source).__name__}")


def _of_model(model: Model, values: Any, top: Any, prompt: Any) -> Coloured:
    if prompt is None:
        if values is None:
            raise ViewError('which prompt? Write hl.view.tokens(model, "When Mary and John …")')
        return of_predictions(predictions(model, values, 10 if top is None else top))
    if values is None:
        return of_predictions(predictions(model, prompt, 10 if top is None else top))
    given = model.tokens(prompt)
    found = with_numbers(of_tokens(given), values, given)
    return found if top is None else replace(found, ahead=ahead_of(predictions(model, prompt, top)))


def _with_ahead(found: Coloured, top: Any) -> Coloured:
    """Rows with predictions that someone gives. Raises ViewError where they are of other tokens."""
    if top is None or (isinstance(top, int) and found.ahead is not None):
        return found
    if isinstance(top, Predictions):
        ahead: Ahead | None = ahead_of(top)
    elif isinstance(top, Scores) and set(top.axes) == {"pos", "rank"} and top.labels is not None:
        ahead = of_scores(top).ahead
        assert ahead is not None
        came = [piece for row in found.rows for piece in (*row.pieces[1:], None)]
        if len(ahead.ids) == len(came):
            ahead = ranked([[ahead.texts[int(i)] for i in row] for row in ahead.ids], ahead.probs, came)
    else:
        raise ViewError("top= is a number for a model; here it is predictions(model, prompt), or Scores [pos rank] whose "
                        f"labels are tokens, not {type(top).__name__}")
    if ahead is None or len(ahead.ids) != found.total:
        raise ViewError(f"top= has predictions for {0 if ahead is None else len(ahead.ids)} tokens; there are {found.total}")
    return replace(found, ahead=ahead)
