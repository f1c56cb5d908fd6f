"""A run done again: its function from the stored source, and whether the result is the same.

    Record ──codes/VERSION──▶ nodes ──building──▶ Restored ──stored arguments──▶ a new run ──differing──▶ Rerun
"""

from __future__ import annotations

import copy
import inspect
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecordError
from ..records import Unstored
from ..records.lines import text_table
from . import artefacts
from .building import Builder, built
from .code import Code, version_of
from .differences import check_tolerance, differing
from .digest import fingerprint, is_model
from .drawing import from_plain
from .environment import seeded
from .experiment import Experiment
from .needs import Needs, Prepared, hand
from .nodes import Node
from .record import Record

if TYPE_CHECKING:
    from .workbench import Bench


def keep_code(folder: Path, name: str, code: Code) -> None:
    """Keep what a code is made of; a version that is kept already is left as it is. Raises OSError."""
    path = folder / "codes" / code.version
    if path.with_name(f"{path.name}.json").exists():
        return
    nodes = [{"kind": node.kind, "digest": node.digest, "refs": node.refs, "about": node.about,
              "value": node.value if node.kind == "value" else None} for node in code.nodes]
    with suppress(FileExistsError):  # another process was faster
        artefacts.keep({"python": code.python, "nodes": nodes}, path)


def kept_code(folder: Path, version: str) -> tuple[list[Node], str]:
    """The nodes of a version, and the Python under which it was kept. Raises RecordError where it is not what was kept."""
    document = artefacts.fetch(folder / "codes" / version)
    try:
        nodes = [Node(**one) for one in document["nodes"]]
    except (KeyError, TypeError) as error:
        raise RecordError(f"{folder / 'codes' / version} holds no code: {error}") from error
    if version_of(nodes) != version:
        raise RecordError(f"the code {version} is not what was kept: its file was changed")
    return nodes, str(document["python"])


class Restored:
    """The function of a run, as it was then. It draws from the run's seed, and is handed the run's tools.

    Attributes:
        record: The run.
        function: The function itself.
        source: Its text.
    """

    def __init__(self, record: Record, function: Any, bench: Bench, needs: Needs, force: bool) -> None:
        self.record, self.function, self.source, self.bench = record, function, record.source, bench
        self.needs, self._force = needs, force

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; nothing is kept of the call.

        Raises:
            RecordError: a model among the arguments has other weights than the run's.
        """
        handed = hand(self.function, self.needs, self.bench, args, kwargs)
        bound = inspect.signature(self.function).bind(*args, **kwargs, **handed.tools, **handed.drawn)
        for name, value in bound.arguments.items():
            if is_model(value) and (wanted := self.record.models.get(name)):
                checked_model(value, name, wanted, self._force)
        with seeded(self.record.seed):
            return self.function(*bound.args, **bound.kwargs)

    def __repr__(self) -> str:
        return f"{self.record.name} as it was in {self.record.id} (version {self.record.version})\n\n{self.source}"


@dataclass(frozen=True, repr=False)
class Rerun:
    """A run that was done again.

    Attributes:
        same: Whether it came out the same, within the tolerance.
        differences: Where not: (the place, then, now, by how much or nan).
        old, new: Both runs.
        tolerance: The largest difference of a number that counted as the same.
    """

    same: bool
    old: Record
    new: Record
    differences: list[tuple[str, str, str, float]] = field(default_factory=list)
    tolerance: float = 0.0

    def __bool__(self) -> bool:
        return self.same

    def __repr__(self) -> str:
        within = f" within {self.tolerance:g}" if self.tolerance else ", bit for bit"
        if self.same:
            return f"{self.new.id} came out the same as {self.old.id}{within}"
        seed = "" if self.old.seed is not None else (
            "\nNo seed was set: @bench.experiment(seed=0) makes random numbers repeat.")
        rows = [[where, old, new, "" if math.isnan(by) else by] for where, old, new, by in self.differences]
        return (f"{self.new.id} came out otherwise than {self.old.id}\n{text_table(['where', 'then', 'now', 'by'], rows)}"
                f"{seed}")


def checked_model(model: Any, name: str, wanted: str, force: bool) -> Any:
    """A model whose weights are those of a run. Raises RecordError when they are not, unless forced."""
    if not force and (found := fingerprint(model)) != wanted:
        raise RecordError(f"{name} has other weights ({found}) than the model of the run ({wanted}); force=True takes it "
                          "all the same")
    return model


def _model(bench: Bench, model: Any, given: dict[str, Any], name: str, wanted: str, force: bool) -> Any:
    """The model to use under a name. Raises RecordError when there is none, or it has other weights."""
    found = given.get(name, model)
    if found is not None:
        return checked_model(found, name, wanted, force)
    found = bench.model_of(wanted)
    if found is None and force and bench.model is not None:
        return bench.model
    if found is None:
        raise RecordError(f"the run used a model with the fingerprint {wanted} as {name}: give it, model=…")
    return found


def restore(bench: Bench, record: Record, given: dict[str, Any], model: Any, force: bool) -> Restored:
    """See `Bench.restore`."""
    if model is not None and record.models and not force:
        marks = set(record.models.values())
        if (found := fingerprint(model)) not in marks:
            raise RecordError(f"this model has other weights ({found}) than the run's ({', '.join(sorted(marks))}); "
                              "force=True takes it all the same")
    nodes, python = kept_code(bench.folder, record.version)
    desk = copy.copy(bench)
    builder = Builder(nodes, given, lambda name, wanted: _model(bench, model, given, name, wanted, force), desk,
                      record.version, python)
    function = built(builder, force)
    asked = record.about.get("needs", {})
    tools = dict(asked.get("tools", {}))
    desk.own_tools = {**bench.own_tools, **{tools.get(label[5:], label[5:]): builder.get(number)
                                           for label, number in nodes[0].refs.items() if label.startswith("tool ")}}
    return Restored(record, function, desk, Needs(tools, from_plain(asked.get("plots", {}))), force)


def rerun(bench: Bench, record: Record, tolerance: float, given: dict[str, Any], model: Any, force: bool) -> Rerun:
    """See `Bench.rerun`."""
    check_tolerance(tolerance)
    if record.status not in ("finished", "failed"):
        raise RecordError(f"{record.id} is {record.status}: there is no result to compare with")
    _check_kept(record, given, force)
    restored = restore(bench, record, given, model, force)
    inputs = {name: given.get(name, _ready(value, name, bench, record, model, given, force))
              for name, value in record_inputs(record, given).items()}
    bound = inspect.BoundArguments(inspect.signature(restored.function), inputs)
    again = Experiment(Prepared(restored.function, restored.needs, restored.bench), restored.bench, record.name, record.seed)
    try:
        again(*bound.args, **bound.kwargs)
    except Exception:
        if not again.last:
            raise
    new = bench.get(again.last)
    found = list(_compared(record, new, tolerance))
    return Rerun(not found, record, new, found, tolerance)


def _check_kept(record: Record, given: dict[str, Any], force: bool) -> None:
    """Raises RecordError for an argument that comes back otherwise than it was, unless forced or given."""
    for one in record.about.get("lost", []):
        where = one.partition(" (")[0].split("/")
        if where[0] == "inputs" and len(where) > 1 and not {where[1], where[-1]} & {*given} and not force:
            raise RecordError(f"the argument {where[1]} was not kept as data ({one}): give it, given={{{where[1]!r}: …}}")


def record_inputs(record: Record, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a run. Raises RecordError when they were not kept and are not given."""
    try:
        return record.inputs
    except RecordError:
        names = record.about.get("arguments", {})
        if missing := [name for name in names if name not in given]:
            raise RecordError(f"the arguments of {record.id} were not kept ({'; '.join(record.lost)}): give them, given="
                              f"{{{missing[0]!r}: …}}") from None
        return {name: given[name] for name in names}


def _ready(value: Any, name: str, bench: Bench, record: Record, model: Any, given: dict[str, Any], force: bool) -> Any:
    """An argument with its models in place. Raises RecordError for what was not kept as data."""
    if name in given:
        return given[name]
    if isinstance(value, artefacts.Needed):
        return _model(bench, model, given, name, value.fingerprint, force)
    if isinstance(value, Unstored):
        raise RecordError(f"the argument {name} was not kept as data ({value.what[:80]}): give it, given={{{name!r}: …}}")
    if type(value) in (list, tuple):
        return type(value)(_ready(one, f"{name}[{i}]", bench, record, model, given, force) for i, one in enumerate(value))
    if type(value) is dict:
        return {key: _ready(one, str(key), bench, record, model, given, force) for key, one in value.items()}
    return value


def _compared(old: Record, new: Record, tolerance: float) -> Any:
    if old.status != new.status:
        yield "status", old.status, f"{new.status} {new.about.get('error', {}).get('message', '')}".strip(), math.nan
    elif old.status == "failed":
        then, now = (f"{one.about['error']['type']}: {one.about['error']['message']}" for one in (old, new))
        if then != now:
            yield "error", then, now, math.nan
    else:
        yield from differing(old.result, new.result, tolerance)
        for name in dict.fromkeys([*old.series, *new.series]):
            yield from differing([value for _, value in old.series.get(name, [])], [
                value for _, value in new.series.get(name, [])], tolerance, f"number {name}")
