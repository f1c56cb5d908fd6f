"""A compiled plan, run: passes in order, then reads and generation, then everything put together as a `Run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..compiler import Plan, compile_spec
from ..compiler.packing import packed
from ..problems import SpecError
from ..spec import ast
from ..spec.parser import parse
from .gather import Gathered, gather
from .jobs import Jobs
from .readings import read
from .store import Block, Store, standing_at
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


def execute(model: Model, plan: Plan, *, rows: int | None = None, progress: Progress | None = None) -> Run:
    """Run a plan.

    Args:
        model: The model that it was compiled for.
        plan: What to do.
        rows: Most rows of a forward pass; by default what fits into a gigabyte.
        progress: Called with (done, total, what) before each pass.

    Raises:
        SpecError: for what only shows while running, and for claims that do not hold.
    """
    whole, packings, _ = packed(plan)
    store = Store(whole, saes=dict(plan.about._saes))
    jobs = Jobs(model, store, packings, rows)
    todo = jobs.all()
    later = [run for run in plan.runs if run.readings or run.writing]
    total = len(todo) + len(later)
    gathered = Gathered(store)
    try:
        for done, job in enumerate(todo):
            if progress is not None:
                progress(done, total, job.what)
            jobs.do(job)
            if job.entries:
                gathered.blocks(job.blocks)
            else:
                for block in job.blocks:
                    gathered.block(block)
            gathered.release(job.blocks)
        for done, run in enumerate(later, len(todo)):
            if progress is not None:
                progress(done, total, run.name)
            for number in range(len(run.cells)):
                block = Block(run, number, 0, int(plan.prompts[run.prompt].size))
                for reading in run.readings:
                    with standing_at(reading.span, plan.text):
                        gathered.reading(block, reading, read(model, store, block, reading))
            if run.writing is not None:
                gathered.written(run, write(model, store, run))
        if progress is not None:
            progress(total, total, "")
    except SpecError as error:
        if not error.text:
            raise SpecError(error.problems, plan.text, error.offset) from error.__cause__
        raise
    return gather(model, gathered)
