"""What the passes gave, put together as one `Run`."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.cells import named_apart
from ..compiler.plan.plan import Plan
from ..compiler.plan.readings import Keep, Reading
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..problems import Problem, SpecError
from ..records import Expectation, Run, Scores, ViewRequest
from ..spec.verbs import CLAIM_FUNCTIONS
from ..statistics import interval, p_value
from .evaluate import columns, part
from .measure import COMPARE, claimed, measure, references, warn_of_nan
from .passes import last_logits
from .provenance import provenance
from .readings import Found
from .store import Block, SomeLogits, Store

if TYPE_CHECKING:
    from ..model.model import Model

TOP = 10


class Gathered:
    """Results by run, filled cell by cell."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.plan: Plan = store.plan
        self.figures: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        self.kept: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self.words: dict[tuple[str, str], tuple[str, ...]] = {}
        self.tops: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.found: dict[tuple[str, int], list[Found]] = defaultdict(list)
        self.texts: dict[str, tuple[Any, ...]] = {}
        self.step_tokens: dict[str, Any] = {}
        self.partial = False
        self.needed = {need for run in self.plan.runs for need in run.needs}

    def so_far(self, model: Model) -> tuple[str, Run | None]:
        """What an interrupted run has: in words, and as a `Run` whose missing cells are not a number."""
        runs = {run.name: run for run in self.plan.runs}
        done = {name: len(found) for (name, _), found in self.figures.items() if runs[name].axes}
        for (name, _), found in self.figures.items():
            if found:
                found += [np.full_like(found[0], np.nan)] * (len(runs[name].cells) - len(found))
        for key in [key for key, found in self.kept.items() if len(found) < len(runs[key[0]].cells)]:
            del self.kept[key]
        for place in [place for place, found in self.found.items() if not found or runs[place[0]].axes]:
            del self.found[place]
        self.partial = True
        said = [f"{count} of {len(runs[name].cells)} cells of {name}" for name, count in done.items()]
        if not self.figures and not self.kept:
            return "nothing was done yet", None
        return f"done were {', '.join(said) or 'some of the runs'}", gather(model, self)

    # Filling

    def blocks(self, blocks: Sequence[Block]) -> None:
        """Take what the user asked of the cells of a packed pass: their metrics, all at once."""
        run, store = blocks[0].run, self.store
        if not run.metrics:
            return
        compared = [store.plan.run(name) for plan in run.metrics for name in references(plan.value)]
        if any(len(other.cells) > 1 or other.samples > 1 for other in compared):
            for block in blocks:  # each cell is compared with one of its own
                self.block(block)
            return
        held = [store.logits[block.key] for block in blocks]
        first = held[0]
        together: Tensor | SomeLogits = (
            SomeLogits(torch.cat([h.values for h in held if isinstance(h, SomeLogits)]), first.ids)
            if isinstance(first, SomeLogits) else torch.cat([h for h in held if isinstance(h, Tensor)]))
        for plan in run.metrics:
            values = measure(store, blocks[0], plan, together).detach().double().cpu().numpy()
            self.figures[run.name, plan.name] += list(values.reshape(len(blocks), run.samples, blocks[0].size))

    def block(self, block: Block) -> None:
        """Take from the store what the user asked of a cell."""
        run = block.run
        for plan in run.metrics:
            values = measure(self.store, block, plan).detach().double().cpu().numpy()
            self.figures[run.name, plan.name].append(values.reshape(run.samples, block.size))
        if not run.writing:
            for keep in run.keeps:
                self._keep(block, keep.cell(block.number))
        if block.key in self.store.logits and not run.axes and not run.hidden:
            self._top(block)

    def _keep(self, block: Block, keep: Keep) -> None:
        tokens = self.plan.prompts[block.run.prompt].tokens
        values = {spot: self.store.acts[block.key][spot.site, spot.layer] for spot in keep.spots}
        for name, value, words in named(self.store, block.run, keep, values, tokens):
            self.kept[block.run.name, name].append(value)
            self.words[block.run.name, name] = words

    def _top(self, block: Block) -> None:
        probs = last_logits(self.store, block).float().softmax(-1)
        probs = probs.unflatten(0, (block.run.samples, block.size)).mean(0)
        values, ids = probs.topk(min(TOP, probs.shape[-1]), dim=-1)
        pieces = [[self.plan.about.piece(int(i)) for i in row] for row in ids.tolist()]
        self.tops[block.run.name] = values.double().cpu().numpy(), np.array(pieces, dtype=object)

    def reading(self, block: Block, reading: Reading, found: list[Found]) -> None:
        """Take what a reading found in a cell."""
        number = block.run.readings.index(reading)
        self.found[block.run.name, number].extend(found)

    def written(self, run: RunPlan, result: Any) -> None:
        """Take what a run wrote on, and what was kept on the way."""
        self.texts[run.name] = result.texts
        self.step_tokens[run.name] = result.tokens
        for name, (values, words) in result.kept.items():
            self.kept[run.name, name] = values
            self.words[run.name, name] = words

    def release(self, blocks: Iterable[Block]) -> None:
        """Let go of what no later run and no reading will ask for."""
        for block in blocks:
            if block.run.name not in self.needed and not block.run.readings:
                self.store.acts.pop(block.key, None)
                self.store.logits.pop(block.key, None)


def named(store: Store, run: RunPlan, keep: Keep, values: dict[Spot, Tensor],
          tokens: Any) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    """What a `save` line keeps: one entry a place, or all places stacked under one name."""
    cut = [(spot, *_cut(store, run, spot, keep.reach.at, value, tokens)) for spot, value in values.items()]
    if keep.name is None:
        return [(str(spot), value, words) for spot, value, words in cut]
    if len(cut) == 1:
        return [(keep.name, cut[0][1], cut[0][2])]
    shapes = {(value.shape, words) for _, value, words in cut}
    if len(shapes) > 1:
        return [(f"{keep.name}.{spot}", value, words) for spot, value, words in cut]
    axis = "layer" if len({spot.site for spot, _, _ in cut}) == 1 and len({spot.layer for spot, _, _ in cut}) == len(
        cut) else "site"
    return [(keep.name, torch.stack([value for _, value, _ in cut]), (axis, *cut[0][2]))]


def _cut(store: Store, run: RunPlan, spot: Spot, at: Any, whole: Tensor, tokens: Any) -> tuple[Tensor, tuple[str, ...]]:
    """A site narrowed to positions and heads, with the words for its axes; samples get an axis of their own."""
    words = spot.axes
    attention = spot.site in ("scores", "pattern")
    value = whole
    if at is not None:
        found = [columns(tokens, at, row % len(tokens)) for row in range(len(whole))]
        turned = whole.transpose(1, 2) if attention else whole
        if len({len(row) for row in found}) == 1:
            value = turned[torch.arange(len(whole))[:, None], torch.tensor(found)]
        else:
            pairs = torch.tensor([(row, column) for row, cols in enumerate(found) for column in cols])
            value = turned[pairs[:, 0], pairs[:, 1]][None]
            words = ("batch", *words[1:])
        value = part(spot, value, store)
        value = value.transpose(1, 2) if attention else value
    elif attention:
        value = value if spot.heads is None else value[:, list(spot.heads)]
    else:
        value = part(spot, value, store)
    if run.samples > 1 and value.shape[0] % run.samples == 0:
        return value.unflatten(0, (run.samples, -1)), ("sample", *words)
    return value, words


# Putting together ----------------------------------------------------------------------------------------------------


def gather(model: Model, gathered: Gathered) -> Run:
    """Everything as a `Run`; claims are checked last.

    Raises:
        SpecError: a claim does not hold; the error has the results as `run`.
    """
    plan = gathered.plan
    metrics, examples, scores, figures = _figures(gathered)
    scores.update(_readings(gathered))
    for name, (values, pieces) in gathered.tops.items():
        scores[f"{name}.top"] = Scores(values, ("batch", "rank"), unit="probability", name="top", spec=plan.text,
                                       labels=pieces)
    data, axes = _data(gathered)
    claims, wrong = ((), []) if gathered.partial else _claims(plan, figures)
    visible = [run for run in plan.runs if not run.hidden]
    run = Run(plan.text, data, axes, metrics, examples, scores,
               {run.name: gathered.step_tokens.get(run.name) or plan.prompts[run.prompt].tokens for run in visible},
               gathered.texts, tuple(ViewRequest(v.view, v.count, v.sites, dict(v.options)) for v in plan.views),
               claims, provenance(model, plan), dict(plan.values))
    object.__setattr__(run, "_model", weakref.ref(model))  # for `replay`; a run does not keep its model alive
    if wrong:
        error = SpecError(wrong, plan.text)
        error.run = run  # type: ignore[attr-defined]
        raise error
    return run


def _figures(gathered: Gathered) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, np.ndarray]], dict[str, Scores],
                                          dict[tuple[str, str], np.ndarray]]:
    """Every metric: its mean and its examples, or Scores where the run is swept; last, either as an array for claims."""
    plan = gathered.plan
    metrics: dict[str, dict[str, float]] = {}
    examples: dict[str, dict[str, np.ndarray]] = {}
    scores: dict[str, Scores] = {}
    figures: dict[tuple[str, str], np.ndarray] = {}
    units = {(run.name, m.name): m.unit for run in plan.runs for m in run.metrics}
    for (name, metric), cells in gathered.figures.items():
        swept = plan.run(name)
        over = np.stack(cells).mean(1)  # [cell example], samples averaged
        if not gathered.partial:
            warn_of_nan(metric, name, over, swept.axes)
        shape = tuple(len(axis.labels) for axis in swept.axes)
        if swept.axes:
            each = over.T.reshape(-1, *shape) if over.shape[1] > 1 else None
            low, high = (None, None) if each is None else interval(each, seed=plan.seed)
            scores[f"{name}.{metric}"] = Scores(
                over.mean(-1).reshape(shape), tuple(a.name for a in swept.axes), {a.name: a.labels for a in swept.axes},
                units[name, metric], metric, plan.text, examples=each, low=low, high=high)
            figures[name, metric] = over.mean(-1).reshape(shape)
        else:
            metrics.setdefault(name, {})[metric] = float(over.mean())
            examples.setdefault(name, {})[metric] = over[0]
            figures[name, metric] = over.mean()
    return metrics, examples, scores, figures


def _data(gathered: Gathered) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    data: dict[str, Tensor] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for (name, key), cells in gathered.kept.items():
        run = gathered.plan.run(name)
        shape = tuple(len(axis.labels) for axis in run.axes)
        value = torch.stack(cells).unflatten(0, shape) if run.axes else cells[0]
        data[f"{name}.{key}"] = value
        axes[f"{name}.{key}"] = (*(axis.name for axis in run.axes), *gathered.words[name, key])
    return data, axes


def _readings(gathered: Gathered) -> dict[str, Scores]:
    """Every reading as Scores, with the axes of a sweep before its own."""
    scores: dict[str, Scores] = {}
    for (name, number), found in gathered.found.items():
        run = gathered.plan.run(name)
        reading = run.readings[number]
        for kind in dict.fromkeys(one.name for one in found):
            cells = [one for one in found if one.name == kind]
            key = f"{name}.{kind}"
            count = 2
            while key in scores:
                key, count = f"{name}.{kind}_{count}", count + 1
            shape = tuple(len(axis.labels) for axis in run.axes)
            values = np.stack([one.values for one in cells])
            texts = [one.labels for one in cells if one.labels is not None]
            labels = np.stack(texts) if texts else None
            axes = named_apart((*run.axes, *reading.axes, *cells[0].axes))
            examples, (low, high), p = _several([one.examples for one in cells], shape, gathered.plan.seed)
            scores[key] = Scores(
                values.reshape((*shape, *values.shape[1:])), tuple(a.name for a in axes),
                {a.name: a.labels for a in axes}, cells[0].unit, kind,
                gathered.plan.text, None if labels is None else labels.reshape((*shape, *labels.shape[1:])),
                examples=examples, low=low, high=high, p=p, note=cells[0].note)
    return scores


def _several(cells: list[np.ndarray | None], shape: tuple[int, ...], seed: int) -> tuple[Any, tuple[Any, Any], Any]:
    """What several examples say about a reading: their numbers, an interval of the mean, p-values of its being 0."""
    found = [one for one in cells if one is not None]
    if len(found) < len(cells):
        return None, (None, None), None
    stacked = np.stack(found, 1)
    each = stacked.reshape(len(stacked), *shape, *stacked.shape[2:])
    return each, interval(each, seed=seed), p_value(each, seed=seed)


def _claims(plan: Plan, figures: dict[tuple[str, str], np.ndarray]) -> tuple[tuple[Expectation, ...], list[Problem]]:
    """Every claim with both its numbers, and the problems of those that do not hold."""
    made, wrong = [], []
    for claim in plan.claims:
        left, right = (np.asarray(claimed(side, figures)) for side in (claim.left, claim.right))
        span = claim.span
        where = (span.line, span.column, span.end_column - span.column) if span is not None else (0, 0, 1)
        if left.ndim or right.ndim:
            wrong.append(Problem("value", "a claim compares single numbers, and this run is swept", *where,
                                 _one_number(claim.text, figures)))
            continue
        holds = bool(COMPARE[claim.op](float(left), float(right)))
        made.append(Expectation(claim.text, float(left), float(right), holds))
        if not holds:
            wrong.append(Problem("expect", f"does not hold: {float(left):.6g} {claim.op} {float(right):.6g}", *where))
    return tuple(made), wrong


def _one_number(claim: str, figures: dict[tuple[str, str], np.ndarray]) -> str:
    """How a claim about a sweep is made one about a number: what to write around the swept metric that it names."""
    named = (f"{run}.{metric}" for (run, metric), values in figures.items() if values.ndim)
    swept = next((name for name in named if name in claim), "hooked.logit_diff")
    functions = [name for name in CLAIM_FUNCTIONS if name != "abs"]
    return f"make one number of the sweep with {', '.join(functions[:-1])} or {functions[-1]}: max({swept})"
