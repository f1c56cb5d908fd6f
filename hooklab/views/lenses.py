"""Lens: what every layer would predict next, as a table of tokens over layers and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..errors import ViewError
from ..model.model import Model
from ..model.opened import unopened
from ..records import Run, Scores
from . import lens_data, tints, wire
from .base import Answer, View
from .lens_data import MODES, Held, Live, Source, rank_scale
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.lens_table import LensTable

ACROSS = 32
"""Columns that are drawn, and read, at once."""
CHANCE = wire.Scale("probability", 0.0, 1.0)
MOST_FOLLOWED = 3
"""Ranks of the last layer whose tokens can be followed on a page without a kernel."""
MOST_STATIC = (24, 24)
"""Layers and positions of the form without script, at most."""


class LensView(View):
    """A logit lens; `selection` has a layer and a pos. `options["token"]` is the pinned token, -1 for the target."""

    KIND = "lens"
    OPTIONS = {"mode": MODES, "every": (), "token": ()}
    SHARED = ("layer", "pos")

    def __init__(self, found: Source, *, mode: str = "probability", title: str = "", first: int = 0) -> None:
        if mode in MODES and mode not in found.modes:
            raise ViewError(f"mode {mode!r} needs the model, which is not open; there is {', '.join(found.modes)}")
        self._found = found
        self._first = first // ACROSS * ACROSS
        self._here = found.table(*self._span(self._first))
        self._tracks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        super().__init__(list(found.axes), title=title or "logit lens", source=found.source, mode=mode, token=-1)
        self.draw()

    # What is drawn -----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        found = self._found
        return {"across": ACROSS, "first": self._first, "k": found.k, "modes": list(found.modes), "lazy": found.lazy,
                "tokens": _texts(self._here), "target": shown(found.target), "scales": self._scales()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The first columns: `ids`, `probs` [layer pos rank]; `entropy`, `prob`, `rank` [layer pos]; `target` [pos]."""
        return _columns(self._here) | {f"tint.{name}": tints.table(name) for name in ("up", "fall")}

    def _scales(self) -> dict[str, Any]:
        size = max(2, self._found.vocabulary)
        return {"probability": CHANCE.facts, "rank": rank_scale(size).facts,
                "entropy": wire.Scale("linear", 0.0, float(np.log(size))).facts}

    def _span(self, first: int) -> tuple[int, int]:
        size = len(self._found.axes[1])
        if isinstance(first, bool) or not isinstance(first, int) or first % ACROSS or not 0 <= first < size:
            raise ViewError(f"columns come {ACROSS} at a time, from a multiple of {ACROSS} below {size}, not from {first!r}")
        return first, min(first + ACROSS, size)

    # Answering ---------------------------------------------------------------------------------------------------------

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"columns": self._columns, "token": self._token, "track": self._track, "more": self._more}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What a page holds: the numbers that are there. A page does not run a model over a long prompt."""
        size = len(self._found.axes[1])
        starts = range(0, size, ACROSS) if isinstance(self._found, Held) else range(0, min(size, 4 * ACROSS), ACROSS)
        yield from (("columns", {"first": first}) for first in starts if first != self._first)
        if self._found.lazy:
            yield from (("more", {"first": first}) for first in starts[:1])
        if "entropy" in self._found.modes:
            yield from self._followed()

    def _followed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The tokens most likely to be followed on a page: the first ones of the last layer, at each position."""
        start, stop = self._span(self._first)
        keys = self._found.axes[1].keys
        for ids in self._here.ids[-1, :, :MOST_FOLLOWED].T:
            prob, rank = self._found.tokens(ids, start, stop)
            self._tracks.update({(int(one), start + i): (prob[:, i], rank[:, i]) for i, one in enumerate(ids)})
            yield from (("track", {"token": int(one), "pos": keys[start + i]}) for i, one in enumerate(ids))
        self._tracks = {}

    def _columns(self, first: int) -> Answer:
        """Some columns: the arrays of `arrays` as one block."""
        table = self._found.table(*self._span(first))
        block = wire.pack(_columns(table))
        return {"first": first, "arrays": block.table, "tokens": _texts(table)}, [block.data]

    def _more(self, first: int) -> Answer:
        """Entropy, and how the target does, where that takes another pass."""
        entropy, prob, rank = self._found.more(*self._span(first))
        block = wire.pack({"entropy": entropy.astype(np.float32), "prob": prob.astype(np.float32), "rank": rank})
        return {"first": first, "arrays": block.table}, [block.data]

    def _token(self, token: int, first: int) -> Answer:
        """Probability and rank of a token in some columns."""
        prob, rank = self._found.token(token, *self._span(first))
        block = wire.pack({"prob": prob.astype(np.float32), "rank": rank.astype(np.int32)})
        texts = {str(token): shown(self._found.text(token))}
        return {"first": first, "token": token, "arrays": block.table, "tokens": texts}, [block.data]

    def _track(self, token: int, pos: Any) -> Answer:
        """Probability and rank of a token at one position, layer by layer."""
        at = self._found.axes[1].index(pos)
        if (token, at) in self._tracks:
            prob, rank = self._tracks[token, at]
        else:
            prob, rank = (one[:, 0] for one in self._found.token(token, at, at + 1))
        return {"token": token, "pos": pos, "text": shown(self._found.text(token)), "prob": prob.tolist(),
                "rank": rank.tolist()}, []

    def spell(self, selection: Mapping[str, Any]) -> str:
        if "layer" not in selection or "pos" not in selection:
            return ""
        return self._found.spell(selection["layer"], selection["pos"])

    def pin(self, token: int | str | None) -> LensView:
        """Follow a token, given by text or id, in place of the target; None follows the target again. Returns the view.

        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> lens(model, "When Mary and John went").pin(" store").options["token"] >= 0
        True

        Raises:
            ViewError: this view knows no such token.
            PredictionError: the text is not one token.
        """
        self._check_open()
        self.options = {"token": -1 if token is None else self._found.find(token)}
        return self

    # Without a browser -------------------------------------------------------------------------------------------------

    def static(self) -> str:
        table, (layers, columns) = self._here, self._found.axes
        down, across = html.shorten(len(layers), MOST_STATIC[0]), min(MOST_STATIC[1], table.ids.shape[1])
        rows = [i for i in reversed(down) if i is not None]
        texts = [[shown(table.pieces[int(one)], 24) for one in table.ids[i, :across, 0]] for i in rows]
        cut = [f"{len(rows)} of {len(layers)} layers"] if len(rows) < len(layers) else []
        cut += [f"positions {columns.keys[self._first]} to {columns.keys[self._first + across - 1]} of {len(columns)}"
                ] if across < len(columns) else []
        names = [f"{key} {text}" for key, text in zip(columns.keys, columns.labels, strict=True)]
        return html.heat(table.probs[rows, :across, 0].tolist(), [layers.labels[i] for i in rows],
                         names[self._first:self._first + across], caption=self._title, unit="probability",
                         axes=("layer", "pos"), labels=texts, limit=1.0) + (html.note("; ".join(cut)) if cut else "")

    def plot(self, ax: Any = None) -> Figure:
        """The table as a heat map with the text of the likeliest token in each cell, in the mode that is shown."""
        from .lens_plot import figure

        self._check_open()
        mode = str(self.options["mode"])
        table = self._here
        if self._found.lazy and mode != "probability":
            entropy, _, rank = self._found.more(*self._span(self._first))
        else:
            entropy, rank = table.entropy, table.target_rank
        values = {"probability": table.probs[..., 0], "entropy": entropy, "rank": rank}[mode]
        layers, columns = self._found.axes
        span = slice(*self._span(self._first))
        rest = f" · positions {columns.keys[span][0]} to {columns.keys[span][-1]} of {len(columns)}" if (
            len(columns) > ACROSS) else ""
        return figure(values, [[shown(table.pieces[int(one)], 24) for one in row] for row in table.ids[..., 0]], mode,
                      wire.Scale(**self._scales()[mode]), layers=layers.labels, columns=columns.labels[span],
                      keys=columns.keys[span], title=self._title + rest, target=shown(self._found.target), ax=ax)

    def release(self) -> None:
        self._found.release()
        del self._here


def _columns(table: LensTable) -> dict[str, np.ndarray]:
    return {"ids": table.ids.astype(np.int32), "probs": table.probs.astype(np.float32),
            "entropy": table.entropy.astype(np.float32), "target": table.target.astype(np.int32),
            "prob": table.target_prob.astype(np.float32), "rank": table.target_rank.astype(np.int32)}


def _texts(table: LensTable) -> dict[str, str]:
    return {str(one): shown(text) for one, text in table.pieces.items()}


def lens(source: Any, prompt: Any = None, *, k: int = 5, target: int | str | None = None, mode: str = "probability",
         first: int = 0, score: str | None = None, title: str = "") -> LensView:
    """What each layer would predict next at each position: a table of tokens, likeliest first, shaded.

    Choose a cell to see its likeliest tokens; choose one of those to follow it through the layers at that position.

    Args:
        source: A model; a Run with a line such as `lens L*.resid_post @each top=5`; or Scores over layer and pos, with a
            rank axis or without, whose labels are tokens.
        prompt: What a model runs on: one text, or the ids of one.
        k: How many of the likeliest tokens of a model to keep.
        target: A token to compare every position with, as text (or id, for a model). Unless given, the token that comes
            next; for a Run with an `answer` line, the answer.
        mode: What shades the cells: `"probability"` of the likeliest token, `"rank"` of the target or of the pinned token,
            `"entropy"`.
        first: The column to begin with, where a prompt is longer than fits.
        score: Which lens of a Run, or the name of its run.
        title: What stands above.

    Raises:
        ViewError: there is no lens, or no model to read one with.
        PredictionError: the model predicts no next token, or there are several prompts.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> view = lens(model, "When Mary and John went to the store", k=3)
        >>> print(view.select(layer=4, pos=2).spec)
        prompt "When Mary and John went to the store"
        lens L4.resid_post @2 top=3
    """
    return LensView(_read(source, prompt, k, target, score), mode=mode, title=title, first=first)


def _read(source: Any, prompt: Any, k: int, target: Any, score: str | None) -> Source:
    if isinstance(source, Model):
        if prompt is None:
            raise ViewError('which prompt? Write hl.view.lens(model, "When Mary and John …")')
        return Live(source, prompt, k=k, target=target)
    if prompt is not None:
        unopened(source)
        raise ViewError("a prompt belongs to a model: this source has its own")
    if target is not None and not isinstance(target, str):
        raise ViewError(f"the target is the text of a token here, such as ' Mary', not {target!r}")
    if isinstance(source, Run):
        return lens_data.of_run(source, score, target)
    if isinstance(source, Scores):
        return Held(source, target=target)
    raise ViewError(f"a lens is read from a model and a prompt, a Run or Scores, not {type(source).__name__}")
