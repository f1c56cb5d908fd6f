"""Values of a plan as expressions, and how they are laid over the entries that they change.

An expression knows what it would evaluate to: whether its first axes are (row, position), and how many axes follow.
Sizes of what Python gave are known too, so all alignment is decided here and the program just computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..compiler.plan.spots import Spot
from ..compiler.plan.values import Act, Const, Fn, FromFile, Given, Op, Sigma
from ..sites import SITES
from .index import PAIRS, Entries, entries, index
from .text import CodeError, Leaf, Text, cat, listed, number, quoted

if TYPE_CHECKING:
    from .program import Base


@dataclass(frozen=True)
class Expr:
    """An expression.

    Attributes:
        text: The code.
        lead: Whether its first two axes are rows and positions.
        rank: Axes after those.
        rows, count: How many rows and positions, when it leads with them.
        tensor: Whether it is a tensor rather than a Python number.
        atom: Whether it can stand in a product without brackets.
        one: Whether the first axis after the lead is of one entry, such as a single head.
    """

    text: Text
    lead: bool = False
    rank: int = 0
    rows: int = 1
    count: int = 1
    tensor: bool = True
    atom: bool = True
    one: bool = False

    @property
    def inner(self) -> Text:
        """The code, in brackets if need be."""
        return self.text if self.atom else cat("(", self.text, ")")


def expression(program: Base, value: Any, cell: int, cells: int) -> Expr:
    """A value at one point of a sweep of `cells` points."""
    if isinstance(value, Const):
        return Expr(cat(number(value.value)), tensor=False, atom=value.value >= 0)
    if isinstance(value, Given):
        return given(program, value)
    if isinstance(value, Act):
        return activation(program, value, cell, cells)
    if isinstance(value, Sigma):
        run = program.plan.run(value.run)
        whole = cat(program.acts(value.run, cell, cells), _key(value.spot), program.real(run))
        return Expr(cat(whole, ".float().std(unbiased=False)"))
    args = [expression(program, arg, cell, cells) for arg in getattr(value, "args", ())]
    if isinstance(value, Op):
        return _operation(value.op, args)
    if isinstance(value, Fn):
        return _function(program, value.name, args)
    raise CodeError("a table of tensors can only be patched from")


def given(program: Base, value: Given) -> Expr:
    """What Python between braces stands for."""
    found = program.plan.values[value.source]
    name = program.hole(value.source)
    text = cat(name)
    if value.pick is not None:
        found = found[value.pick]
        text = cat(name, "[", Leaf("which", str(value.pick), str(value.pick)), "]")
    if isinstance(found, Mapping):
        raise CodeError("a table of tensors can only be patched from")
    return value_of(found, text)


def value_of(found: Any, text: Text) -> Expr:
    """A Python value that `text` stands for."""
    if isinstance(found, Tensor):
        return Expr(text, rank=found.ndim, one=found.ndim > 1 and found.shape[0] == 1)
    if isinstance(found, bool | int | float):
        return Expr(text, tensor=False)
    import numpy as np

    shape = np.shape(found)
    kind = "" if hasattr(found, "dtype") else ", dtype=torch.float32"
    return Expr(cat("torch.as_tensor(", text, kind, ")"), rank=len(shape), one=len(shape) > 1 and shape[0] == 1)


def activation(program: Base, value: Act, cell: int, cells: int) -> Expr:
    """An activation of an earlier run at its positions."""
    spot = value.spot
    if spot.sae is not None:
        raise CodeError("features of a dictionary are not written as code")
    if spot.site in PAIRS:
        raise CodeError("arithmetic on attention is not written as code")
    run = program.plan.run(value.run)
    tokens = program.plan.prompts[run.prompt].tokens
    found = entries(tokens, value.at, len(tokens) * run.samples)
    whole = cat(program.acts(value.run, cell, cells), _key(spot))
    rank = len(SITES[spot.site].axes) - 2
    rows = len(found.columns)
    one = spot.heads is not None and len(spot.heads) == 1
    if found.common is not None:
        exact = found if found.every and len(set(tokens.lengths)) == 1 else replace(found, every=False)
        text = cat(whole, index(exact, spot, program.sizes, keep=True)) if _narrow(exact, spot) else whole
        return Expr(text, True, rank, rows, len(found.common), one=one)
    if len({len(columns) for columns in found.columns}) == 1:
        picked = cat("[", listed(range(rows), 1), ", [", ", ".join(map(listed, found.columns)), "]]")
        count = len(found.columns[0])
    else:  # one flat row, which functions such as mean take
        picked = cat("[", listed(found.rows), ", ", listed(found.flat), "][None]")
        rows, count = 1, len(found.flat)
    parts = index(Entries(((),), 0, True), spot, program.sizes, keep=True)
    return Expr(cat(whole, picked, () if spot.heads is None and spot.units is None else parts), True, rank, rows, count,
                one=one)


def _narrow(found: Entries, spot: Spot) -> bool:
    return not found.every or spot.heads is not None or spot.units is not None


def _key(spot: Spot) -> Text:
    """The key under which a run's dictionary has a site."""
    if spot.layer is None:
        return cat(f'["{spot.site}"]')
    return cat(f'["{spot.site}", ', Leaf("layer", str(spot.layer), str(spot.layer)), "]")


# Arithmetic ---------------------------------------------------------------------------------------------------------


def _operation(op: str, args: list[Expr]) -> Expr:
    if op == "neg":
        return replace(args[0], text=cat("-", args[0].inner), atom=False)
    x, y = args
    first = max(args, key=lambda arg: (arg.lead, arg.rank))
    if (x.lead and y.lead and x.rank != y.rank) or (x.lead != y.lead and max(x.rank, y.rank) > first.rank):
        raise CodeError("the two sides have axes that do not answer to each other")
    return replace(first, text=cat(x.inner, f" {op} ", y.inner), rows=max(x.rows, y.rows), count=max(x.count, y.count),
                   tensor=x.tensor or y.tensor, atom=False, one=x.one and y.one)


def _function(program: Base, name: str, args: list[Expr]) -> Expr:
    x = args[0] if args[0].tensor else replace(args[0], text=cat("torch.tensor(", args[0].text, ")"), atom=True)
    plain = Expr((), rank=x.rank)
    if name in ("mean", "sum"):
        return replace(plain, text=cat(x.inner, f".{name}((0, 1))"), one=x.one) if x.lead else Expr(
            cat(x.inner, f".{name}()"))
    if name in ("max", "min"):
        return replace(plain, text=cat(x.inner, f".a{name}((0, 1))"), one=x.one) if x.lead else Expr(
            cat(x.inner, f".{name}()"))
    if name == "std":
        return Expr(cat(x.inner, ".float().std(unbiased=False)"))
    if name == "abs":
        return replace(x, text=cat(x.inner, ".abs()"), atom=True)
    if name == "norm":
        end = ".norm(dim=-1, keepdim=True)" if x.rank or x.lead else ".abs()"
        return replace(x, text=cat(x.inner, end), atom=True)
    if name == "unit":
        return replace(x, text=cat(program.tool("unit"), "(", x.text, ")"), atom=True)
    y = args[1]
    if name in ("dot", "cos", "proj"):
        wide = max(args, key=lambda arg: (arg.lead, arg.rank))
        return replace(wide, text=cat(program.tool(name), "(", x.text, ", ", y.text, ")"), atom=True)
    raise CodeError(f"{name}(…) is not written as code")


# Laying a value over the entries that it changes ---------------------------------------------------------------------


def laid(x: Expr, spot: Spot, found: Entries, samples: int, size: int) -> tuple[Expr, bool]:
    """A value as it goes to the right of `x[…] =`, and whether `x[…]` must keep all its axes for it."""
    rest = len(SITES[spot.site].axes) - 2
    if spot.site in PAIRS:
        if x.lead or x.rank:
            raise CodeError("a tensor cannot be laid over attention in short code")
        return x, False
    if x.lead and x.rank > rest:
        if not x.one:
            raise CodeError("the value has more axes than the place")
        x = replace(x, text=cat(x.inner, "[:, :, 0]"), rank=x.rank - 1, atom=True)
    ragged = found.common is None and not found.every
    if not x.lead:
        if ragged and x.rank > rest:
            raise CodeError("a value for each position needs as many positions in every example")
        return x, x.rank > 1
    if x.rows not in (1, size * samples):
        if x.rows != size:
            raise CodeError("the value has other examples than the place")
        x = replace(x, text=cat("torch.cat([", x.text, f"] * {samples})"), rows=size * samples, atom=True)
    if ragged:
        x = _entry_by_entry(x, found)
    if x.rank < rest:
        middle = ":, " if ragged else ":, :, "
        x = replace(x, text=cat(x.inner, f"[{middle}{', '.join(['None'] * (rest - x.rank))}]"), atom=True)
    return x, True


def _entry_by_entry(x: Expr, found: Entries) -> Expr:
    """The value of every entry, where rows have entries at different columns."""
    counts = {len(columns) for columns in found.columns}
    if x.count > 1 and counts != {x.count}:
        raise CodeError("the value has other positions than the place")
    rows = found.rows if x.rows > 1 else [0] * len(found.flat)
    places = [n % x.count for n in range(len(found.flat))] if x.count > 1 else [0] * len(found.flat)
    return replace(x, text=cat(x.inner, f"[{listed(rows)}, {listed(places)}]"), atom=True)


# Tables --------------------------------------------------------------------------------------------------------------


def table(program: Base, value: Given | FromFile, spot: Spot) -> tuple[Text, Any] | None:
    """The entry of a table of tensors for a spot, and its value; None when the value is no table."""
    if isinstance(value, FromFile):
        if not Path(value.path).is_file():
            raise CodeError(f"there is no file {value.path}")
        from safetensors.torch import load_file

        tensors: Any = load_file(value.path)
        name = program.file(value.path)
    else:
        tensors = program.plan.values[value.source]
        tensors = tensors if value.pick is None else tensors[value.pick]
        if not isinstance(tensors, Mapping):
            return None
        name = program.hole(value.source) + ("" if value.pick is None else f"[{value.pick}]")
    for key in (str(spot), spot.key):
        try:
            found = tensors[key]
        except LookupError:
            continue
        return cat(name, "[", Leaf("place", quoted(key), quoted(key)), "]"), found
    raise CodeError(f"there is no {spot.key} among the tensors")
