"""The first look of `model.verify()`: is each site there at all, and has it the size that its name says?

A table may name a module that exists and is another one. Arithmetic cannot even begin with a value of the wrong size,
so sites are measured in the bare forward pass, by plain hooks on the modules that the table names; a site that does
not fit is left out of all other checks, with a line that says which row names what and which sizes met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..ports import Port, first_input, first_output

if TYPE_CHECKING:
    from ..layout import Layout

INNER = ("rot_q", "rot_k", "scores", "pattern")
HELD = {"resid_pre": "blocks", "resid_post": "blocks", "result": "o", "ln1_scale": "ln1", "ln2_scale": "ln2",
        "ln_final_scale": "ln_final", **dict.fromkeys(INNER, "attn")}
FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "mlp_pre": "gate_up", "mlp_pre_linear": "gate_up"}
WHENCE = {"d_head": "o", "d_mlp": "down"}
"""Sizes that are read off a module that the table names, rather than off the config."""

Seen = dict[str, tuple[tuple[int, ...] | None, str]]
"""Location of a port -> the site's shape (None where it could not be cut out) and what the module gave, in words."""


@contextmanager
def measured(layout: Layout) -> Iterator[Seen]:
    """Measure every site that a module carries, in the forward pass that runs inside."""
    seen: Seen = {}
    modules = {layout.native(module): module for module in layout.hf.modules()}
    handles = []
    for port in layout.all_ports:
        path, _, side = (port.source or "").rpartition(".")
        if side == "input":
            handles.append(modules[path].register_forward_pre_hook(_before(port, seen), with_kwargs=True))
        elif side == "output":
            handles.append(modules[path].register_forward_hook(_after(port, seen)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _before(port: Port, seen: Seen) -> Callable[..., None]:
    return lambda module, args, kwargs: _note(port, seen, (args, kwargs))


def _after(port: Port, seen: Seen) -> Callable[..., None]:
    return lambda module, args, output: _note(port, seen, output)


def _note(port: Port, seen: Seen, value: Any) -> None:
    try:
        shape = tuple(port.take(value).shape)
    except Exception:  # whatever it is that this module gives, the site cannot be cut out of it
        shape = None
    seen[port.location] = shape, _in_words(port, value)


def _in_words(port: Port, value: Any) -> str:
    side = str(port.source).rpartition(".")[2]
    try:
        whole = first_input(value) if side == "input" else first_output(getattr(value, "logits", value))
    except (LookupError, TypeError):
        whole = None
    if not isinstance(whole, Tensor):
        return f"whose {side} is no hidden state"
    return f"whose {side} has {whole.shape[-1]} numbers per token" if whole.ndim else f"whose {side} is one number"


def misfits(layout: Layout, seen: Seen, length: int, inner: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Site -> why it is not what its name says, as far as sizes tell.

    Args:
        layout: Of the model.
        seen: What `measured` found.
        length: Tokens of the prompt.
        inner: Address -> shape of the tensors inside attention, as far as there are any.
    """
    found: dict[str, str] = {}
    sizes = _sizes(layout, length, inner)
    for port in layout.all_ports:
        if port.site in found:
            continue
        if port.source is None:
            shape, words = inner.get(port.address), "which computes no attention that can be read"
        elif port.location not in seen:
            shape, words = None, "which the model never calls"
        else:
            shape, words = seen[port.location]
        wanted = tuple(sizes[axis] for axis in port.axes)
        fits = shape is not None and _same(shape, wanted, port) and _whole_fits(layout, port, words, sizes)
        if not fits:
            found[port.site] = _sentence(layout, port, shape, words, sizes)
    return found


def _sizes(layout: Layout, length: int, inner: dict[str, tuple[int, ...]]) -> dict[str, int | None]:
    """Axis word -> size; None where any size will do."""
    facts = layout.facts
    heads = {shape[-1] for address, shape in inner.items() if address.endswith(".rot_q")}  # what attention computes with
    return dict(batch=1, pos=length, query_pos=length, key_pos=None, head=facts.n_heads, kv_head=facts.n_kv_heads,
                d_model=facts.d_model, d_head=heads.pop() if len(heads) == 1 else facts.d_head,
                d_mlp=facts.d_mlp, d_vocab=None, one=1)


def _same(shape: tuple[int, ...], wanted: tuple[int | None, ...], port: Port) -> bool:
    if len(shape) == len(wanted) - 1 and port.axes[:2] == ("batch", "pos"):  # batch and pos folded into one axis
        wanted = wanted[1:]
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


def _whole_fits(layout: Layout, port: Port, words: str, sizes: dict[str, int | None]) -> bool:
    """Whether a fused projection has as many numbers as its parts together."""
    whole = _whole(layout, port, sizes)
    return whole is None or words.endswith(f" has {whole[1]} numbers per token")


def _whole(layout: Layout, port: Port, sizes: dict[str, int | None]) -> tuple[str, int] | None:
    """What a fused projection should give, in words and as a number; None where the site's module is not fused."""
    role = FUSED.get(port.site)
    if role is None or getattr(layout.family, role) is None:
        return None
    if role == "gate_up":
        return "2 · d_mlp", 2 * (sizes["d_mlp"] or 0)
    return "(head + 2 · kv_head) · d_head", ((sizes["head"] or 0) + 2 * (sizes["kv_head"] or 0)) * (sizes["d_head"] or 0)


def row_of(layout: Layout, site: str) -> str:
    """The row of the family's table that says where a site is."""
    fused = FUSED.get(site)
    if fused is not None and getattr(layout.family, fused) is not None:
        return fused
    return HELD.get(site) or layout.carriers.get(site, (site, ""))[0]


def named(layout: Layout, row: str) -> str:
    """A row as the table has it: `gate = 'mlp.gate_proj'`."""
    return f"{row} = {getattr(layout.family, row, None)!r}"


def _sentence(layout: Layout, port: Port, shape: tuple[int, ...] | None, words: str,
              sizes: dict[str, int | None]) -> str:
    row = row_of(layout, port.site)
    path = str(port.source).rpartition(".")[0] if port.source else ""
    module: Any = layout.role(port.layer or 0, "attn") if port.source is None else next(
        m for m in layout.hf.modules() if layout.native(m) == path)
    start = f"{named(layout, row)} names {type(module).__name__}, {words}"
    if port.source is None:
        return start if shape is None else f"{start[:start.index(', ')]}, whose {port.site} has the shape {list(shape)}"
    if " numbers per token" not in words:
        return start
    whole = _whole(layout, port, sizes)
    axes = [axis for axis in port.axes if axis not in ("batch", "pos", "one")] or ["d_model"]
    if port.site == "result":  # cut out of z
        axes = ["head", "d_head"]
    if whole is not None:
        wanted = f"{whole[0]} = {whole[1]}"
    else:
        total = f" = {math.prod(sizes[axis] or 0 for axis in axes)}" if len(axes) > 1 else ""
        wanted = " · ".join(f"{axis} {sizes[axis]}" for axis in axes) + total
    return f"{start}; {port.site} needs {wanted}{_origin(layout, axes, row, sizes)}"


def _origin(layout: Layout, axes: list[str], row: str, sizes: dict[str, int | None]) -> str:
    """Where the size that a site needs comes from, when that is another row of the table."""
    for axis in axes:
        source = WHENCE.get(axis)
        if source is None or source == row or getattr(layout.family, source) is None:
            continue
        if axis == "d_head":
            given = layout.facts.d_head
            other = "" if given == sizes[axis] else f", though attention computes with {sizes[axis]}"
            return f" ({named(layout, source)} makes d_head {given}{other})"
        return f" (what {named(layout, source)} takes)"
    return ""
