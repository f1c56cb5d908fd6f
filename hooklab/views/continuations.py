"""Generation: text as it is written, with what each token was chosen among and the steps at which edits acted.

    Model + prompt + edits ──plan──▶ step by step (analysis.continuing) ──▶ columns, drawn as they grow
    Run(s) with texts ──▶ columns; what they chose among from saved logits, or by writing again
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..errors import HooklabError, Stopped, ViewError
from ..records import Run
from . import colours, registry, wire
from .axes import Axis
from .base import Answer, View
from .makers import Maker, again, named, specified
from .text import shown
from .written import Column, finish, first_difference, grow, of_plan, of_run, running

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAUSE = 0.12
"""Seconds between two drawings of a text that grows, at least."""
MOST_STATIC = 400
"""Tokens that the form without script shows, over all columns."""
CHANCE = wire.Scale("probability", 0.0, 1.0)
WITHOUT = "This run kept no logits, so what each token was chosen among is not known"


class Generation(View):
    """Continuations side by side; `selection` has a `sample` (which of them) and a `step`.

    Attributes:
        run: The finished Run; None while nothing was written.
    """

    KIND = "generation"
    OPTIONS = {"colour": ("probability", "entropy", "none")}
    SHARED = ("sample", "step")

    def __init__(self, columns: Sequence[Column], *, run: Run | None = None, maker: Maker | None = None, title: str = "",
                 top: int = 5, **options: Any) -> None:
        if not columns:
            raise ViewError("this run wrote nothing: add a line such as `generate 20` to its spec")
        self._columns, self.run, self._maker, self._top = list(columns), run, maker, top
        self._halt, self._writing, self._note = threading.Event(), threading.Lock(), ""
        self._last = 0.0
        super().__init__(self._counted(), title=title, source=run, **options)
        self.draw()

    # Writing -----------------------------------------------------------------------------------------------------------

    def play(self) -> Generation:
        """Write on from the prompt, here and now; the view shows every token as it comes. Returns the view.

        Interrupting the kernel, `stop()` from another thread, or the view's own button ends it; what is there stays.

        Raises:
            ViewError: there is no model to write with, or it is writing already.
            SpecError: what goes wrong while it runs.
        """
        from ..analysis.continuing import written

        self._check_open()
        if self._maker is None:
            raise ViewError("this view has no model to write with: hl.view.generation(run, model=model)")
        if not self._writing.acquire(blocking=False):
            raise ViewError("this view is writing already; view.stop() ends it")
        self._halt.clear()
        self._note = ""
        try:
            maker = self._maker
            self._columns = of_plan(maker.plan, maker.spec, maker.decode)
            self.draw()
            run, _ = written(maker.model, maker.plan, top=self._top, heard=self._step)
            if not self._closed:
                self._columns = finish(self._columns, run)
                self._keep(run)
        except Stopped:
            self._note = "Interrupted."
            raise
        finally:
            self._writing.release()
            if not self._closed:
                self.draw()
        return self

    def stop(self) -> None:
        """End a generation after the step that it is at."""
        self._halt.set()

    def draw(self) -> None:
        """Send the columns as they are."""
        self._axes = {axis.name: axis for axis in self._counted()}
        super().draw()
        self._last = time.monotonic()

    def _step(self, rows: Any) -> bool:
        assert self._maker is not None
        if self._closed:
            return True
        grow(self._columns, rows, self._maker.pieces)
        if time.monotonic() - self._last > PAUSE:
            self.draw()
        return self._halt.is_set()

    def _keep(self, run: Run) -> None:
        before, self.run = self.run, run
        if before is not None and before.texts != run.texts and not self._halt.is_set():
            self._note = "Written again, the text came out differently: other weights, versions or device."
        if self._halt.is_set():
            self._note = "Stopped before its end."
        registry.join([self], run)

    def _play_apart(self) -> None:
        try:
            self.play()
        except Exception as error:  # nobody else is listening: the view says it
            said = str(error) if isinstance(error, HooklabError) else f"{type(error).__name__}: {error}"
            self._note = html.printable(said)
            if not self._closed:
                self.draw()

    # What is drawn -----------------------------------------------------------------------------------------------------

    def _counted(self) -> list[Axis]:
        labels = [shown(column.label) for column in self._columns]
        keys = [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]
        longest = max((len(column.ids) for column in self._columns), default=0)
        return [Axis("sample", tuple(keys), tuple(labels)),
                Axis("step", tuple(range(longest)), tuple(map(str, range(longest))))]

    def describe(self) -> dict[str, Any]:
        return {"columns": [self._described(column) for column in self._columns], "tokens": self._tokens(),
                "scales": {"probability": CHANCE.facts, "entropy": self._entropies.facts},
                "writing": self._writing.locked(), "playable": self._maker is not None,
                "note": self._note or ("" if self._known or self._writing.locked() else self._why())}

    def _described(self, column: Column) -> dict[str, Any]:
        return {"prompt": shown(column.prompt, 2000), "pieces": [running(piece) for piece in column.pieces],
                "known": bool(column.choices), "stopped": column.stopped, "most": column.steps,
                "apart": first_difference(column, self._columns),
                "edits": [{"line": shown(edit.line), "steps": sorted(edit.steps)} for edit in column.edits]}

    @property
    def _known(self) -> bool:
        return any(column.choices for column in self._columns)

    def _why(self) -> str:
        if not any(column.ids for column in self._columns):
            return "Nothing is written yet." if self._maker else ""
        more = "write it again to see" if self._maker else "add `save logits` to its spec, or give model=…"
        return f"{WITHOUT}: {more}."

    def _tokens(self) -> dict[str, str]:
        """The texts of all tokens that could have been taken, by id."""
        ids = {i for column in self._columns for choice in column.choices for i in (choice.id, *(j for j, _ in
                                                                                                 choice.likeliest[:self._top]))}
        if self._maker is not None:
            return {str(i): shown(self._maker.piece(i)) for i in ids}
        known = {i: piece for column in self._columns for i, piece in zip(column.ids, column.pieces, strict=False)}
        return {str(i): shown(known.get(i, f"#{i}")) for i in ids}

    @property
    def _entropies(self) -> wire.Scale:
        return wire.Scale("linear", 0.0, max([1.0, *(choice.entropy for column in self._columns for choice in column.choices
                                                    if np.isfinite(choice.entropy))]))

    def arrays(self) -> dict[str, np.ndarray]:
        """Per step, column after column: `chance`, `entropy`, `rank`, `id`; and `ids`, `chances` [step rank]."""
        steps = [choice for column in self._columns
                 for choice in [*column.choices, *[None] * (len(column.ids) - len(column.choices))]]
        nan, top = float("nan"), self._top
        ids = np.full((len(steps), top), -1, np.int32)
        chances = np.full((len(steps), top), nan, np.float32)
        for i, one in enumerate(steps):
            for rank, (token, chance) in enumerate(one.likeliest[:top] if one else ()):
                ids[i, rank], chances[i, rank] = token, chance
        return {"chance": np.array([one.chance if one else nan for one in steps], np.float32),
                "entropy": np.array([one.entropy if one else nan for one in steps], np.float32),
                "rank": np.array([one.rank if one else -1 for one in steps], np.int32),
                "id": np.array([i for column in self._columns for i in column.ids], np.int32),
                "ids": ids, "chances": chances, "colours": colours.for_codes("probability")}

    def asks(self) -> Mapping[str, Any]:
        return {"play": self._asked_to_play, "stop": self._asked_to_stop}

    def _asked_to_play(self) -> Answer:
        """The page asked: a thread of its own writes, so that the page can also ask to stop."""
        if self._maker is None:
            raise ViewError("there is no model to write with any more")
        threading.Thread(target=self._play_apart, daemon=True).start()
        return {"writing": True}, []

    def _asked_to_stop(self) -> Answer:
        self.stop()
        return {"writing": False}, []

    def spell(self, selection: Mapping[str, Any]) -> str:
        if "sample" not in selection:
            return ""
        column = self._columns[self._axes["sample"].index(selection["sample"])]
        return column.spell(selection.get("step"))

    # Without a front end -----------------------------------------------------------------------------------------------

    def static(self) -> str:
        parts, left = [], MOST_STATIC
        for label, column in zip(self._axes["sample"].labels, self._columns, strict=True):
            pieces = [shown(piece) for piece in column.pieces][:max(0, left)]
            chances = [choice.chance for choice in column.choices][:len(pieces)]
            parts += [html.heading(label), html.note(f"prompt: {shown(column.prompt, 600)}"),
                      html.strip(pieces, chances or None, unit="probability", limit=1.0)]
            lines = [f"{shown(edit.line)}: acts at steps {stretches(sorted(edit.steps))}" for edit in column.edits]
            apart, more = first_difference(column, self._columns), len(column.pieces) - len(pieces)
            lines += [f"differs from step {apart} on"] if apart is not None else []
            parts += map(html.note, [*lines, *([f"{more} more tokens"] if more else [])])
            left -= len(pieces)
        return "".join(parts) + (html.note(self._note) if self._note else "")

    def plot(self, ax: Any = None) -> Figure:
        """Probability of the token taken, step by step, one line for each continuation."""
        from ..records.plot import Picture, _literal

        if not self._known:
            raise ViewError(f"{self._why()[:-1] or 'nothing is written yet'}: there is nothing to plot")
        place = ax if ax is not None else Picture(figsize=(7.2, 3.2), layout="constrained").subplots()
        count = max(len(column.choices) for column in self._columns)
        for label, column in zip(self._axes["sample"].labels, self._columns, strict=True):
            if column.choices:
                place.plot([choice.chance for choice in column.choices], marker="o", markersize=3, label=_literal(label))
        place.set(xlabel="step", ylabel="probability of the token taken", ylim=(-0.04, 1.04),
                  xlim=(-0.5, count - 0.5), xticks=range(0, count, -(-count // 12)))
        place.legend(frameon=False, fontsize=8)
        return place.figure  # type: ignore[return-value]

    def release(self) -> None:
        self._halt.set()
        self._columns, self._maker, self.run = [], None, None


def stretches(steps: Sequence[int]) -> str:
    """Numbers in few characters.

    >>> stretches([0, 1, 2, 5]), stretches([])
    ('0–2, 5', 'none')
    """
    found: list[list[int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return ", ".join(f"{a}–{b}" if b > a else str(a) for a, b in found) or "none"


def generation(source: Any, prompt: Any = None, edits: str | Sequence[str] = "", *, model: Any = None,
               max_new_tokens: int = 20, temperature: float | None = None, top_k: int | None = None,
               top_p: float | None = None, samples: int | None = None, stop: Any = None, seed: int | None = None,
               top: int = 5, compare: bool = True, play: bool = True, values: Mapping[str, Any] | None = None,
               title: str = "", **names: Any) -> Generation:
    """Generated text: every new token with its probability, its rank and what else was likely; edits are marked.

    With a model and a prompt it writes here, step by step. In a view that stands on the page already (`play=False`, then
    `view.play()` in the same or a later cell) tokens show as they come. What a token was chosen among is taken from the
    generation itself, not from a pass over the finished text: edits that act at some steps only, noise and edits of cached
    keys give other numbers there. Probabilities are the model's own, before temperature, `top_k` and `top_p`.

    Args:
        source: A model; or a Run with texts, several Runs, or a dict of them by name.
        prompt: What to write on from: text, texts or ids; or a whole `Spec` with its own `generate` lines.
        edits: Lines of the hook language, such as `"steer L2.resid @new by 4 * {v}"`.
        model: For a Run that saved no logits: writes it again to see what each token was chosen among.
        max_new_tokens: How many tokens at most.
        temperature: 0 takes the likeliest token, above 0 draws; greedy unless this or one of the next three asks for draws.
        top_k: Draw among the likeliest k.
        top_p: Draw among the likeliest p.
        samples: How many continuations of each prompt.
        stop: Text, or texts, to stop at.
        seed: Seed of the draws.
        top: How many of the likeliest tokens to show for each step.
        compare: Also write without the edits, to see where the texts part.
        play: Write at once.
        values: What the braces of the edits stand for, by their source.
        title: A heading.
        names: The same as `values`, for braces that hold a plain name.

    Raises:
        ViewError: the run wrote nothing, or the arguments do not go together.
        SpecError: the edits cannot be read or run.

    Example:
        >>> import hooklab as hl
        >>> view = hl.view.generation(hl.load("lab"), "Mary went to the store because", "zero L2.mlp @new", max_new_tokens=4)
        >>> [len(texts) for texts in view.run.texts.values()]
        [1, 1]
    """
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 50:
        raise ViewError(f"top is how many likely tokens each step shows, from 1 to 50, not {top!r}")
    options = {"count": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "samples": samples,
               "stop": stop, "seed": seed}
    if hasattr(source, "interleaver"):
        spec, known = specified(prompt, edits, options, compare)
        maker = Maker(source, spec, {**known, **names, **(values or {})})
        view = Generation(of_plan(maker.plan, maker.spec, maker.decode), maker=maker, title=title, top=top)
        return view.play() if play else view
    if prompt is not None or edits or values or names:
        raise ViewError("a Run is shown as it was written: a prompt, edits and values go with a model, as in "
                        "hl.view.generation(model, prompt, edits)")
    if isinstance(source, Run):
        view = Generation(of_run(source), run=source, maker=again(source, model), title=title, top=top)
        return view.play() if model is not None and play and not view._known else view
    return Generation([column for name, run in named(source) for column in of_run(run, name)], title=title, top=top)
