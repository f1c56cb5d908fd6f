"""Writing on: generation with a run's edits in force, and activations of every step stitched to one sequence.

Each cell of a sweep is written by itself, from the same random numbers: what one continuation is does not depend on what
else is in the plan. The first step is the prompt; each later one is a single token, the last of which is never read.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.plan import Keep, RunPlan, Spot, Writing
from ..records import Text
from .passes import tasks_of
from .store import Block, Store
from .stitch import Sequence, select, stitched
from .trace import run as run_model

if TYPE_CHECKING:
    from ..model.model import Model

OnText = Callable[[str, str], None]


@dataclass
class Written:
    """What a run wrote: continuations, their tokens, and what was kept on the way, cell by cell."""

    texts: tuple[Text, ...] = ()
    tokens: Any = None
    kept: dict[str, tuple[list[Tensor], tuple[str, ...]]] = field(default_factory=dict)


def write(model: Model, store: Store, run: RunPlan, on_text: OnText | None = None) -> Written:
    """Write on from a run's prompt, once for every cell."""
    assert run.writing is not None
    samples = int(run.writing.option("samples", 1))
    wide = replace(run, samples=run.samples * samples)
    texts: list[Text] = []
    kept: dict[str, list[Tensor]] = defaultdict(list)
    words: dict[str, tuple[str, ...]] = {}
    rows: list[Sequence] = []
    for number, cell in enumerate(run.cells):
        block = Block(wide, number, 0, int(store.plan.prompts[run.prompt].size))
        captured: dict[tuple[str, int | None], list[Tensor]] = defaultdict(list)
        ids = _generate(model, store, block, run.writing, captured, on_text)
        rows = [_row(model, store, block, ids, row, run.writing) for row in block.rows]
        coords = {axis.name: axis.labels[i] for axis, i in zip(run.axes, cell.index, strict=True)}
        texts += [_text(model, block, sequence, row, coords) for row, sequence in enumerate(rows)]
        for keep in run.keeps:
            for name, value, axes in _kept(store, keep, captured, rows):
                kept[name].append(value)
                words[name] = axes
    tokens = None if run.axes else _tokens(model, rows)
    return Written(tuple(texts), tokens, {name: (_level(values, words[name]), words[name]) for name, values in kept.items()})


# One generation ----------------------------------------------------------------------------------------------------


def _generate(model: Model, store: Store, block: Block, writing: Writing,
              captured: dict[tuple[str, int | None], list[Tensor]], on_text: OnText | None) -> Tensor:
    """Ids of prompt and continuation, [row pos]."""
    places = tasks_of(store, [block])
    wanted = {(spot.site, spot.layer) for keep in block.run.keeps for spot in keep.spots}
    width = store.plan.prompts[block.run.prompt].tokens.width

    def serve(place: tuple[str, int | None]) -> Callable[[Tensor, int], None]:
        attention = place[0] in ("scores", "pattern")

        def call(value: Tensor, step: int) -> None:
            offset = width + step - value.shape[-1] if attention else 0
            for task in places.get(place, ()):
                task(value, step, offset)
            if place in wanted:
                captured[place].append(value.detach().clone())

        return call

    callbacks = {model.layout.port(*place).location: [serve(place)] for place in dict.fromkeys((*places, *wanted))}
    prompts = [store.plan.prompts[block.run.prompt]] * block.run.samples
    watch = _Watch(model, writing, width, block, on_text)
    with seeded(_seed(store, writing)):
        return run_model(model, "generate", callbacks, *prompts, **settings(model, writing),  # type: ignore[no-any-return]
                         stopping_criteria=[watch])


def settings(model: Model, writing: Writing) -> dict[str, Any]:
    """Arguments of transformers' `generate`; every one that decides a token is said, none is left to a config file.

    Greedy unless a temperature, `top_k`, `top_p` or several samples ask for draws.
    """
    temperature = writing.option("temperature")
    asked = any(writing.option(name) is not None for name in ("top_k", "top_p")) or int(writing.option("samples", 1)) > 1
    draws = temperature > 0 if temperature is not None else asked
    drawn = {"temperature": float(temperature or 1.0), "top_k": int(writing.option("top_k") or 0),
             "top_p": float(writing.option("top_p") or 1.0)} if draws else {}
    return {"max_new_tokens": writing.count, "do_sample": draws, "num_beams": 1, "repetition_penalty": 1.0,
            "use_cache": True, "pad_token_id": model.reader._pad_id(), **drawn}


def _seed(store: Store, writing: Writing) -> int:
    given = writing.option("seed")
    return store.plan.seed if given is None else int(given)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; the caller's own come back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class _Watch:
    """Stops a row at a stop text, and hands on what is written."""

    def __init__(self, model: Model, writing: Writing, width: int, block: Block, on_text: OnText | None) -> None:
        stop = writing.option("stop") or ()
        self.stops = [stop] if isinstance(stop, str) else [str(text) for text in stop]
        self.model, self.width, self.name = model, width, block.run.name
        self.on_text = on_text or (_to_stdout if writing.option("stream") else None)
        self.shown = ""

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if self.stops:
            for row, new in enumerate(ids[:, self.width:].tolist()):
                text = decode(self.model, new)
                done[row] = any(stop in text for stop in self.stops)
        if self.on_text is not None:
            text = decode(self.model, ids[0, self.width:].tolist())
            self.on_text(self.name, text[len(self.shown):])
            self.shown = text
        return done


def _to_stdout(name: str, text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def decode(model: Model, ids: list[int]) -> str:
    """Ids as text, as it follows on a prompt; without a tokenizer their numbers."""
    if model.tokenizer is None:
        return "".join(f" #{i}" for i in ids)
    return str(model.tokenizer.decode(ids, skip_special_tokens=True))


# What was written --------------------------------------------------------------------------------------------------


def _row(model: Model, store: Store, block: Block, ids: Tensor, row: int, writing: Writing) -> Sequence:
    """One row: its prompt, its new tokens up to where it stopped, and why it did."""
    tokens = store.plan.prompts[block.run.prompt].tokens
    example = (row - block.start) % block.size
    new = ids[row - block.start, tokens.width:].tolist()
    ends = _ends(model)
    stopped = "length"
    for count, token in enumerate(new, 1):
        if token in ends:
            new, stopped = new[:count], "eos"
            break
    stop = writing.option("stop") or ()
    stops = [stop] if isinstance(stop, str) else list(stop)
    if stopped == "length" and stops:
        for count in range(1, len(new) + 1):
            if any(s in decode(model, new[:count]) for s in stops):
                new, stopped = new[:count], "stop"
                break
    return Sequence(tuple(tokens.ids[example]), tuple(int(i) for i in new), tokens.width, stopped)


def _ends(model: Model) -> set[int]:
    config = getattr(model.hf, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    found = found if found is not None else model.layout.config.eos_token_id
    return set(found if isinstance(found, list) else [found] if found is not None else [])


def _text(model: Model, block: Block, sequence: Sequence, row: int, coords: dict[str, Any]) -> Text:
    prompt = decode(model, list(sequence.prompt))
    new = decode(model, [*sequence.prompt, *sequence.new])
    new = new[len(prompt):] if new.startswith(prompt) else decode(model, list(sequence.new))
    return Text(prompt + new, prompt, new, sequence.new, coords, row // block.size, row % block.size,
                sequence.stopped)


def _tokens(model: Model, rows: list[Sequence]) -> Any:
    from ..tokens import Tokens

    return Tokens.from_ids([[*s.prompt, *s.new] for s in rows], model.tokenizer, n_prompt=[len(s.prompt) for s in rows],
                           image_token_ids=model.reader.image_ids, padding_side="left")


def _kept(store: Store, keep: Keep, captured: dict[tuple[str, int | None], list[Tensor]],
          rows: list[Sequence]) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    found = []
    for spot in keep.spots:
        whole = stitched(captured[spot.site, spot.layer], attention=spot.site in ("scores", "pattern"), width=rows[0].width)
        found.append((spot, select(store, spot, whole, keep.reach, rows), spot.axes))
    if keep.name is None or len(found) == 1:
        return [(keep.name or str(spot), value, axes) for spot, value, axes in found]
    if len({(value.shape, axes) for _, value, axes in found}) > 1:
        return [(f"{keep.name}.{spot}", value, axes) for spot, value, axes in found]
    layers = {spot.layer for spot, _, _ in found}
    axis = "layer" if len({spot.site for spot, _, _ in found}) == 1 and len(layers) == len(found) else "site"
    return [(keep.name, torch.stack([value for _, value, _ in found]), (axis, *found[0][2]))]


def _level(values: list[Tensor], axes: tuple[str, ...]) -> list[Tensor]:
    """Cells of different lengths brought to one, with NaN before the shorter ones."""
    if len({value.shape for value in values}) <= 1:
        return values
    sizes = [max(value.shape[axis] for value in values) for axis in range(values[0].ndim)]
    out = []
    for value in values:
        wide = torch.full(sizes, float("nan"), dtype=value.dtype, device=value.device)
        wide[tuple(slice(size - n, size) for size, n in zip(sizes, value.shape, strict=True))] = value
        out.append(wide)
    return out


__all__ = ["Spot", "Written", "decode", "seeded", "settings", "write"]
