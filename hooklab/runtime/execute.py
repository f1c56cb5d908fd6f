"""A compiled plan, run: passes in order, then reads and generation, then everything put together as a `Run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..compiler import Plan, compile_spec
from ..compiler.packing.choosing import packed
from ..compiler.plan.runs import RunPlan
from ..errors import Stopped
from ..problems import SpecError
from ..spec import ast
from ..spec.parser import parse
from .gather import Gathered, gather
from .jobs import Jobs
from .readings import read
from .store import Block, Store, standing_at
from .watching import OnStep
from .world import ModelWorld
from .write import write

if TYPE_CHECKING:
    from ..model.model import Model
    from ..records import Run

Progress = Callable[[int, int, str], None]


def compile_for(model: Model, spec: ast.Spec | str, values: Mapping[str, Any] | None = None) -> Plan:
    """Compile a spec for a model.

    Raises:
        SpecError: with every problem of the spec.
    """
    parsed = parse(spec) if isinstance(spec, str) else spec
    known = dict(values or {})
    return compile_spec(parsed, ModelWorld(model, _saes(parsed, known)), known)


def _saes(spec: ast.Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionaries that a spec attaches, opened."""
    from ..sae import attach

    found = {}
    for statement in spec.body:
        if isinstance(statement, ast.Sae):
            source = statement.source
            given = values.get(source.source) if isinstance(source, ast.Py) else source.value
            if given is not None:
                found[statement.name] = attach(given)
    return found


class Told:
    """Tells how far a plan is: units of work done of all there are, after each part and within it."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def part(self, what: str, work: int) -> Callable[[float], None]:
        """A part begins; returns what is to be told which share of it is done."""
        start, self.done = self.done, self.done + work

        def tick(share: float) -> None:
            if self.progress is not None:
                self.progress(start + int(share * work), self.total, what)

        tick(0.0)
        return tick

    def end(self) -> None:
        """Everything is done."""
        if self.progress is not None:
            self.progress(self.total, self.total, "")


def execute(model: Model, plan: Plan, *, rows: int | None = None, progress: Progress | None = None,
            on_step: OnStep | None = None, seeds: tuple[int, ...] | None = None) -> Run:
    """Run a plan.

    Args:
        model: The model that it was compiled for.
        plan: What to do.
        rows: Most rows of a forward pass; by default what fits into a gigabyte.
        progress: Called with (done, total, what) as the work goes on.
        on_step: Called with every `Step` of what is written on; ends that generation by giving True.
        seeds: One for each row of what is written on, which then draws as it would alone from this seed.

    Raises:
        SpecError: for what only shows while running, and for claims that do not hold.
        Stopped: it was interrupted; what is done is in the exception's `run`.
    """
    whole, packings, _ = packed(plan)
    store = Store(whole, saes=dict(plan.about._saes))
    jobs = Jobs(model, store, packings, rows)
    gathered = Gathered(store)
    try:
        _do(model, jobs, gathered, progress, on_step, seeds)
    except SpecError as error:
        if not error.text:
            raise SpecError(error.problems, plan.text, error.offset) from error.__cause__
        raise
    except KeyboardInterrupt:
        raise Stopped(*gathered.so_far(model)) from None
    return gather(model, gathered)


def _do(model: Model, jobs: Jobs, gathered: Gathered, progress: Progress | None, on_step: OnStep | None,
        seeds: tuple[int, ...] | None) -> None:
    """All passes, then what reads and writes on."""
    store, plan = jobs.store, jobs.plan
    later = [run for run in plan.runs if run.readings or run.writing]
    todo = jobs.all()
    told = Told(progress, sum(map(jobs.work, todo)) + sum(_later_work(model, plan, run) for run in later))
    for job in todo:
        jobs.do(job, told.part(job.what, jobs.work(job)))
        if job.entries and job.blocks[0].run.name in jobs.packings:
            gathered.blocks(job.blocks)
        else:
            for block in job.blocks:
                gathered.block(block)
        gathered.release(job.blocks)
    for run in later:
        tick = told.part(run.name, _later_work(model, plan, run))
        for number in range(len(run.cells)):
            tick(number / len(run.cells))
            block = Block(run, number, 0, int(plan.prompts[run.prompt].size))
            for reading in run.readings:
                with standing_at(reading.span, plan.text):
                    gathered.reading(block, reading, read(model, store, block, reading))
        if run.writing is not None:
            gathered.written(run, write(model, store, run, on_step=on_step, seeds=seeds))
    told.end()


def _later_work(model: Model, plan: Plan, run: RunPlan) -> int:
    """How much reads and generation of a run have to do, in tokens times blocks."""
    prompt = plan.prompts[run.prompt]
    passes = len(run.readings) + (run.writing.count if run.writing else 0)
    return model.facts.n_layers * sum(prompt.tokens.lengths) * len(run.cells) * passes
