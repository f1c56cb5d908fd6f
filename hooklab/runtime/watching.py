"""An ear on a generation: when a row is over, its text as it grows, and every step with what its tokens were chosen from.

`Watch` is what transformers asks after each step whether to go on. Logits are taken as they come by, after the run's edits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.plan.runs import Writing
from .store import Block, Store

if TYPE_CHECKING:
    from ..model.model import Model

OnText = Callable[[str, str], None]


@dataclass(frozen=True)
class Step:
    """One step of a generation, told when its tokens have been chosen.

    Attributes:
        run: The run that writes.
        number: Which cell of its sweep.
        cell: The values of the sweep axes there.
        prompts: Ids given to each row: sample after sample, example after example.
        rows: Which rows were still being written.
        ids: The new token of each of them.
        logits: What each was chosen from, before any temperature [row d_vocab].
    """

    run: str
    number: int
    cell: Mapping[str, Any]
    prompts: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]
    ids: tuple[int, ...]
    logits: Tensor


OnStep = Callable[[Step], "bool | None"]
"""Told of every step; True ends the generation."""


def ends(model: Model) -> set[int]:
    """Tokens after which a row is over."""
    found = model.hf.generation_config.eos_token_id
    return {int(i) for i in (found if isinstance(found, list) else [found] if found is not None else [])}


class Watch:
    """Ends a row at its last token or at a stop text, hands on the first row's text as it grows, and tells of steps.

    Attributes:
        ended: For each row how many new tokens it has and why it is over; None while it goes on.
    """

    def __init__(self, model: Model, store: Store, block: Block, writing: Writing, cell: Mapping[str, Any],
                 on_text: OnText | None, on_step: OnStep | None) -> None:
        stop = writing.option("stop", ())
        self.stops = [str(text) for text in (stop if isinstance(stop, list | tuple | set) else [stop]) if str(text)]
        self.model, self.writing, self.name = model, writing, block.run.name
        self.number, self.cell = block.number, cell
        tokens = store.plan.prompts[block.run.prompt].tokens
        self.width = int(tokens.width)
        self.prompts = tuple(tuple(int(i) for i in tokens.ids[row % block.size]) for row in block.rows)
        self.on_text = on_text or (_to_stdout if writing.option("stream") else None)
        self.on_step = on_step
        self.shown = ""
        self.logits: Tensor | None = None
        self.ends = ends(model)
        self.ended: list[tuple[int, str] | None] = [None] * len(block.rows)

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        rows = ids[:, self.width:].tolist()
        before = self.ended[0]
        going = tuple(row for row, ended in enumerate(self.ended) if ended is None)
        self.ended = [ended or self._end(new) for ended, new in zip(self.ended, rows, strict=True)]
        if self.on_text is not None and before is None:
            self._hand_on(self.on_text, rows[0])
        if going and self._told(going, [rows[row][-1] for row in going]):
            self.ended = [ended or (len(new), "stop") for ended, new in zip(self.ended, rows, strict=True)]
        return torch.tensor([ended is not None and ended[1] != "length" for ended in self.ended], device=ids.device)

    def take(self, value: Tensor, step: int) -> None:
        """Take the logits of a step, [row pos d_vocab], as they come by."""
        self.logits = value[:, -1].detach().clone()

    def _told(self, rows: tuple[int, ...], ids: list[int]) -> bool:
        """Tell of a step; whether it is to be the last."""
        if self.on_step is None:
            return False
        assert self.logits is not None  # taken in the pass that chose these tokens
        logits = self.logits[list(rows)]
        return bool(self.on_step(Step(self.name, self.number, self.cell, self.prompts, rows, tuple(ids), logits)))

    def _end(self, new: list[int]) -> tuple[int, str] | None:
        """How many tokens a row has and why it is over; None while it goes on."""
        if new[-1] in self.ends:
            return len(new), "eos"
        if self.stops:
            text = decode(self.model, new, special=True)
            if any(stop in text for stop in self.stops):
                return len(new), "stop"
        return (len(new), "length") if len(new) == self.writing.count else None

    def _hand_on(self, on_text: OnText, new: list[int]) -> None:
        text = continuation(self.model, list(self.prompts[0]), new)
        if self.ended[0] is None:
            text = text.rstrip("\ufffd")  # half a character: wait for its other half
        if len(text) > len(self.shown):
            on_text(self.name, text[len(self.shown):])
            self.shown = text
        if self.ended[0] is not None and on_text is _to_stdout:
            on_text(self.name, "\n")


def _to_stdout(name: str, text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def decode(model: Model, ids: list[int], *, special: bool = False) -> str:
    """Ids as text, without special tokens unless asked for; without a tokenizer their numbers."""
    if model.tokenizer is None:
        return "".join(f" #{i}" for i in ids)
    return str(model.tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def continuation(model: Model, prompt: list[int], new: list[int]) -> str:
    """The text of new tokens as it follows on a prompt: with the space that some tokenizers drop at a beginning."""
    before, whole = decode(model, prompt), decode(model, [*prompt, *new])
    return whole[len(before):] if whole.startswith(before) else decode(model, new)
