"""What a model hands to its blocks besides the stream, for any list of positions.

Rotations, position ids and whatever else an architecture passes along depend on positions alone. Two passes over blocks
that do nothing, of different lengths, show which axis of which argument counts positions; the arguments for the tokens of
a packed batch are then picked from those of a plain sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ...model.model import Model

Call = tuple[tuple[Any, ...], dict[str, Any]]
MASKS = ("attention_mask", "causal_mask")
CACHES = ("past_key_values", "past_key_value", "layer_past")


@contextmanager
def instead(module: nn.Module, forward: Any) -> Iterator[None]:
    """Another `forward` for one module; an instance's own, which nnsight sets, comes back afterwards."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.forward = before


@dataclass
class Arguments:
    """Arguments of every block beside the stream.

    Attributes:
        calls: Per layer, what a sequence of `length` tokens is given.
        axes: Per layer, the same tree with the axis that counts positions in the place of each tensor.
    """

    calls: list[Call]
    axes: list[Any]
    picked: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    at: Tensor | None = None

    def of(self, layer: int, hidden: Tensor, positions: Tensor) -> Call:
        """(args, kwargs) of a block for tokens [1 token d_model] at positions [token]."""
        if positions is not self.at:
            self.picked, self.at = {}, positions
        args, kwargs = self._picked(self.calls[layer], self.axes[layer], positions)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _picked(self, value: Any, axis: Any, positions: Tensor) -> Any:
        if isinstance(value, Tensor):
            if axis is None:
                return value
            key = (id(value), int(axis))
            if key not in self.picked:
                self.picked[key] = value.index_select(axis, positions.to(value.device))
            return self.picked[key]
        if isinstance(value, (tuple, list)):
            return type(value)(self._picked(v, a, positions) for v, a in zip(value, axis, strict=True))
        if isinstance(value, dict):
            return {name: self._picked(v, axis[name], positions) for name, v in value.items()}
        return value


def probe(model: Model, length: int, returns_tuple: bool) -> Arguments:
    """The arguments of every block for positions 0 to `length` - 1."""
    length = max(2, length)
    first, second = _calls(model, length, returns_tuple), _calls(model, length - 1, returns_tuple)
    found = [_compared(a, b, length) for a, b in zip(first, second, strict=True)]
    return Arguments([_cleared(call) for call in first], found)


def _calls(model: Model, length: int, returns_tuple: bool) -> list[Call]:
    """What the model calls each of its blocks with, at a length."""
    seen: list[Call] = []

    def stub(*args: Any, **kwargs: Any) -> Any:
        """Stands for a block: notes what it is called with, less the stream, and lets the stream through."""
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.append(((None, *args[1:]), dict(kwargs)) if args else ((), {k: v for k, v in kwargs.items()
                                                                        if k != "hidden_states"}))
        return (hidden,) if returns_tuple else hidden

    base = model.layout.base
    ids = torch.zeros((1, length), dtype=torch.long, device=model.device)
    with ExitStack() as stack, torch.no_grad():
        for block in model.layout.blocks:
            stack.enter_context(instead(block, stub))
        base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False,
             position_ids=torch.arange(length, device=model.device)[None])
    return seen


def _cleared(call: Call) -> Call:
    """Without masks and caches: packed attention has its own."""
    args, kwargs = call
    return args, {name: None if name in (*MASKS, *CACHES) else value for name, value in kwargs.items()}


def _compared(a: Any, b: Any, length: int) -> Any:
    """The axis of each tensor along which two calls differ; None where they do not."""
    if isinstance(a, Tensor):
        axes = [n for n, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
        return axes[0] if len(axes) == 1 and a.shape[axes[0]] == length else None
    if isinstance(a, (tuple, list)):
        return [_compared(x, y, length) for x, y in zip(a, b, strict=True)]
    if isinstance(a, dict):
        return {name: _compared(value, b[name], length) for name, value in a.items()}
    return None
