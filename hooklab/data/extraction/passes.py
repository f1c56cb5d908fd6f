"""The forward passes of an extraction: one for each batch, as short as what is asked for allows.

In: a `Chunk`. Out: for each of its examples the values of the sites, without padding, and the metrics. A pass ends with the
last site that is wanted; logits are computed at the positions that are wanted. Edits are functions by address, or lines of
the hook language, which are compiled for every batch, since positions are those of its examples; lines that draw, or take
means over examples, are compiled for each example alone, so that no example depends on those beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...address import Place
from ...compiler import Plan
from ...compiler.lower import metric_name
from ...compiler.plan.measures import looks_back
from ...compiler.plan.runs import RunPlan
from ...compiler.schedule import schedule
from ...compiler.statements import EDITS
from ...errors import RecordError, did_you_mean
from ...metrics import AtLast
from ...problems import Problem, SpecError
from ...runtime.execute import compile_for
from ...runtime.measure import measure, references
from ...runtime.passes import _callback, forward, tasks_of, unembeds_less
from ...runtime.store import Block, Store
from ...runtime.trace import Edit, _edit, _part, _port, _Stop, _writer, places, run
from ...sites import SITES
from ...spec.ast import Metric, Seed, Spec
from ...spec.holes import holes
from ...spec.parser import parse
from ...spec.printer import to_text
from ...spec.verbs import METRICS
from ..evaluation.grid import _depends as depends
from ..store.layout import RAGGED
from .reading import TOKEN, TOKENS, Chunk, Item

if TYPE_CHECKING:
    from ...model.model import Model

PROMPT = "batch"
ALLOWED = (*EDITS, "hookspec", "prompt", "mark", "answer", "sae", "let", "group", "seed", "metric", "run")
"""Lines that make sense while a data set goes by: what changes a pass, what names things, and what is measured."""


@dataclass(frozen=True)
class Lines:
    """What is compiled for every batch: a spec over the prompt `batch`, and what its braces hold.

    Attributes:
        own: What the user wrote, as it is printed.
        metrics: Names of what is measured.
        answers: How many answers each example has: none, the right one, or a wrong one as well.
        above: Lines that stand above the user's.
        apart: Whether examples must run one by one: a line draws, or what it does depends on the examples beside.
        given: What the user gave for braces.
    """

    spec: Spec
    values: Mapping[str, Any]
    own: str
    metrics: tuple[str, ...]
    answers: int
    above: int
    apart: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)

    def spec_of(self, chunk: Chunk) -> Spec:
        """The lines for a batch; where examples run alone, with a seed that follows from the user's and the example's id."""
        if not self.apart:
            return self.spec
        seed = next((one.value for one in self.spec.body if isinstance(one, Seed)), 0)
        own = int(hashlib.sha256(f"{seed} {chunk.items[0].example.id}".encode("utf-8", "surrogatepass")).hexdigest()[:7], 16)
        body = [Seed(own) if isinstance(one, Seed) else one for one in self.spec.body]
        return Spec((*body, *(() if any(isinstance(one, Seed) for one in body) else (Seed(own),))), self.spec.text)


@dataclass(frozen=True)
class Each:
    """A function of the last logits that is held to one number per example."""

    of: Callable[[Tensor], Any]

    def __call__(self, logits: Tensor) -> Any:
        """[example]. Raises RecordError for anything else: one number would be taken for every example's."""
        found = torch.as_tensor(self.of(logits))
        if tuple(found.shape) not in ((len(logits),), (len(logits), 1)):
            raise RecordError(f"it gave the shape {list(found.shape)}, and is to give one number for each example, "
                              f"[{len(logits)}], from logits [example d_vocab]")
        return found


def lines(spec: Any, metrics: Mapping[str, Any], answers: int, values: Mapping[str, Any] | None) -> Lines | None:
    """Edits and metrics as one spec; None where there are neither.

    Raises:
        SpecError: a line cannot be read.
        RecordError: it is one that has no place here, or a value is for no name in braces.
    """
    own = "" if spec is None else spec if isinstance(spec, str) else to_text(spec)
    given = dict(values or {})
    if not own.strip() and not metrics:
        _needed((), given)
        return None
    if taken := [name for name in (PROMPT, "answers", "others") if name in given]:
        raise RecordError(f"{taken[0]!r} stands for something here already: give the value another name")
    said = [f"prompt {PROMPT} = {{{PROMPT}}}"]
    if answers:
        said.append("answer {answers}" + (" vs {others}" if answers > 1 else ""))
    for number, (name, metric) in enumerate(metrics.items()):
        if callable(metric):
            given[f"_metric_{number}"] = AtLast(Each(metric.of if isinstance(metric, AtLast) else metric))
            metric = f"{{_metric_{number}}}"
        said.append(f"metric {name}" if metric == name else f"metric {name} = {metric}")
    whole = _placed(len(said), parse, "\n".join([*said, own]))
    _needed([name.strip() for name in holes(whole)], values or {})
    body = [inner for one in whole.body for inner in (one, *getattr(one, "body", ()))]
    if odd := [one.verb for one in body if one.verb not in ALLOWED]:
        raise RecordError(f"a {odd[0]!r} line has no place in an extraction, whose passes go by: lines that change a pass, "
                          "that name something, and metrics")
    names: tuple[str, ...] = ()
    for one in whole.body:
        names += (metric_name(one, names),) if isinstance(one, Metric) else ()
    printed = to_text(Spec(whole.body[len(said):])) if own.strip() else ""
    return Lines(whole, given, printed, names, answers, len(said), any(map(depends, body)), dict(values or {}))


def _needed(names: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raises RecordError for a value that no line asks for: a name that is misspelt would be passed over."""
    if unused := sorted(set(map(str.strip, values)) - set(names)):
        raise RecordError(f"values= has {unused[0]!r}, which no line has in braces.{did_you_mean(unused[0], names)}")


def _placed(above: int, make: Callable[..., Any], *given: Any) -> Any:
    """What is made; problems of the user's lines are counted from the first of these."""
    try:
        return make(*given)
    except SpecError as error:
        own = all(problem.line > above or not problem.line for problem in error.problems)
        raise (error.shifted(-above) if own else SpecError(map(_of_columns, error.problems), error.text)) from None


def _of_columns(problem: Problem) -> Problem:
    """A problem of lines that the user did not write: answers are columns here."""
    lacking = problem.message.startswith(tuple(METRICS)) and "answer" in problem.message
    return replace(problem, hint='name the columns of answers: answer=["right", "wrong"]; on the command line --answer '
                                 "right,wrong") if lacking else problem


class Passes:
    """Runs chunks.

    Args:
        model: An opened model.
        wanted: Places whose values are wanted.
        whole: Those of them that are wanted at all positions; the others come at those of each item.
        edits: Address -> function of the site's tensor.
        lines: Edits and metrics of the language.
    """

    def __init__(self, model: Model, wanted: Sequence[Place], whole: frozenset[Place], edits: Mapping[str, Edit],
                 lines: Lines | None) -> None:
        self.model, self.wanted, self.whole, self.lines = model, tuple(wanted), whole, lines
        self.edits = [(place, _edit(address, edit)) for address, edit in edits.items() for place in places(model, [address])]
        self.count = 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured."""
        return () if self.lines is None else self.lines.metrics

    def __call__(self, chunk: Chunk) -> list[tuple[dict[str, Tensor], dict[str, float]]]:
        """For each item its values by address, and its metrics.

        Raises:
            SpecError: the lines do not fit the batch.
        """
        compiled = None if self.lines is None else self.compiled(chunk)
        callbacks: dict[str, list[Any]] = {}
        for place, edit in self.edits:
            callbacks.setdefault(_port(self.model, place).location, []).append(_writer(place, edit))
        touched = {place.site for place, _ in self.edits}
        if compiled is not None:
            touched |= self._prepared(compiled, callbacks)
        last = compiled is not None and bool(compiled.run.metrics)
        columns = self._columns(chunk, compiled, last, "logits" in touched)
        values: dict[str, Tensor] = {}
        for place in self.wanted:
            callbacks.setdefault(_port(self.model, place).location, []).append(self._saver(place, values, chunk, columns))
        logits: dict[str, Tensor] = {}
        if last:
            callbacks.setdefault(self.model.layout.port("logits", None).location, []).append(
                lambda value, step: logits.update(found=value.detach()))
        elif self.wanted and not self.model.hooks:
            callbacks[_port(self.model, self.wanted[-1]).location].append(_Stop(len(self.wanted), values))
        options: dict[str, Any] = {}
        if columns is not None:
            only_last = columns == [chunk.tokens.width - 1]
            options["logits_to_keep"] = 1 if only_last else torch.tensor(columns, device=self.model.device)
        run(self.model, "__call__", callbacks, chunk.prompt, **options)
        self.count += 1
        found = self._split(chunk, values)
        measured = {} if compiled is None or not last else self._measured(compiled, logits["found"])
        return [(own, {name: float(some[i]) for name, some in measured.items()}) for i, own in enumerate(found)]

    # Sites -----------------------------------------------------------------------------------------------------------

    def _columns(self, chunk: Chunk, compiled: Compiled | None, last: bool, touched: bool) -> list[int] | None:
        """The columns whose logits are computed; None for all."""
        wanted = [place for place in self.wanted if place.site == "logits"]
        back = compiled is not None and any(looks_back(one.value, compiled.plan.values) for one in compiled.run.metrics)
        if touched or back or not (wanted or last) or not unembeds_less(self.model) or self.whole & {*wanted}:
            return None
        found = {chunk.tokens.width - 1} if last else set()
        if wanted:
            found |= {chunk.tokens.column(i, p) for i, item in enumerate(chunk.items) for p in item.positions or ()}
        return sorted(found)

    def _saver(self, place: Place, values: dict[str, Tensor], chunk: Chunk, kept: list[int] | None) -> Callable[..., None]:
        if place in self.whole:
            def save(value: Tensor, step: int) -> None:
                part = _part(place, value).detach()
                values[str(place)] = part.clone() if part.untyped_storage().data_ptr() == value.untyped_storage(
                    ).data_ptr() else part

            return save
        pairs = [(i, chunk.tokens.column(i, p)) for i, item in enumerate(chunk.items) for p in item.positions or ()]
        at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        if place.site == "logits" and kept is not None:
            at[:, 1] = torch.searchsorted(torch.tensor(kept), at[:, 1].contiguous())
        rows, cols = at.to(self.model.device).unbind(1)

        def pick(value: Tensor, step: int) -> None:
            part = _part(place, value)
            turned = part.transpose(1, 2) if place.site in ("scores", "pattern") else part
            values[str(place)] = turned[rows.to(part.device), cols.to(part.device)].detach()

        return pick

    def _split(self, chunk: Chunk, values: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each item's own values, on the CPU, axes as in the glossary but for the batch."""
        found: list[dict[str, Tensor]] = [{} for _ in chunk.items]
        for place in self.wanted:
            axes = SITES[place.site].axes[1:]
            value = values[str(place)].to("cpu")
            if place in self.whole and [axis for axis in axes if axis in RAGGED] == ["pos"] == [*axes[:1]]:
                bounds = [n for i, item in enumerate(chunk.items) for n in self._bounds(chunk, i, item)]
                for own, part in zip(found, value.flatten(0, 1).split(bounds)[1::3], strict=True):
                    own[str(place)] = part
                continue
            attention = place.site in ("scores", "pattern")
            each = value if place in self.whole else value.split([item.rows for item in chunk.items])
            for i, (item, own) in enumerate(zip(chunk.items, each, strict=True)):
                own = own.transpose(0, 1) if attention and place not in self.whole else own
                start = chunk.tokens.column(i, 0)
                for axis, word in enumerate(axes):
                    if word == "key_pos" or (word in ("pos", "query_pos") and place in self.whole):
                        own = own.narrow(axis, start, item.length)
                found[i][str(place)] = own
        return found

    def _bounds(self, chunk: Chunk, i: int, item: Item) -> tuple[int, int, int]:
        """Columns before an item's tokens, of them, and behind them."""
        start = chunk.tokens.column(i, 0)
        return start, item.length, chunk.tokens.width - start - item.length

    # Lines -----------------------------------------------------------------------------------------------------------

    def compiled(self, chunk: Chunk) -> Compiled:
        """The lines for a batch.

        Raises:
            SpecError: they do not fit it.
            RecordError: they ask for more than one pass over each example.
        """
        assert self.lines is not None
        values = {**self.lines.values, PROMPT: chunk.prompt}
        for number, name in enumerate(("answers", "others")[:self.lines.answers]):
            values[name] = [item.answers[number] for item in chunk.items]
        plan = _placed(self.lines.above, compile_for, self.model, self.lines.spec_of(chunk), values)
        runs = [one for one in plan.runs if one.prompt == PROMPT and one.name != PROMPT and not one.hidden]
        if len(runs) > 1 or any(len(one.cells) > 1 or one.samples > 1 for one in runs):
            made = f"the runs {', '.join(one.name for one in runs)}" if len(runs) > 1 else "a sweep, or samples"
            raise RecordError(f"an extraction takes each example through one pass: the lines make {made}")
        return Compiled(plan, runs[0] if runs else plan.run(PROMPT))

    def _prepared(self, compiled: Compiled, callbacks: dict[str, list[Any]]) -> set[str]:
        """Do what the edits need first, and register them; the sites that they change."""
        compiled.before(self.model)
        tasks = tasks_of(compiled.store, [compiled.block])
        for place, some in tasks.items():
            location = self.model.layout.port(*place).location
            callbacks.setdefault(location, []).append(_callback(compiled.store, place, some, []))
        return {site for site, _ in tasks}

    def _measured(self, compiled: Compiled, logits: Tensor) -> dict[str, Tensor]:
        return {one.name: measure(compiled.store, compiled.block, one, logits).detach().double().cpu()
                for one in compiled.run.metrics}


class Compiled:
    """A plan over a batch: the one run whose pass is looked into, and what has to be there first."""

    def __init__(self, plan: Plan, run: RunPlan) -> None:
        needed, todo = set[str](), [run.name]
        while todo:
            one = plan.run(todo.pop())
            more = {*one.needs, *(name for metric in one.metrics for name in references(metric.value))} - {run.name}
            todo += sorted(more - needed)
            needed |= more
        self.first = needed
        self.run = run
        self.plan = replace(plan, runs=tuple(one if one.name == run.name else replace(one, metrics=()) for one in plan.runs
                                             if one.name in needed or one.name == run.name))
        self.store = Store(self.plan, saes=dict(plan.about._saes))
        self.block = Block(run, 0, 0, int(plan.prompts[run.prompt].size))

    def before(self, model: Model) -> None:
        """Run what the edits and the metrics take from."""
        for group in schedule(self.plan):
            for one in group:
                if one.name in self.first:
                    forward(model, self.store, [Block(one, 0, 0, int(self.plan.prompts[one.prompt].size))])


def item_cost(model: Model, wanted: Sequence[Place], whole: frozenset[Place],
              sizes: Mapping[Place, tuple[int | None, ...]]) -> Callable[[Item], int]:
    """What tells the bytes of an item while it waits: of its values, in the model's type, and about those of its tokens."""
    size = next(model.hf.parameters()).element_size()
    terms: Counter[tuple[int, int]] = Counter()  # (powers of its length and of its rows) -> bytes
    for place in wanted:
        axes = [(word, n) for word, n in zip(SITES[place.site].axes[1:], sizes[place], strict=True)]
        long = sum(n is None and (word == "key_pos" or place in whole) for word, n in axes)
        terms[long, sum(n is None for _, n in axes) - long] += size * math.prod(n for _, n in axes if n is not None)
    return lambda item: TOKENS + TOKEN * item.length + sum(
        one * item.length**long * item.rows**some for (long, some), one in terms.items())
