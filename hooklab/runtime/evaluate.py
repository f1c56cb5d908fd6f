"""Values of a plan as tensors: numbers, Python's values, activations of earlier runs, and arithmetic on them.

A value is a tensor and how many of its first axes are (row, position): 2 for an activation that varies over examples
and positions, 0 for a vector or a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..compiler.plan.reaches import Spread
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import Act, Const, Fn, FromFile, Given, Op, Sigma
from .store import Store, trouble

ATTENTION = ("scores", "pattern")
POOLING = ("mean", "sum", "max", "min", "std")


@dataclass(frozen=True)
class Valued:
    """A tensor; `lead` of its first axes are (row, position)."""

    tensor: Tensor
    lead: int = 0


@dataclass(frozen=True)
class Table:
    """Several tensors by address, from a file or from Python."""

    tensors: Mapping[str, Any]

    def find(self, spot: Spot) -> Tensor:
        """The tensor of a place, laid out as the whole site that it is a part of; else that of the whole site."""
        for key in (str(spot), spot.key):
            try:
                found = torch.as_tensor(self.tensors[key])
            except (KeyError, LookupError):
                continue
            return found if key == spot.key else _as_whole(spot, found)
        raise trouble(f"there is no {spot.key} among {', '.join(list(self.tensors)[:8]) or 'nothing'}",
                      hint="name its tensors by address, such as L5.resid_post")


def _as_whole(spot: Spot, found: Tensor) -> Tensor:
    """A saved part of a site, in the places that its heads and units have in the whole."""
    if found.ndim != len(spot.axes) or spot.sae is not None:
        return found  # a value for the part, which is laid out over it
    head = 1 if spot.site in ATTENTION else 2
    for axis, numbers in ((head, spot.heads), (found.ndim - 1, spot.units)):
        if numbers is not None and found.shape[axis] == len(numbers):
            shape = [max(numbers) + 1 if n == axis else size for n, size in enumerate(found.shape)]
            found = found.new_zeros(shape).index_copy(axis, torch.tensor(numbers, device=found.device), found)
    return found


def evaluate(store: Store, value: Any, user: RunPlan, number: int, *, pooled: bool = False) -> Valued | Table:
    """A value of the plan, for cell `number` of the run that uses it; `pooled` inside of `mean(…)` and its like."""
    inner = pooled or (isinstance(value, Fn) and value.name in POOLING)
    if isinstance(value, Const):
        return Valued(torch.tensor(float(value.value)))
    if isinstance(value, Given):
        return given(store, value)
    if isinstance(value, FromFile):
        return from_file(value.path)
    if isinstance(value, Act):
        return activation(store, value, user, number, pooled=pooled)
    if isinstance(value, Sigma):
        return Valued(spread_of(store, value, user, number))
    if isinstance(value, Op):
        return _arithmetic(value.op, [_tensor(evaluate(store, arg, user, number, pooled=inner)) for arg in value.args])
    if isinstance(value, Fn):
        return FUNCTIONS[value.name](*[_tensor(evaluate(store, arg, user, number, pooled=inner)) for arg in value.args])
    raise TypeError(type(value).__name__)


def given(store: Store, value: Given) -> Valued | Table:
    """What Python between braces stands for; converted once."""
    if value not in store.given:
        found = store.plan.values[value.source]
        store.given[value] = convert(found if value.pick is None else found[value.pick], value.source)
    return store.given[value]


def convert(found: Any, source: str) -> Valued | Table:
    """A Python object as a value."""
    if isinstance(found, Tensor):
        return Valued(found.detach())
    if isinstance(found, Mapping):
        return Table(found)
    try:
        return Valued(torch.as_tensor(found, dtype=None if hasattr(found, "dtype") else torch.float32))
    except (TypeError, ValueError, RuntimeError):
        raise trouble(f"{{{source}}} is a {type(found).__name__}, which is no tensor, number or table of tensors") from None


def from_file(path: str) -> Table:
    """The tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise trouble(f"there is no file {path}")
    try:
        return Table(load_file(path))
    except (SafetensorError, OSError) as error:
        raise trouble(f"{path} is no safetensors file: {error}") from None


# Activations -------------------------------------------------------------------------------------------------------


def columns(tokens: Any, at: Spread | None, example: int) -> list[int]:
    """Padded columns of an example's positions; of all its real tokens when `at` is None."""
    row = range(tokens.lengths[example]) if at is None else at[example]
    return [tokens.column(example, p) for p in row]


def spread_of(store: Store, value: Sigma, user: RunPlan, number: int) -> Tensor:
    """The standard deviation of a site over all its real tokens; of attention, over the edges that are not masked."""
    whole = store.act(value.run, value.spot, user, number)
    tokens = store.plan.prompts[store.plan.run(value.run).prompt].tokens
    if value.spot.site not in ATTENTION:
        return real(whole, tokens).float().std(unbiased=False)
    parts = []
    for row in range(len(whole)):
        cols = torch.tensor(columns(tokens, None, row % len(tokens)), device=whole.device)
        edges = whole[row][:, cols][:, :, cols]
        seen = torch.ones_like(edges, dtype=torch.bool)
        parts.append(edges[seen.tril() if store.plan.about.facts.causal else seen])
    values = torch.cat(parts).float()
    return values[values > torch.finfo(whole.dtype).min / 2].std(unbiased=False)


def laid_out(store: Store, name: str, whole: Tensor, user: RunPlan) -> Tensor:
    """Rows of a source for the rows of the run that takes from it: draw for draw."""
    source = store.plan.run(name)
    if source.samples == 1:
        return whole
    if source.samples != user.samples:
        mine = user.name.rstrip("~")
        raise trouble(f"{name} has {source.samples} draws, and {mine} has {user.samples}",
                      hint=f"average over them: mean(…), or write run {mine} on {name}:")
    size = int(store.plan.prompts[user.prompt].size)
    if len(whole) == size * source.samples:
        return whole
    return whole.unflatten(0, (source.samples, -1)).expand(-1, size, *whole.shape[1:]).flatten(0, 1)


def activation(store: Store, value: Act, user: RunPlan, number: int, *, pooled: bool = False) -> Valued:
    """An activation of an earlier run at its positions: [row pos …]."""
    whole = store.act(value.run, value.spot, user, number)
    if not pooled:
        whole = laid_out(store, value.run, whole, user)
    tokens = store.plan.prompts[store.plan.run(value.run).prompt].tokens
    found = [columns(tokens, value.at, example) for example in range(len(tokens))]
    if len({len(row) for row in found}) > 1:  # ragged: one flat row, which functions such as mean take
        if not pooled:
            raise trouble(f"the examples of {value.run} have different numbers of tokens here",
                          hint="name positions that all have, such as @last, or average: mean(…)")
        parts = [whole[row][_pick(value.spot, whole, cols)] for row, cols in
                 ((r, found[r % len(found)]) for r in range(len(whole)))]
        return Valued(part(value.spot, torch.cat(parts)[None], store), 2)
    rows = torch.arange(len(whole))[:, None]
    cols = torch.tensor([found[r % len(found)] for r in range(len(whole))], dtype=torch.long)
    taken = whole.transpose(1, 2)[rows, cols] if value.spot.site in ("scores", "pattern") else whole[rows, cols]
    return Valued(part(value.spot, taken, store), 2)


def _pick(spot: Spot, whole: Tensor, cols: list[int]) -> Any:
    return (slice(None), cols) if spot.site in ("scores", "pattern") else cols


def part(spot: Spot, taken: Tensor, store: Store | None = None) -> Tensor:
    """The heads, units or features that a spot singles out of [row pos …]."""
    if spot.heads is not None:
        taken = taken.index_select(2, torch.tensor(spot.heads, device=taken.device))
    if spot.sae is not None and store is not None:
        taken = store.saes[spot.sae].encode(taken)
        return taken if spot.features is None else taken[..., list(spot.features)]
    return taken if spot.units is None else taken[..., list(spot.units)]


def real(whole: Tensor, tokens: Any) -> Tensor:
    """The values of a site at real tokens, [token …]."""
    rows = [(row, column) for row in range(whole.shape[0])
            for column in columns(tokens, None, row % len(tokens))]
    index = torch.tensor(rows)
    return whole[index[:, 0], index[:, 1]]


# Functions ---------------------------------------------------------------------------------------------------------


def _tensor(value: Valued | Table) -> Valued:
    if isinstance(value, Table):
        raise trouble("a table of tensors cannot be computed with", hint="take one of them: {cache['L5.resid_post']}")
    return Valued(value.tensor.float() if not value.tensor.is_floating_point() else value.tensor, value.lead)


def _together(a: Valued, b: Valued) -> tuple[Tensor, Tensor, int]:
    device = a.tensor.device if a.tensor.ndim else b.tensor.device
    x, y = a.tensor.to(device), b.tensor.to(device)
    if a.lead == b.lead == 2 and x.ndim != y.ndim:  # one head's write beside a stream, which has no heads
        x, y = (t.reshape(*t.shape[:2], *[1] * (max(x.ndim, y.ndim) - t.ndim), *t.shape[2:]) for t in (x, y))
    if x.ndim and y.ndim and a.lead == b.lead == 2 and x.shape[:2] != y.shape[:2]:
        for axis, word in ((0, "examples"), (1, "positions")):
            if x.shape[axis] != y.shape[axis] and 1 not in (x.shape[axis], y.shape[axis]):
                raise trouble(f"the two sides have {x.shape[axis]} and {y.shape[axis]} {word}",
                              hint="average each of them first: mean(…)")
    try:
        torch.broadcast_shapes(x.shape, y.shape)
    except RuntimeError:
        raise trouble(f"shapes {list(x.shape)} and {list(y.shape)} do not go together") from None
    return x, y, max(a.lead, b.lead)


def _arithmetic(op: str, args: list[Valued]) -> Valued:
    if op == "neg":
        return Valued(-args[0].tensor, args[0].lead)
    x, y, lead = _together(*args)
    return Valued(_OPS[op](x, y), lead)


_OPS: dict[str, Any] = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div}


def _mean(x: Valued) -> Valued:
    """Over examples and positions; of a vector, over its entries."""
    return Valued(x.tensor.mean((0, 1)) if x.lead else x.tensor.mean())


def _last_norm(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True) if x.ndim else x.abs()


def _unit(x: Valued) -> Valued:
    norm = _last_norm(x.tensor)
    if bool((norm == 0).any()):
        raise trouble("unit(…) of a vector that is zero")
    return Valued(x.tensor / norm, x.lead)


def _dot(x: Valued, y: Valued) -> Valued:
    a, b, lead = _together(x, y)
    return Valued((a * b).sum(-1, keepdim=True), lead)


def _cos(x: Valued, y: Valued) -> Valued:
    return _dot(_unit(x), _unit(y))


def _proj(x: Valued, y: Valued) -> Valued:
    """The component of `x` along `y`."""
    along = _unit(y)
    return _arithmetic("*", [_dot(x, along), along])


def _sum(x: Valued) -> Valued:
    return Valued(x.tensor.sum((0, 1)) if x.lead else x.tensor.sum())


def _max(x: Valued) -> Valued:
    return Valued(rearrange(x.tensor, "b p ... -> (b p) ...").amax(0) if x.lead else x.tensor.max())


def _min(x: Valued) -> Valued:
    return Valued(rearrange(x.tensor, "b p ... -> (b p) ...").amin(0) if x.lead else x.tensor.min())


FUNCTIONS: dict[str, Any] = {
    "mean": _mean, "sum": _sum, "max": _max, "min": _min, "unit": _unit, "cos": _cos, "dot": _dot, "proj": _proj,
    "norm": lambda x: Valued(_last_norm(x.tensor), x.lead),
    "abs": lambda x: Valued(x.tensor.abs(), x.lead),
    "std": lambda x: Valued(x.tensor.float().std(unbiased=False)),
}
