"""How the values of one site lie in a store: which axes differ from example to example, and what is kept flat.

In: the tensor of one example. Out: the same numbers as `Piece`, ready to stand behind those of the other examples. Nothing
is padded and nothing is cut: where an example is longer, it takes more rows.

    kind      axes                         stored as
    rows      pos d_model                  [token of all examples, d_model], and where each example begins
    single    d_model                      [example, d_model]
    flat      head query_pos key_pos       [number], where each example begins, and the shape of each
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...address import parse
from ...errors import HooklabError, RecordError, did_you_mean
from ...jsontext import encodable
from ...sites import SITES

RAGGED = ("pos", "query_pos", "key_pos", "step")
"""Axes that may have another size in every example."""

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in (
    "float64", "int64", "float32", "int32", "float16", "bfloat16", "int16", "int8", "uint8", "bool", "float8_e4m3fn",
    "float8_e5m2") if hasattr(torch, name)}
"""What can be stored, by name."""


@dataclass(frozen=True)
class Layout:
    """The form of a site's values.

    Attributes:
        axes: Axis words of the value of one example, so without `batch`.
        sizes: Size of each axis, None where examples differ; None as a whole until the first example is there.
        dtype: Name of the type, such as "bfloat16"; None until the first example is there.
        chosen: Whether the type was asked for, so that other floating point numbers are converted to it; where it was not,
            all examples have to come in the type of the first. None lets this follow from `dtype`.
    """

    axes: tuple[str, ...]
    sizes: tuple[int | None, ...] | None = None
    dtype: str | None = None
    chosen: bool | None = None

    def __post_init__(self) -> None:
        """Raises RecordError where axes, sizes and dtype do not go together."""
        object.__setattr__(self, "axes", tuple(self.axes))
        if not all(isinstance(axis, str) and axis.isidentifier() for axis in self.axes) or (
                len(set(self.axes)) < len(self.axes) or "batch" in self.axes):
            raise RecordError(f"axes of one example are different words without batch, not {self.axes}")
        if self.sizes is not None:
            object.__setattr__(self, "sizes", tuple(self.sizes))
            if len(self.sizes) != len(self.axes) or any(
                    (size is None) != (axis in RAGGED) for axis, size in zip(self.axes, self.sizes, strict=True)):
                raise RecordError(f"sizes {self.sizes} do not fit the axes {' '.join(self.axes)}: one number per axis, "
                                  f"and None for {', '.join(RAGGED)}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise RecordError(f"{self.dtype!r} cannot be stored.{did_you_mean(str(self.dtype), DTYPES)} There are "
                              f"{', '.join(DTYPES)}")

    @cached_property
    def kind(self) -> str:
        """`rows`, `single` or `flat`: see the table above."""
        ragged = [axis in RAGGED for axis in self.axes]
        return "single" if not any(ragged) else "rows" if ragged[0] and not any(ragged[1:]) else "flat"

    @cached_property
    def pos_axis(self) -> int | None:
        """Which axis counts the example's tokens, or those among them that were selected."""
        return next((self.axes.index(axis) for axis in ("pos", "query_pos") if axis in self.axes), None)

    @property
    def row(self) -> tuple[int, ...]:
        """Sizes of one stored row: empty for `flat`."""
        if self.kind == "flat" or self.sizes is None:
            return ()
        return tuple(size for size in self.sizes if size is not None)

    def settled(self, value: Tensor) -> Layout:
        """The layout with the sizes and the type of a first value."""
        sizes = tuple(None if axis in RAGGED else n for axis, n in zip(self.axes, value.shape, strict=True))
        return replace(self, sizes=sizes, dtype=self.dtype or name_of(value.dtype))

    def told(self) -> dict[str, Any]:
        """What the manifest says."""
        return {"axes": list(self.axes), "sizes": None if self.sizes is None else list(self.sizes), "dtype": self.dtype,
                "chosen": self.chosen}


@dataclass(frozen=True)
class Piece:
    """The values of one site in one example, as they are stored.

    Attributes:
        values: [row, …] for `rows`, [1, …] for `single`, [number] for `flat`; on the CPU, contiguous, memory of its own.
        shape: The shape it came in.
        positions: The token of each row where those are not simply all of them.
    """

    values: Tensor
    shape: tuple[int, ...]
    positions: tuple[int, ...] | None


def layouts(sites: Iterable[str] | Mapping[str, Any], dtype: str | torch.dtype | None = None) -> dict[str, Layout]:
    """The layout of every site: by its address, or as given.

    Args:
        sites: Addresses; or name -> axis words, or a Layout. A name may be any text without `@`.
        dtype: What values are stored as, unless a Layout says otherwise; None stores them as they come.

    Raises:
        RecordError: a name cannot be used, or its axes are not known.
    """
    word = None if dtype is None else name_of(dtype)
    if not isinstance(sites, Iterable):
        raise RecordError(f"sites={sites!r}: they are addresses, or name -> the words of its axes")
    given = dict(sites) if isinstance(sites, Mapping) else dict.fromkeys([sites] if isinstance(sites, str) else sites)
    if not given:
        raise RecordError("a store needs at least one site")
    made = {}
    for name, axes in given.items():
        if not isinstance(name, str) or not name or "@" in name or name == "__metadata__" or not encodable(name):
            raise RecordError(f"{name!r} cannot name what is stored: a name is text without @")
        if isinstance(axes, str) or not isinstance(axes, Layout | Iterable | None):
            raise RecordError(f"the axes of {name!r} are a list of words, such as ('pos', 'feature'), not {axes!r}")
        found = axes if isinstance(axes, Layout) else Layout(_axes(name) if axes is None else tuple(axes))
        found = found if found.dtype else replace(found, dtype=word)
        made[name] = found if found.chosen is not None else replace(found, chosen=found.dtype is not None)
    return made


def _axes(name: str) -> tuple[str, ...]:
    try:
        address = parse(name)
    except HooklabError as error:
        raise RecordError(f"{error} To store something else than a site, give its axes: {{{name!r}: ('pos', 'feature')}}."
                          ) from None
    if address.heads or address.neurons or (address.layers is not None and not address.layers.isdigit()):
        raise RecordError(f"{name} is a part of a site or more than one: give one address per layer, such as "
                          f"L0.{address.site}, or the axes: {{{name!r}: ('pos', 'd_model')}}")
    return SITES[address.site].axes[1:]


def name_of(dtype: str | torch.dtype) -> str:
    """The name of a type that can be stored. Raises RecordError for another."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise RecordError(f"{name} cannot be stored.{did_you_mean(name, DTYPES)} There are {', '.join(DTYPES)}")
    return name


def piece(site: str, layout: Layout, value: Tensor, n_tokens: int | None, positions: Sequence[int] | None,
          room: Callable[[Sequence[int], torch.dtype], Tensor] = lambda shape, dtype: torch.empty(tuple(shape), dtype=dtype),
          ) -> Piece:
    """The value of one example, checked and copied into the form of the layout, which must be settled.

    Args:
        site: Its name.
        layout: Its form.
        value: Axes as in the layout.
        n_tokens: Of the example, where it has tokens.
        positions: The tokens its rows belong to, where they are not all.
        room: Memory for the copy, of a shape and a type.

    Raises:
        RecordError: axes, sizes or type do not fit, there are not as many rows as tokens, or a number would become
            infinite in the type that is stored.
    """
    assert layout.sizes is not None and layout.dtype is not None
    shape = tuple(value.shape)
    if any(size not in (None, n) for size, n in zip(layout.sizes, shape, strict=True)):
        before = tuple(n if size is None else size for size, n in zip(layout.sizes, shape, strict=True))
        raise RecordError(f"{site} has {_shape(layout, shape)}; in the examples before it {_shape(layout, before)}")
    chosen = _positions(site, layout, shape, n_tokens, positions)
    if not layout.chosen and name_of(value.dtype) != layout.dtype:
        raise RecordError(f"{site} comes as {name_of(value.dtype)}, and in the examples before it as {layout.dtype}: "
                          f"convert it, or begin the store with dtype={layout.dtype!r}")
    kept = _converted(site, value.detach() if value.requires_grad else value, room(shape, DTYPES[layout.dtype]))
    flat = kept.reshape(-1) if layout.kind == "flat" else kept.unsqueeze(0) if layout.kind == "single" else kept
    return Piece(flat, shape, chosen)


def checked_axes(site: str, layout: Layout, value: Any) -> None:
    """Raises RecordError unless it is a tensor with one axis per word."""
    if not isinstance(value, Tensor):
        raise RecordError(f"{site} must be a tensor, not {type(value).__name__}")
    if value.ndim != len(layout.axes):
        raise RecordError(f"{site} has shape {tuple(value.shape)}; the value of one example has the axes "
                          f"{' '.join(layout.axes)} (no batch)")


def _positions(site: str, layout: Layout, shape: tuple[int, ...], n_tokens: int | None,
               positions: Sequence[int] | None) -> tuple[int, ...] | None:
    if "key_pos" in layout.axes and n_tokens is not None and shape[layout.axes.index("key_pos")] != n_tokens:
        raise RecordError(f"{site} has {shape[layout.axes.index('key_pos')]} key positions for {n_tokens} tokens")
    if layout.pos_axis is None:
        return None
    rows = shape[layout.pos_axis]
    if positions is None:
        if n_tokens is not None and rows != n_tokens:
            raise RecordError(f"{site} has {rows} positions for {n_tokens} tokens: nothing is cut or padded here. Where "
                              "only some were captured, say which: positions=[…]")
        return None
    chosen = tuple(int(p) for p in positions)
    if len(chosen) != rows:
        raise RecordError(f"{site} has {rows} positions, and {len(chosen)} were named")
    if any(p < 0 or (n_tokens is not None and p >= n_tokens) for p in chosen):
        raise RecordError(f"positions {chosen} are not all among the {n_tokens} tokens, counted from 0")
    return None if chosen == tuple(range(n_tokens or 0)) else chosen


def _converted(site: str, value: Tensor, kept: Tensor) -> Tensor:
    """The value, copied into memory of its own in the type that is stored."""
    dtype = kept.dtype
    if value.dtype == dtype:
        return kept if kept is value else kept.copy_(value)
    if not (value.dtype.is_floating_point and dtype.is_floating_point):
        raise RecordError(f"{site} comes as {name_of(value.dtype)} and is stored as {name_of(dtype)}: convert it yourself "
                          "if that is meant")
    kept.copy_(value)
    if torch.finfo(dtype).max < torch.finfo(value.dtype).max and bool(
            (~kept.float().isfinite()).sum() > (~value.isfinite()).sum().cpu()):
        largest = value.float().abs().nan_to_num(posinf=0).max().item()
        raise RecordError(f"{site} holds numbers up to {largest:.3g}, too large for "
                          f"{name_of(dtype)}: store it as bfloat16 or float32")
    return kept


def _shape(layout: Layout, shape: tuple[int, ...]) -> str:
    return " · ".join(f"{axis} {n}" for axis, n in zip(layout.axes, shape, strict=True)) or "one number"
