"""A batch of questions, run in every cell: one spec, one `model.run`, and a reply per question and cell.

    Asked … ──lines of a spec──▶ model.run ──▶ Replied: what was written or chosen, and the activations of the question
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import RecordError
from ...problems import SpecError
from ...spec.printer import quote
from ...tokens import Tokens
from ..inputs.batching import plan
from .choices import chosen, log_probs, measured
from .folder import digest
from .grid import PROMPT, Grid
from .pictures import together
from .prompts import Asked

if TYPE_CHECKING:
    from ...model.model import Model
    from ...records import Run
    from ...runtime.watching import Step

POSITIONS = ("pos", "query_pos", "key_pos")
CAPTURE_AT = ("all", "prompt", "last")
SINGLE = 32
"""Bits of single precision."""


@dataclass(frozen=True)
class Replied:
    """A reply to one question in one cell.

    Attributes:
        text: What was written, or the text of the choice.
        answer: The name of the choice; None where text was written, or no choice is the likeliest.
        stopped: Why it ends.
        log_probs: Of the choices.
        ids: The tokens that were read and whose activations are here.
        values: Site -> value, axes as in the glossary without batch.
        positions: Which tokens they belong to; None for all of them.
    """

    text: str
    answer: str | None = None
    stopped: str = ""
    log_probs: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()
    values: dict[str, Tensor] = field(default_factory=dict)
    positions: list[int] | None = None


@dataclass(frozen=True)
class Runner:
    """How questions are run.

    Attributes:
        model: An opened model.
        grid: The cells.
        how: `"generate"` or `"choices"`.
        count: Most tokens to write.
        temperature: 0 takes the likeliest token.
        among: Among which tokens is drawn: `top_k` and `top_p`.
        seed: Of draws.
        stop: Texts to end at.
        normalise: What log-probabilities are divided by.
        places: Sites to keep.
        at: Which of their positions.
    """

    model: Model
    grid: Grid
    how: str
    count: int
    temperature: float
    among: Mapping[str, float]
    seed: int
    stop: tuple[str, ...]
    normalise: str | None
    places: tuple[str, ...]
    at: str

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, for each question from a seed of its own."""
        return self.how == "generate" and self.temperature > 0

    @property
    def apart(self) -> bool:
        """Whether questions run one by one, so that what comes out of draws and of edits does not depend on the batch.

        Tokens are drawn row by row; but half precision rounds what they are drawn from differently in another batch, and
        one other token makes another text.
        """
        return self.grid.apart or (self.draws and torch.finfo(self.model.dtype).bits < SINGLE)

    def batches(self, some: Sequence[Asked], max_tokens: int, size: int | None) -> list[list[Asked]]:
        """Questions that run together, the same ones whenever they are made of the same questions."""
        groups: dict[Any, list[Asked]] = {}
        for one in sorted(some, key=lambda one: not one.single):  # free answers are single
            groups.setdefault((one.single, one.shape), []).append(one)
        found = []
        for group in groups.values():
            lengths = [self._tokens(one) for one in group]
            found += [[group[i] for i in chosen_] for chosen_ in
                      plan(lengths, max_tokens=max_tokens, size=1 if self.apart else size)]
        return found

    def _tokens(self, one: Asked) -> int:
        if self.how == "generate":
            return len(one.ids) + self.count
        return len(one.ids) if one.single else sum(len(one.ids) + len(choice) - 1 for choice in one.choices)

    def __call__(self, some: Sequence[Asked]) -> list[list[Replied]]:
        """Replies [cell][question]."""
        return self._written(some) if self.how == "generate" else self._compared(some)

    # Writing --------------------------------------------------------------------------------------------------------

    def _written(self, some: Sequence[Asked]) -> list[list[Replied]]:
        stop = f" stop=[{', '.join(map(quote, self.stop))}]" if self.stop else ""
        among = "".join(f" {name}={value!r}" for name, value in self.among.items())
        line = f"generate {self.count} temperature={float(self.temperature)!r}{among}{stop}"
        run = self._run(some, [one.ids for one in some], inside=[*self._saves(), line])
        found = []
        for cell in self.grid.cells:
            name = self.grid.run_of(cell)
            texts = run.texts[name]
            if len(texts) != len(some):
                raise RecordError(f"the edits make {len(texts)} texts of {len(some)} questions: an evaluation takes one "
                                  "reply for each")
            replies = []
            for i, (one, written) in enumerate(zip(some, texts, strict=True)):
                ids = (*one.ids, *written.ids)[:-1]  # the last new token is read by nobody
                replies.append(Replied(written.new, stopped=written.stopped,
                                       **self._kept(run, name, i, ids, len(ids), len(one.ids))))
            found.append(replies)
        return found

    # Comparing ------------------------------------------------------------------------------------------------------

    def _compared(self, some: Sequence[Asked]) -> list[list[Replied]]:
        how = measured(some)
        lines, saves = [f"metric {name} = {{{name}}}" for name in how.metrics], self._saves()
        run = self._run(how.asked, how.rows, how.given, how.metrics, lines, saves)
        found = []
        for cell in self.grid.cells:
            name = self.grid.run_of(cell, lines, saves)
            numbers = run.examples[name]
            if any(one.shape != (len(how.rows),) for one in numbers.values()):
                raise RecordError("the edits run a question several times: an evaluation takes one reply for each")
            replies = []
            for i, (one, logs) in enumerate(zip(some, log_probs(some, numbers, self.normalise), strict=True)):
                best = chosen(logs)
                kept = self._kept(run, name, how.first[i], one.ids, len(how.rows[how.first[i]]), len(one.ids))
                replies.append(Replied("" if best is None else one.written[best], None if best is None else one.names[best],
                                       log_probs=tuple(logs.tolist()), **kept))
            found.append(replies)
        return found

    # Both -----------------------------------------------------------------------------------------------------------

    def _run(self, some: Sequence[Asked], rows: Sequence[Sequence[int]], given: Sequence[int] | None = None,
             metrics: Any = None, lines: Sequence[str] = (), inside: Sequence[str] = ()) -> Run:
        from ...runtime.execute import execute

        prompt: Any
        if some[0].shape:  # a batch has images throughout, or none
            prompt = together(self.model, some, rows, given or list(map(len, rows)))
        else:
            prompt = Tokens.from_ids([list(row) for row in rows], self.model.tokenizer, n_prompt=given,
                                     **self.model.reader.image_roles)
        own = {PROMPT: prompt, **(metrics or {})}
        if taken := sorted(own.keys() & self.grid.values.keys()):
            raise RecordError(f"{{{taken[0]}}} is a name of the evaluation itself: rename yours in the edits")
        text = self.grid.spec(self._seed(some[0]) if self.apart else self.seed, lines, inside)
        try:
            plan = self.model.plan(text, values={**self.grid.values, **own})
            return execute(self.model, plan, seeds=self._seeds(some), on_step=lambda step: self._check(step, some))
        except SpecError as error:  # whose lines are those of the text that was made here
            raise self.grid.placed(error, lines, inside) from error.__cause__

    def _check(self, step: Step, some: Sequence[Asked]) -> None:
        """Raises RecordError where a token was chosen from what are no numbers: its text would say nothing of the model."""
        bad = ~step.logits.max(-1).values.isfinite()  # the largest of several is NaN where one is
        if bad.any():
            one = some[step.rows[int(bad.nonzero()[0])] % len(some)]
            cell = next((cell for cell in self.grid.cells if cell.name == step.run), None)
            labels = ", ".join(f"{name}={label}" for name, label in cell.labels.items()) if cell is not None else ""
            where = f" where {labels}" if labels else " under the edits" if cell is not None and cell.edited else ""
            raise RecordError(f"question {one.question.id!r}{where}: the model's logits are not numbers (NaN or infinite)")

    def _saves(self) -> list[str]:
        return [f"save {', '.join(self.places)}"] if self.places else []

    def _seed(self, one: Asked) -> int:
        """The seed of a question."""
        return int(digest([self.seed, one.question.id]), 16) % (1 << 31)

    def _seeds(self, some: Sequence[Asked]) -> tuple[int, ...] | None:
        """A seed for each row; None where nothing is drawn, or where edits may make several rows of the only question."""
        return tuple(map(self._seed, some)) if self.draws and not self.grid.apart else None

    def _kept(self, run: Run, name: str, row: int, ids: tuple[int, ...], length: int, given: int) -> dict[str, Any]:
        """The activations of a row of `length` tokens, the first of which are `ids`, and of those which were asked for."""
        if not self.places:
            return {}
        positions = {"all": None, "prompt": list(range(given)), "last": [given - 1]}[self.at]
        values = {}
        for place in self.places:
            key = f"{name}.{place}"
            value, words = run.data[key][row], run.axes[key][1:]
            for axis, word in enumerate(words):
                if word in POSITIONS:  # rows of different lengths end together
                    value = value.narrow(axis, value.shape[axis] - length, len(ids))
                if positions is not None and word in POSITIONS[:2]:
                    value = value.index_select(axis, torch.tensor(positions, device=value.device))
            values[place] = value
        return {"ids": ids, "values": values, "positions": positions}


def kept_places(model: Model, capture: str | Sequence[str] | None) -> tuple[str, ...]:
    """The sites that places name on a model, each a whole one.

    Raises:
        RecordError: a place has positions, or is a part of a site.
        SiteError: the model has no such site.
    """
    from ...runtime.trace import places

    texts = [capture] if isinstance(capture, str) else list(capture or ())
    parts = [part.strip() for text in texts for part in re.split(r",(?![^\[]*\])", text)]
    for part in parts:
        if "@" in part:
            raise RecordError(f"{part}: which positions are kept is said by capture_at=: {', '.join(CAPTURE_AT)}")
    found = places(model, parts)
    for place in found:
        if place.heads is not None or place.neurons is not None:
            raise RecordError(f"{place} is a part of a site: capture the whole site, and choose from the store")
    return tuple(str(place) for place in found)
