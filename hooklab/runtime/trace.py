"""Runs without a block: reads and edits given as data, served as callbacks on the interleaver.

Needs no source text and keeps no order; the cheapest way to look into a model, and what plans are run on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..address import Place, expand, parse
from ..errors import SiteError, WriteError
from ..model.checks import check_write
from ..model.interleaver import EarlyStop
from ..records import Activations
from ..sites import SITES

if TYPE_CHECKING:
    from ..model.model import Model

Edit = Callable[[Tensor], "Tensor | None"]


def capture(model: Model, prompt: Any, sites: str | Iterable[str], *, edits: Mapping[str, Edit] | None = None,
            at: Any = None, grad: bool = False, metric: Callable[[Any], Tensor] | None = None,
            full: bool = False, **kwargs: Any) -> Activations:
    """Run `model` once on `prompt` and return the values of `sites`.

    Args:
        model: An opened model.
        prompt: Anything that `model.trace` takes.
        sites: Addresses such as `"L*.resid_post"`, `["L0.z", "logits"]`.
        edits: Address -> function from the site's tensor to its replacement (or None after changing it in place).
            Edits of one site apply before it is read.
        at: Position selector; only these positions are kept, [batch × positions, …] flattened when ragged.
        grad: Keep the values in the autograd graph.
        metric: With gradients: a function of the model's output to a scalar; its gradient at every site is in
            `.grads`.
        full: Run to the end even when nothing after the last site is needed.
        kwargs: Further inputs and forward arguments.

    Returns:
        The values, detached copies unless `grad`.

    Raises:
        SiteError: a site that this model lacks, or a misspelt one.
        LayerError: a layer or head out of range.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> acts = model.capture("The capital of France is", ["L0.z", "logits"])
        >>> sorted(acts)
        ['L0.z', 'logits']
    """
    grad = grad or metric is not None
    wanted = places(model, [sites] if isinstance(sites, str) else list(sites))
    edited = [(place, _edit(address, edit)) for address, edit in (edits or {}).items()
              for place in places(model, [address])]
    values: dict[str, Tensor] = {}
    roots: dict[str, Tensor] = {}
    callbacks: dict[str, list[Any]] = {}
    for place, edit in edited:
        callbacks.setdefault(_port(model, place).location, []).append(_writer(place, edit))
    prompt_ = model.reader.read(prompt, **_inputs(kwargs))
    index = None if at is None else _index(model, at, prompt_.tokens)
    for place in wanted:
        callbacks.setdefault(_port(model, place).location, []).append(_saver(place, values, roots, index, grad=grad))
    later = any(place.order > wanted[-1].order for place, _ in edited) if wanted else False
    if not grad and not full and wanted and not later and not model.hooks:
        callbacks[_port(model, wanted[-1]).location].append(_Stop(len(wanted), values))
    model.reader.check_options(kwargs)
    output = run(model, "__call__", callbacks, prompt_, grad=grad, **kwargs)
    grads: dict[str, Tensor] = {}
    if metric is not None:
        # Of whole sites: a slice of what was handed out is a side branch of the graph, with no gradient of its own.
        found = torch.autograd.grad(metric(output), list(roots.values()), allow_unused=True)
        whole = {key: torch.zeros_like(roots[key]) if g is None else g for key, g in zip(roots, found, strict=True)}
        grads = {str(place): _cut(place, whole[str(place)], index) for place in wanted}
    return Activations(values, prompt_.tokens, output, grads)


def run(model: Model, fn: str | Callable[[], Any], callbacks: Mapping[str, list[Any]], *prompts: Any,
        grad: bool | str = False, watcher: Callable[..., None] | None = None,
        attends: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Run the model with callbacks by location; returns what it returned, or None after an early stop.

    Args:
        model: An opened model.
        fn: A method of the model, or a function that calls the model's modules itself.
        callbacks: Location -> functions that see, and may change, its value.
        prompts: What the method runs on.
        grad: Keep the graph.
        watcher: Sees (attention module, keys, values, mask) of every attention of the registry.
        attends: Computes attention in its stead, from (attention module, queries, keys, values).
        kwargs: Options of the method.
    """
    interleaver = model.interleaver
    model._ready_to_run()
    with interleaver.lock:
        interleaver.callbacks = dict(callbacks)
        interleaver.grad = grad
        interleaver.watcher, interleaver.attends = watcher, attends
        try:
            return model._root.interleave(fn, *prompts, **kwargs)
        finally:
            interleaver.callbacks = {}
            interleaver.grad = False
            interleaver.watcher = interleaver.attends = None


def plain(model: Model, fn: str, *prompts: Any, **kwargs: Any) -> Any:
    """Run the model on prompts with nobody looking in."""
    return run(model, fn, {}, *prompts, **kwargs)


def places(model: Model, addresses: Iterable[str]) -> list[Place]:
    """The places that addresses name on this model, in execution order, without repeats.

    Raises:
        SiteError: the model lacks one of the sites.
    """
    facts = model.facts
    found: dict[Place, None] = {}
    for address in addresses:
        parsed = parse(address)
        refusal = model.sites.missing(parsed.site)  # before its parts are counted: it says why there are none
        if refusal is not None:
            raise SiteError(refusal)
        for place in expand(parsed, n_layers=facts.n_layers, n_heads=facts.n_heads, n_kv_heads=facts.n_kv_heads,
                            d_mlp=facts.d_mlp):
            found[place] = None
    return sorted(found, key=lambda place: place.order)


def _edit(address: str, edit: Any) -> Edit:
    if not callable(edit):
        raise WriteError(f"The edit of {address} must be a function from the site's tensor to its replacement, not "
                         f"{type(edit).__name__}; to set a tensor: lambda value: tensor.")
    return edit


def _port(model: Model, place: Place) -> Any:
    return model.layout.port(place.site, place.layer)


def _inputs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the inputs out of keyword arguments, leaving those of the forward pass."""
    from ..model.inputs import INPUT_NAMES

    return {name: kwargs.pop(name) for name in tuple(kwargs) if name in INPUT_NAMES}


def _index(model: Model, at: Any, tokens: Any) -> tuple[Tensor, Tensor]:
    from ..positions import columns

    found = columns(at, tokens)
    rows = torch.tensor([row for row, picked in enumerate(found) for _ in picked])
    return rows, torch.tensor([column for picked in found for column in picked])


def _part(place: Place, value: Tensor) -> Tensor:
    """The heads or neurons that a place singles out; a view."""
    if place.heads is not None:
        axis = 1 if place.site in ("scores", "pattern") else 2
        return value.index_select(axis, torch.tensor(place.heads, device=value.device))
    if place.neurons is not None:
        return value[..., list(place.neurons)]
    return value


def _cut(place: Place, value: Tensor, index: Any) -> Tensor:
    """The heads or neurons of a place, at the selected positions."""
    kept = _part(place, value)
    if index is None:
        return kept
    return kept.transpose(1, 2)[index] if place.site in ("scores", "pattern") else kept[index]


def _saver(place: Place, values: dict[str, Tensor], roots: dict[str, Tensor], index: Any, *, grad: bool) -> Any:
    """Keeps a place under its address; with gradients, also the whole site that they are taken to."""

    def save(value: Tensor, step: int) -> None:
        kept = _cut(place, value, index)
        if grad:
            roots[str(place)] = value
            values[str(place)] = kept
        else:
            values[str(place)] = kept.detach().clone() if kept is value else kept.detach()

    return save


def _writer(place: Place, edit: Edit) -> Any:
    """Puts what an edit makes of a place back into its site."""

    def write(value: Tensor, step: int) -> Tensor | None:
        if place.heads is None and place.neurons is None:
            return edit(value)
        part = _part(place, value)
        changed = edit(part)
        if changed is not None:
            check_write(str(place), SITES[place.site].axes, changed, part)
            part = changed
        out = value.clone()
        axis = (1 if place.site in ("scores", "pattern") else 2) if place.heads is not None else value.ndim - 1
        chosen = place.heads if place.heads is not None else place.neurons
        return out.index_copy(axis, torch.tensor(chosen, device=value.device), part.to(value.dtype))

    return write


class _Stop:
    """Ends the run once everything that was asked for is there."""

    def __init__(self, needed: int, values: dict[str, Tensor]) -> None:
        self.needed, self.values = needed, values

    def __call__(self, value: Tensor, step: int) -> None:
        if len(self.values) >= self.needed:
            raise EarlyStop
