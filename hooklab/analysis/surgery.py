"""Surgery: what a model does without a layer, with one twice, in another order, or without heads and neurons.

Nothing is cut out of the model itself. Each function opens a second model that shares the weights of the first and has
its own layers, so that the first one runs on as it is, also while the second is open, and needs no repair:

    with hl.analysis.surgery.delete(model, [3]) as shorter:
        shorter.run("prompt …")
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..address import check_index
from ..errors import LayerError, ModelError
from ..model.model import Model


def delete(model: Model, layers: int | Iterable[int]) -> Model:
    """The model without some layers; those that follow move up and are counted anew.

    >>> import hooklab as hl
    >>> with delete(hl.load("lab"), -1) as shorter:
    ...     shorter.facts.n_layers
    4

    Raises:
        LayerError: there is no such layer, or none would be left.
    """
    gone = _layers(model, layers)
    return rearrange(model, [layer for layer in range(model.facts.n_layers) if layer not in gone])


def repeat(model: Model, layer: int, times: int = 2) -> Model:
    """The model with a layer passed through several times in a row; later layers move down.

    Raises:
        LayerError: there is no such layer, or it would not be passed at all.
    """
    if times < 1:
        raise LayerError(f"a layer can be repeated once or more, not {times} times; to take it out, delete it")
    here = _layer(model, layer)
    return rearrange(model, [one for one in range(model.facts.n_layers) for _ in range(times if one == here else 1)])


def swap(model: Model, first: int, second: int) -> Model:
    """The model with two layers in each other's place. Raises LayerError where there is no such layer."""
    a, b = _layer(model, first), _layer(model, second)
    order = list(range(model.facts.n_layers))
    order[a], order[b] = order[b], order[a]
    return rearrange(model, order)


def replace(model: Model, layer: int, by: int) -> Model:
    """The model with another of its layers in the place of one. Raises LayerError where there is no such layer."""
    here, other = _layer(model, layer), _layer(model, by)
    return rearrange(model, [other if one == here else one for one in range(model.facts.n_layers)])


def skip(model: Model, layers: int | Iterable[int]) -> Model:
    """The model with layers that add nothing to the stream; unlike `delete`, all layers keep their numbers and sites.

    Raises:
        LayerError: there is no such layer.
        ModelError: attention or MLP cannot be silenced by their output weights in this architecture.
    """
    gone = _layers(model, layers)
    if not model.layout.family.adds_up:
        raise ModelError(f"{model.facts.family} puts a norm behind each addition, so a layer that adds nothing still "
                         "changes the stream: use delete")
    other = sharing(model)
    for layer in gone:
        for role in ("o", "down"):
            module = counterpart(other, model, layer, role)
            if module is None:
                raise ModelError(f"the MLP of layer {layer} is a mixture of experts and has no one output: use delete")
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.zeros_like(parameter), requires_grad=parameter.requires_grad))
    return opened(model, other)


def rearrange(model: Model, order: Sequence[int]) -> Model:
    """The model with its layers in another order: left out, repeated or moved, as `order` lists them.

    The weights are shared, not copied. Close the result, or use it in a `with`, when it is not needed any more.

    Args:
        model: An open model; it is not changed.
        order: The layer that each place is to hold; negative ones count from the end.

    Raises:
        LayerError: there is no such layer, or the order is empty.
        ModelError: the layers lie on several devices.
    """
    wanted = [_layer(model, layer) for layer in order]
    if not wanted:
        raise LayerError("a model needs one layer at least")
    other = sharing(model)
    base, path = _base(other, model), model.layout.family.blocks
    holder_name, _, last = path.rpartition(".")
    holder = base.get_submodule(holder_name) if holder_name else base
    blocks = getattr(holder, last)
    used: set[int] = set()
    chosen = []
    for place, layer in enumerate(wanted):
        block = _copied(blocks[layer], own_config=False) if layer in used else blocks[layer]
        used.add(layer)
        for module in block.modules():
            for name in ("layer_idx", "layer_id", "layer_number"):
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, place)
        chosen.append(block)
    setattr(holder, last, nn.ModuleList(chosen))
    _recount(_config(other, model), model.facts.n_layers, wanted)
    return opened(model, other)


def _recount(config: Any, before: int, order: list[int]) -> None:
    """Lists with an entry per layer follow their layers; then the count does."""
    for name, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == before and name != "architectures":
            vars(config)[name] = type(value)(value[layer] for layer in order)
    count = getattr(type(config), "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
    vars(config)[count] = len(order)  # past the config's checks, which would see one of the two changed alone


def sharing(model: Model) -> Any:
    """A second module of the same shape: modules and config are its own, parameters and buffers are the first one's."""
    if any(hasattr(module, "_hf_hook") for module in model.hf.modules()):
        raise ModelError("the layers lie on several devices: load the model on one for surgery")
    return _copied(model.hf)


def _copied(module: nn.Module, *, own_config: bool = True) -> Any:
    """A copy with the same parameters and buffers.

    A second block of one model keeps the config as well: how attention is computed is looked up there, and a block with a
    config of its own would be computed past everything that reads and edits attention.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    if not own_config:
        shared |= {id(one.config): one.config for one in module.modules() if getattr(one, "config", None) is not None}
    for one in module.modules():  # nnsight's wrapping is not part of the model
        for name in ("__nnsight__", "forward"):
            if name in vars(one) and "__nnsight__" in vars(one):
                shared[id(vars(one)[name])] = None
    other = copy.deepcopy(module, shared)
    for one in other.modules():
        if "__nnsight__" in vars(one):
            vars(one).pop("__nnsight__")
            vars(one).pop("forward", None)
    return other


def opened(model: Model, other: Any) -> Model:
    """A model on a module made from another's; sites that were refused there are refused here."""
    opened = Model(other, model.tokenizer, model.processor)
    opened.interleaver.refused.update(model.interleaver.refused)
    return opened


def _base(other: Any, model: Model) -> Any:
    """The part of the copy that holds the blocks."""
    name = model.layout.names[id(model.layout.base)]
    return other.get_submodule(name) if name else other


def _config(other: Any, model: Model) -> Any:
    return _base(other, model).config


def counterpart(other: Any, model: Model, layer: int, role: str) -> Any:
    """The copy's module that plays a role in a layer; None where the family has none."""
    found = model.layout.role(layer, role)
    return None if found is None else other.get_submodule(model.layout.names[id(found)])


def _layer(model: Model, layer: int) -> int:
    return check_index(layer, model.facts.n_layers, "layer")


def _layers(model: Model, layers: int | Iterable[int]) -> set[int]:
    return {_layer(model, layer) for layer in ([layers] if isinstance(layers, int) else layers)}
