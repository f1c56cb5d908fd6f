"""A pass as data: what to read and change at which module, and the few functions that do it wherever the model is.

`lower` turns the edits and reads of a batch into steps, with every value computed here; `serve` carries steps out
inside a trace of the model, here or on a server. What travels is dicts, tensors and the functions below `serve`: no
class of this package, whose methods could only travel as bytecode of one Python version.

A step is one visit of a module: `{"module": path, "side": "input" | "output", "jobs": [...]}`. A job is one site there:
how to cut it out (`grip`, `columns`, or `derived` for what no value carries), its `edits` and which rows to `keep`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import edits
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import at_spot
from ..edits import OPS, clamp
from ..model.linear import bias, matrix
from ..model.ports import GRIPS, Port, first_input, head_results, norm_scale, result_correction, scale_correction
from ..sites import SITES
from .apply import Task
from .evaluate import Table, evaluate
from .passes import _reads_logits, tasks_of
from .store import Block, Store, trouble

if TYPE_CHECKING:
    from ..model.layout import Layout

Place = tuple[str, int | None]
Step = dict[str, Any]

# There: what travels ---------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {**OPS, "clamp": clamp}


def serve(root: Any, steps: list[Step], rows: int) -> dict[Place, Tensor]:
    """Carry out steps in the order of the forward pass; returns what was asked to be kept.

    Args:
        root: The traced model.
        steps: What `lower` made.
        rows: Rows of the batch.
    """
    envoys = {envoy.path: envoy for envoy in root.modules()}
    found: dict[Place, Tensor] = {}
    later: dict[str, list[Any]] = {}
    for step in steps:
        envoy, reads_input = envoys[step["module"]], step["side"] == "input"
        value = envoy.inputs if reads_input else envoy.output
        corrections = later.pop(step["module"], []) if not reads_input else []
        with torch.no_grad():
            for correct in corrections:
                value = correct(value)
            for job in step["jobs"]:
                value = visit(job, value, envoy._module, rows, found, later.setdefault(step["module"], []))
        if not corrections and not any(job["edits"] for job in step["jobs"]):
            continue
        if reads_input:
            envoy.inputs = value
        else:
            envoy.output = value
    return found


def visit(job: dict[str, Any], value: Any, module: Any, rows: int, found: dict[Place, Tensor], later: list[Any]) -> Any:
    """One site of a module's value: changed, kept, put back; a change of a derived site goes to `later`."""
    raw = taken(job, value, module)
    flat = raw.ndim == job["ndim"] - 1  # some blocks fold batch and pos into one axis
    old = raw.unflatten(0, (rows, -1)) if flat else raw
    if old.shape[0] == 1 < rows:
        old = old.expand(rows, *old.shape[1:])  # positions are embedded once for all examples
    new = old.clone()
    for edit in job["edits"]:
        values = [v.to(new.device) if isinstance(v, Tensor) else v for v in edit["values"]]
        new[edit["index"]] = CHANGES[edit["change"]](new[edit["index"]], *values).to(new.dtype)
    if job["keep"] is not None:
        kept = new[:, -1:] if job["last"] else new
        found[job["place"]] = kept[job["keep"].to(kept.device)].detach()
    if not job["edits"]:
        return value
    if job["derived"] == "result":
        later.append(result_correction(bias(module))(value, old, new))
    elif job["derived"]:
        later.append(scale_correction(module, job["derived"])(value, old, new))
    else:
        return put(job, value, new.flatten(0, 1) if flat else new)
    return value


def taken(job: dict[str, Any], value: Any, module: Any) -> Any:
    """The tensor of a site."""
    if job["derived"] == "result":
        heads = job["heads"]
        return head_results(first_input(value).unflatten(-1, (heads, -1)), matrix(module).unflatten(0, (heads, -1)))
    if job["derived"]:
        return norm_scale(module, job["derived"])(first_input(value))
    whole = GRIPS[job["grip"]][0](value)
    return whole if job["columns"] is None else whole[..., job["columns"].to(whole.device)]


def put(job: dict[str, Any], value: Any, new: Tensor) -> Any:
    """The module's value with another tensor for the site."""
    get, set_ = GRIPS[job["grip"]]
    if job["columns"] is not None:
        part, new = new, get(value).clone()
        new[..., job["columns"].to(new.device)] = part
    return set_(value, new)


# Here: what is sent ----------------------------------------------------------------------------------------------


def lower(layout: Layout, store: Store, blocks: list[Block], *, last: bool) -> list[Step]:
    """Edits and reads of a batch as steps, sorted by the order in which the forward pass comes by.

    Args:
        layout: That of the module that will run.
        store: What earlier runs left.
        blocks: The batch.
        last: Whether nothing but the last column of the logits is wanted.
    """
    tasks, kept = tasks_of(store, blocks), keepers(store, blocks)
    order = visiting_order(layout)
    steps: dict[str, Step] = {}

    def step(location: str) -> Step:
        """The step at a location, begun when it is first asked for."""
        module, side = location.rsplit(".", 1)
        return steps.setdefault(location, {"module": module, "side": side, "jobs": []})

    places = sorted(dict.fromkeys((*tasks, *kept)), key=lambda place: Spot(*place).order)
    for place in places:
        port = layout.port(*place)
        assert port.source is not None  # refused before
        changes = [change for task in tasks.get(place, ()) for change in changes_of(layout, task, blocks)]
        step(port.source)["jobs"].append({
            "place": place, "ndim": len(port.axes), "grip": grip(port), "columns": columns_of(layout, port),
            "derived": derived(layout, port), "heads": layout.facts.n_heads, "edits": changes,
            "keep": rows_of(kept[place]) if place in kept else None, "last": last and place[0] == "logits"})
        if changes and port.later is not None:
            step(port.later)
    return [steps[location] for location in sorted(steps, key=lambda at: order.get(at, len(order)))]


def keepers(store: Store, blocks: list[Block]) -> dict[Place, list[Block]]:
    """Which blocks want which sites kept."""
    found: dict[Place, list[Block]] = {}
    for block in blocks:
        places = [(spot.site, spot.layer) for spot in block.run.captures]
        if block.run.metrics or _reads_logits(store, block.run):
            places.append(("logits", None))
        for place in dict.fromkeys(places):
            found.setdefault(place, []).append(block)
    return found


def rows_of(blocks: list[Block]) -> Tensor:
    """All rows of blocks."""
    return torch.tensor([row for block in blocks for row in block.rows])


def grip(port: Port) -> str:
    """How the site's module holds it; see `ports.GRIPS`."""
    if port.site in ("logits", "resid_mid"):
        return {"logits": "logits", "resid_mid": "stream"}[port.site]
    return str(port.source).rsplit(".", 1)[1]


def derived(layout: Layout, port: Port) -> str:
    """For a site that no value carries: what it is computed as; else nothing."""
    if port.later is None:
        return ""
    return "result" if port.site == "result" else layout.family.norm


def columns_of(layout: Layout, port: Port) -> Tensor | None:
    """Which columns of a projection make up the site, [head d_head]; None for all as they are.

    Found by cutting the site out of a row of numbers.
    """
    fused = layout.family.gate_up is not None and port.site in ("mlp_pre", "mlp_pre_linear")
    if port.site not in ("q", "k", "v", "z") and not fused:
        return None
    path, side = str(port.source).rsplit(".", 1)
    module = layout.hf.get_submodule(path.removeprefix("model."))
    width = matrix(module).shape[0 if side == "input" else 1]
    numbers = torch.arange(width)[None, None]
    return port.take(((numbers,), {}) if side == "input" else numbers)[0, 0]


def changes_of(layout: Layout, task: Task, blocks: list[Block]) -> list[dict[str, Any]]:
    """An edit as a change: where, which, and the values it needs, computed here.

    Raises:
        SpecError: the value does not fit.
    """
    if not task.edit.reach.holds(0):
        return []
    facts, spot = layout.facts, task.spot
    sizes = {"batch": sum(len(block.rows) for block in blocks), "pos": task.tokens.width, "head": facts.n_heads,
             "kv_head": facts.n_kv_heads, "d_head": facts.d_head, "d_model": facts.d_model, "d_mlp": facts.d_mlp,
             "d_vocab": facts.d_vocab, "one": 1}
    axes = SITES[spot.site].axes
    dtype = layout.hf.get_input_embeddings().weight.dtype
    stand_in = torch.ones((), dtype=dtype).expand([int(sizes[axis] or 1) for axis in axes])
    rows, cols, count = task._pairs(stand_in, 0)
    if not len(rows):
        return []
    chosen = edits.Selection(axes, rows, cols, spot.heads, spot.units)
    try:
        change, values = _change(task, chosen.take(stand_in), rows, count)
    except edits.WriteError as error:
        raise trouble(str(error), task.edit.span, text=task.store.plan.text) from None
    return [{"index": chosen.index(), "change": change,
             "values": [packed(v) if isinstance(v, Tensor) else v for v in values]}]


def _change(task: Task, x: Tensor, rows: Tensor, count: int) -> tuple[str, list[Any]]:
    """The change of an edit and its values, laid out over the selected entries; only the shape of `x` matters."""
    edit = task.edit
    if edit.verb == "zero":
        return "set", [torch.zeros((), dtype=x.dtype)]
    if edit.verb == "clamp":
        return "clamp", [edit.option("min"), edit.option("max")]
    if edit.verb in ("patch", "mean", "resample"):
        return "set", [task._source(x, rows, count, 0)]
    value = evaluate(task.store, at_spot(edit.value, task.spot), task.blocks[0].run, task.blocks[0].number)
    if isinstance(value, Table):
        raise trouble("a table of tensors can only be patched from", edit.span, text=task.store.plan.text)
    laid = task._laid(value, x, rows, count)
    if edit.verb == "noise":
        return "steer", [task._noise(x, 0) * laid]
    OPS[edit.verb](x, laid)  # says now what would go wrong there
    return edit.verb, [laid]


def packed(value: Tensor) -> Tensor:
    """The same numbers in memory of their own, without the repeats of `expand` and without what they were cut from."""
    once = tuple(slice(0, 1) if step == 0 and size > 1 else slice(None)
                 for step, size in zip(value.stride(), value.shape, strict=True))
    return value.detach()[once].cpu().clone(memory_format=torch.contiguous_format)


# The order of a forward pass ---------------------------------------------------------------------------------------

_ORDERS: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()


def visiting_order(layout: Layout) -> dict[str, int]:
    """Native location -> its number in a forward pass, observed on a copy of the model that has sizes but no numbers.

    Where no such copy can run, the order of the glossary is taken, which is that of nearly all architectures.
    """
    if layout.hf not in _ORDERS:
        ports = sorted((port for port in layout.all_ports if port.source is not None),
                       key=lambda port: Spot(port.site, port.layer).order)
        wanted = list(dict.fromkeys(at for port in ports for at in (port.source, port.later) if at is not None))
        try:
            seen = _observed(layout, set(wanted))
        except Exception:  # whatever a model of someone else's raises on the meta device
            seen = []
        _ORDERS[layout.hf] = {at: i for i, at in enumerate(dict.fromkeys((*seen, *wanted)))}
    return _ORDERS[layout.hf]


def _observed(layout: Layout, wanted: set[str]) -> list[str]:
    """The wanted locations as a twin of the model without weights comes by them."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        twin = type(layout.hf)(copy.deepcopy(layout.hf.config)).eval()
    seen: list[str] = []

    def note(location: str) -> Any:
        return lambda *_: seen.append(location) if location in wanted else None

    for name, module in twin.named_modules():
        path = f"model.{name}" if name else "model"
        module.register_forward_pre_hook(note(f"{path}.input"))
        module.register_forward_hook(note(f"{path}.output"))
    with torch.no_grad():
        twin(torch.zeros((1, 2), dtype=torch.long, device="meta"))
    return seen
