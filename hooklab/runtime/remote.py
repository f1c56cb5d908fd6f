"""A compiled plan, run on a server: the passes of `execute`, each sent through nnsight as one trace of data.

What cannot be sent is said first, all of it at once. Nothing of the model in memory travels: a server knows the model by
its name on the hub. `remote="local"` goes the same way, through nnsight's own simulation, on the model in memory.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor, nn

from ..compiler import Plan
from ..compiler.plan.edits import Edit
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import acts
from ..compiler.schedule import schedule
from ..errors import ModelError, TraceError
from ..problems import Problem, SpecError
from .execute import Progress
from .gather import Gathered, gather
from .passes import blocks_of, last_only, rows_that_fit, unembeds_less, width_of
from .readings import read
from .steps import Place, Step, keepers, lower, serve
from .store import Block, Store

if TYPE_CHECKING:
    from ..model.layout import Layout
    from ..model.model import Model
    from ..records import Run

HERE = "or run it on a model in memory: leave out remote="
CARRIED = "take z, what a head carries from where it looks"
REMEDIES = {"rot_q": "take q, the query before rotation", "rot_k": "take k, the key before rotation",
            "scores": CARRIED, "pattern": CARRIED}
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def execute_remote(model: Model, plan: Plan, remote: bool | str, *, rows: int | None = None,
                   progress: Progress | None = None) -> Run:
    """Run a plan on a server.

    Args:
        model: The model that it was compiled for; it needs no weights, unless `remote` is `"local"`.
        plan: What to do.
        remote: True for NDIF, the address of another server, or `"local"` to simulate one on the model in memory.
        rows: Most rows of a forward pass; by default what fits into a gigabyte.
        progress: Called with (done, total, what) before each pass.

    Raises:
        SpecError: lines that cannot be done there, before anything is sent; what only shows while running.
        ModelError: a model without a name on the hub, or one that is not there.
        TraceError: what the server said, or that it could not be reached.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> run = model.run('prompt "The Eiffel Tower is in the city of"', remote="local")
        >>> run.provenance["remote"]
        'local'
    """
    _refuse(model, plan)
    plan = replace(plan, runs=tuple(_with_reads(run) for run in plan.runs))
    store = Store(plan, saes=dict(plan.about._saes))
    todo = [chunk for group in schedule(plan)
            for chunk in blocks_of(group, store, rows or rows_that_fit(model, width_of(plan, group)))]
    gathered = Gathered(store)
    try:
        with opened(model, remote) as (handle, layout):
            for done, chunk in enumerate(todo):
                if progress is not None:
                    progress(done, len(todo), ", ".join(dict.fromkeys(block.run.name for block in chunk)))
                _pass(model, handle, layout, store, chunk, remote)
                for block in chunk:
                    gathered.block(block)
                gathered.release(chunk)
        _read(model, gathered)
    except SpecError as error:
        raise SpecError(error.problems, error.text or plan.text, error.offset) from error.__cause__
    run = gather(model, gathered)
    run.provenance["remote"] = remote if isinstance(remote, str) else nnsight.CONFIG.API.HOST
    return run


def _with_reads(run: RunPlan) -> RunPlan:
    """A run that also keeps what its readings read: they are made here, of what came back."""
    wanted = {Spot(spot.site, spot.layer) for reading in run.readings for spot in reading.spots}
    return replace(run, captures=run.captures | wanted)


def _read(model: Model, gathered: Gathered) -> None:
    plan = gathered.plan
    for run in plan.runs:
        for number in range(len(run.cells)):
            block = Block(run, number, 0, int(plan.prompts[run.prompt].size))
            for reading in run.readings:
                gathered.reading(block, reading, read(model, gathered.store, block, reading))


# One pass --------------------------------------------------------------------------------------------------------


def _pass(model: Model, handle: Any, layout: Layout, store: Store, blocks: list[Block], remote: bool | str) -> None:
    """One pass there; what came back goes into the store."""
    prompts = [store.plan.prompts[block.run.prompt] for block in blocks for _ in range(block.run.samples)]
    inputs = model.reader.batch(prompts, generating=False)
    last = last_only(store.plan) and model.reader.side == "left"
    if last and unembeds_less(model):
        inputs["logits_to_keep"] = 1
    steps = lower(layout, store, blocks, last=last)
    try:
        found = send(handle, inputs, steps, remote)
    except Exception as error:
        if (said := _said(error)) is None:
            raise
        raise TraceError(f"The server did not run this: {said}") from error
    home = torch.device("cpu") if model.device.type == "meta" else model.device
    for place, wanted in keepers(store, blocks).items():
        parts = found[place].to(home).split([len(block.rows) for block in wanted])
        for block, part in zip(wanted, parts, strict=True):
            if place[0] == "logits":
                store.logits[block.key] = part
            if Spot(*place) in block.run.captures:
                store.keep(block, place, part.clone())


def send(handle: Any, inputs: dict[str, Any], steps: list[Step], remote: bool | str) -> dict[Place, Tensor]:
    """One traced pass. nnsight reads this block's source, and only what is saved in it comes back."""
    rows = len(inputs["input_ids"])
    with _shipped(), torch.no_grad(), handle.trace(**inputs, remote=remote):
        found = nnsight.save(serve(handle, steps, rows))
    return found


def _said(error: Exception) -> str | None:
    """What a server said last, or the way there; None for what is neither's."""
    from nnsight.intervention.backends.remote import RemoteError

    carriers = ("websocket", "httpx")
    if not isinstance(error, RemoteError | OSError) and type(error).__module__.partition(".")[0] not in carriers:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _shipped() -> Iterator[None]:
    """hooklab's functions travel by value: a server need not have the package. Imports are found as before afterwards."""
    import cloudpickle

    package = sys.modules[__name__.partition(".")[0]]
    known = package.__name__ in cloudpickle.list_registry_pickle_by_value()
    paths = list(sys.path)
    nnsight.register(package)
    try:
        yield
    finally:
        sys.path[:] = paths
        if not known and package.__name__ in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(package)


# The model there ---------------------------------------------------------------------------------------------------


class InMemory(TransformersModel):
    """nnsight's model around a module as it is: no pipeline is built, so nothing of it or its tokenizer is changed."""

    def _wrap(self, module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return module


@contextmanager
def opened(model: Model, remote: bool | str) -> Iterator[tuple[Any, Layout]]:
    """nnsight's handle on the model that will run, and where its sites are.

    Raises:
        ModelError: the model has no name on the hub, or cannot be found under it.
    """
    if remote != "local":
        handle = _named(model)
        from ..model.layout import Layout

        yield handle, Layout(handle._module, model.layout.family)
        return
    model._ready_to_run()
    with model.interleaver.lock:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*submodule named.*")
            handle = InMemory(model.hf, task="text-generation")
        try:
            yield handle, model.layout
        finally:
            _leave(handle)


def _leave(handle: Any) -> None:
    """Take a handle's marks out of the module that it was put around."""
    for module in handle._module.modules():
        module.__dict__.pop("_persistent_id", None)
        state = module.__dict__.get("__nnsight__")
        if state is not None:
            state.routes = [route for route in state.routes if route[0]() not in (None, handle.interleaver)]


def _named(model: Model) -> Any:
    """The model under its name on the hub, without weights."""
    name = hub_name(model)
    attention = getattr(model.hf.config, "_attn_implementation", None)
    given = {"attn_implementation": attention} if attention in ("eager", "sdpa") else {}
    tokenizer = copy.deepcopy(model.tokenizer)  # nnsight turns its padding round
    try:
        return TransformersModel(name, revision=vars(model).get("_revision"), tokenizer=tokenizer, **given)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f'"{name}" could not be prepared for a remote run: {line}') from error


def hub_name(model: Model) -> str:
    """The name by which a server knows the model.

    Raises:
        ModelError: it has none.
    """
    name = getattr(model.hf, "name_or_path", "") or ""
    if NAME.fullmatch(name) and not Path(name).is_dir():
        return name
    what = f"was loaded from the folder {name}" if name else "was made in memory"
    raise ModelError(f"A server knows models by their names on the Hugging Face hub, and this one {what}. Load it by name "
                     f"to run it remotely, or simulate the way there with remote='local'.")


# What cannot be sent -----------------------------------------------------------------------------------------------


def _refuse(model: Model, plan: Plan) -> None:
    """Say everything that cannot be done there.

    Raises:
        SpecError: with every such line.
    """
    problems: list[Problem] = []

    def add(message: str, span: Any, hint: str) -> None:
        """Note a problem, and that the same runs here."""
        hint = f"{hint}, {HERE}" if hint else HERE.removeprefix("or ")
        if span is None:
            problems.append(Problem("run", message, hint=hint))
            return
        width = span.end_column - span.column if span.end_line == span.line else 1
        problems.append(Problem("run", message, span.line, span.column, max(1, width), hint))

    for run in plan.runs:
        for edit in {id(edit): edit for cell in run.cells for edit in cell.edits}.values():
            _check_edit(model, edit, add)
        for keep in run.keeps:
            _check_spots(model, keep.spots, keep.span, add)
        for reading in run.readings:
            if reading.verb == "attribute":
                add("attribution needs gradients, or the weights, which do not run remotely", reading.span, "")
            else:
                _check_spots(model, reading.spots, reading.span, add)
            if reading.verb == "lens" and model.device.type == "meta":
                add("a lens is read here, through an unembedding that this model was loaded without", reading.span,
                    "save the stream instead: save L*.resid_post")
        if run.writing is not None:
            add("generate does not run remotely", run.writing.span, "take metrics of the next token")
    if problems:
        raise SpecError(problems, plan.text)


def _check_edit(model: Model, edit: Edit, add: Any) -> None:
    if edit.verb == "cut":
        add("attention is cut inside the attention function, which does not run remotely", edit.span,
            "zero the heads' z instead")
        return
    _check_spots(model, (*edit.spots, *(act.spot for act in acts(edit.value))), edit.span, add)
    if any(spot.sae is not None for spot in edit.spots):
        add("features are changed through their dictionary, which is not sent", edit.span, "change the site itself")


def _inner(model: Model, spots: tuple[Spot, ...]) -> list[Spot]:
    """Those inside the attention function, one of each site."""
    found = {spot.site: spot for spot in reversed(spots) if model.layout.port(spot.site, spot.layer).source is None}
    return list(found.values())


def _check_spots(model: Model, spots: tuple[Spot, ...], span: Any, add: Any) -> None:
    for spot in _inner(model, spots):
        add(f"{spot} lies inside the attention function, which does not run remotely", span, REMEDIES[spot.site])
