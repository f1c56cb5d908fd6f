"""Writing on: generation with a run's edits in force, and activations of every step stitched to one sequence.

Each cell of a sweep is written by itself, from the same random numbers: what one continuation is does not depend on what
else is in the plan. The first step is the prompt; each later one is a single token, the last of which is never read.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.plan.readings import Keep
from ..compiler.plan.runs import RunPlan, Writing
from ..compiler.plan.spots import Spot
from ..errors import HooklabWarning
from ..records import Text
from .apply import Task
from .drawing import Draws, Sound
from .passes import tasks_of
from .stitch import Sequence, level, select, stitched
from .store import Block, Store
from .trace import run as run_model
from .watching import OnStep, OnText, Watch, continuation, decode, ends

if TYPE_CHECKING:
    from ..model.model import Model

LOGITS = ("logits", None)
DRAWN = ("temperature", "top_k", "top_p")
Steps = dict[tuple[str, int | None], list[Tensor]]


@dataclass
class Written:
    """What a run wrote: continuations, their tokens, and what was kept on the way, cell by cell."""

    texts: tuple[Text, ...] = ()
    tokens: Any = None
    kept: dict[str, tuple[list[Tensor], tuple[str, ...]]] = field(default_factory=dict)


def write(model: Model, store: Store, run: RunPlan, on_text: OnText | None = None,
          on_step: OnStep | None = None, seeds: tuple[int, ...] | None = None) -> Written:
    """Write on from a run's prompt, once for every cell.

    Args:
        model: The model.
        store: What earlier runs left.
        run: A run with `writing`.
        on_text: Called with the run's name and each new piece of the first row's text; under `stream=true` the pieces
            go to standard output unless another place is named here.
        on_step: Called with every `Step` when its tokens have been chosen; ends the generation by giving True.
        seeds: One for each row, which then draws as it would alone from this seed.

    Raises:
        SpecError: an edit that cannot be done.
    """
    assert run.writing is not None
    samples = int(run.writing.option("samples", 1))
    wide = replace(run, samples=run.samples * samples)
    texts: list[Text] = []
    kept: dict[str, list[Tensor]] = defaultdict(list)
    words: dict[str, tuple[str, ...]] = {}
    rows: list[Sequence] = []
    for number, cell in enumerate(run.cells):
        block = Block(wide, number, 0, int(store.plan.prompts[run.prompt].size))
        captured: Steps = defaultdict(list)
        coords = {axis.name: axis.labels[i] for axis, i in zip(run.axes, cell.index, strict=True)}
        watch = Watch(model, store, block, run.writing, coords, on_text, on_step)
        ids = _generate(model, store, block, captured, watch, seeds)
        rows = [_row(store, block, ids, row, watch) for row in block.rows]
        texts += [_text(model, block, sequence, row, coords) for row, sequence in enumerate(rows)]
        for keep in (one.cell(number) for one in run.keeps):
            for name, value, axes in _kept(store, block, keep, captured, rows):
                kept[name].append(value)
                words[name] = axes
    tokens = None if run.axes else _tokens(model, rows)
    return Written(tuple(texts), tokens, {name: (level(values), words[name]) for name, values in kept.items()})


# One generation ----------------------------------------------------------------------------------------------------


def _generate(model: Model, store: Store, block: Block, captured: Steps, watch: Watch,
              seeds: tuple[int, ...] | None = None) -> Tensor:
    """Ids of prompt and continuation, [row pos]."""
    places = tasks_of(store, [block])
    wanted = {(spot.site, spot.layer) for keep in block.run.keeps for spot in keep.spots}
    looked_at = dict.fromkeys((*places, *wanted))
    callbacks = {model.layout.port(*place).location: [_server(place, places.get(place, []), watch.width, captured[place]
                                                              if place in wanted else None)] for place in looked_at}
    if watch.on_step is not None:
        callbacks.setdefault(model.layout.port(*LOGITS).location, []).append(watch.take)
    prompts = [store.plan.prompts[block.run.prompt]] * block.run.samples
    from transformers import GenerationConfig

    given = settings(model, watch.writing, watch.width)
    sound, choice = Sound(), []
    if seeds is not None and given["do_sample"]:
        choice = [Draws(seeds, {name: given.pop(name) for name in DRAWN})]
        given["do_sample"] = False
    config = GenerationConfig(**given)
    # By default the prompt's logits are not computed, except the last.
    all_logits: dict[str, Any] = ({"logits_to_keep": 0} if LOGITS in looked_at
                                  and model.hf._supports_logits_to_keep() else {})
    with seeded(_seed(store, watch.writing)), configured(model, config):
        ids: Tensor = run_model(model, "generate", callbacks, *prompts, generation_config=config, stopping_criteria=[watch],
                                logits_processor=[sound, *choice], **all_logits)
    if sound.wrong is not None and watch.on_step is None:
        warnings.warn(f"run {block.run.name}: from step {sound.wrong} on, what its tokens are chosen from are not numbers "
                      "(NaN): its text means nothing.", HooklabWarning, stacklevel=2)
    return ids


def _server(place: tuple[str, int | None], tasks: list[Task], width: int,
            steps: list[Tensor] | None) -> Callable[[Tensor, int], None]:
    """What happens at a site at every step: edits, then the value is kept."""
    site = place[0]

    def call(value: Tensor, step: int) -> None:
        if site == "rot_k":
            _edit_keys(tasks, value, step, width)
        else:
            offset = width + step - value.shape[-1] if site in ("scores", "pattern") else 0
            for task in tasks:
                task(value, step, offset)
        if steps is not None:
            steps.append((value[:, -1:] if step and site == "rot_k" else value).detach().clone())

    return call


def _edit_keys(tasks: list[Task], value: Tensor, step: int, width: int) -> None:
    """Edit the keys that a step sees: those of all tokens so far, since the cache holds them as they were before edits."""
    if not tasks:
        return
    seen = width + step
    gone = seen - value.shape[1]  # dropped from the cache of a sliding window
    whole = value.new_zeros((value.shape[0], seen, *value.shape[2:]))
    whole[:, gone:] = value
    for task in tasks:
        task(whole[:, :width], 0)
        for n in range(1, step + 1):
            task(whole[:, width + n - 1:width + n], n)
    value.copy_(whole[:, gone:])


def settings(model: Model, writing: Writing, width: int) -> dict[str, Any]:
    """Settings of transformers' `generate`.

    Greedy unless a temperature, `top_k`, `top_p` or several samples ask for draws.
    """
    temperature = writing.option("temperature")
    asked = any(writing.option(name) is not None for name in ("top_k", "top_p")) or int(writing.option("samples", 1)) > 1
    draws = float(temperature) > 0 if temperature is not None else asked
    drawn = {"temperature": float(temperature or 1.0), "top_k": int(writing.option("top_k") or 0),
             "top_p": float(writing.option("top_p") or 1.0)} if draws else {}
    return {"max_length": width + writing.count, "do_sample": draws, "num_beams": 1, "use_cache": True,
            "pad_token_id": model.reader._pad_id(), "eos_token_id": sorted(ends(model)) or None, **drawn}


@contextmanager
def configured(model: Model, config: Any) -> Iterator[None]:
    """A generation's settings in the place of the model's own, with which transformers fills whatever is left open.

    Otherwise a model's file could add a penalty or a length of its own. transformers drops a mask of ones and then warns
    that there is none; the prompts of a plan always have theirs.
    """
    log = logging.getLogger("transformers.modeling_utils")
    with model.interleaver.lock:
        own = model.hf.generation_config
        model.hf.generation_config = config
        log.addFilter(_no_mask)
        try:
            yield
        finally:
            log.removeFilter(_no_mask)
            model.hf.generation_config = own


def _no_mask(record: logging.LogRecord) -> bool:
    return "passing in an `attention_mask`" not in record.getMessage()


def _seed(store: Store, writing: Writing) -> int:
    given = writing.option("seed")
    return store.plan.seed if given is None else int(given)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; the caller's own come back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


# What was written --------------------------------------------------------------------------------------------------


def _row(store: Store, block: Block, ids: Tensor, row: int, watch: Watch) -> Sequence:
    """One row: its prompt, its new tokens up to where it ended, and why it did."""
    tokens = store.plan.prompts[block.run.prompt].tokens
    new = ids[row, tokens.width:].tolist()
    count, stopped = watch.ended[row] or (len(new), "length")
    return Sequence(tuple(tokens.ids[row % block.size]), tuple(new[:count]), int(tokens.width), stopped)


def _text(model: Model, block: Block, sequence: Sequence, row: int, coords: dict[str, Any]) -> Text:
    prompt, new = list(sequence.prompt), list(sequence.new)
    before, after = decode(model, prompt), continuation(model, prompt, new)
    return Text(before + after, before, after, sequence.new, coords, row // block.size, row % block.size, sequence.stopped)


def _tokens(model: Model, rows: list[Sequence]) -> Any:
    from ..tokens import Tokens

    return Tokens.from_ids([[*s.prompt, *s.new] for s in rows], model.tokenizer, n_prompt=[len(s.prompt) for s in rows],
                           padding_side="left", **model.reader.image_roles)


def _kept(store: Store, block: Block, keep: Keep, captured: Steps,
          rows: list[Sequence]) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    """What a `save` line keeps: one entry a place, or all places stacked under one name; samples get an axis."""
    found = []
    for spot in keep.spots:
        whole = stitched(captured[spot.site, spot.layer], spot.site, rows[0].width)
        value, axes = select(store, spot, whole, keep.reach, rows), spot.axes
        if block.run.samples > 1:
            value, axes = value.unflatten(0, (block.run.samples, -1)), ("sample", *axes)
        found.append((spot, value, axes))
    if keep.name is None or len(found) == 1:
        return [(keep.name or str(spot), value, axes) for spot, value, axes in found]
    if len({(value.shape, axes) for _, value, axes in found}) > 1:
        return [(f"{keep.name}.{spot}", value, axes) for spot, value, axes in found]
    layers = {spot.layer for spot, _, _ in found}
    axis = "layer" if len({spot.site for spot, _, _ in found}) == 1 and len(layers) == len(found) else "site"
    return [(keep.name, torch.stack([value for _, value, _ in found]), (axis, *found[0][2]))]


__all__ = ["OnStep", "OnText", "Spot", "Written", "configured", "decode", "seeded", "settings", "write"]
