"""Ports: how one site of one layer is cut out of what a module receives or returns, and put back.

A port names the native value that carries its site (`model.transformer.h.0.attn.c_attn.output`), how to `take` the
site's tensor from that value, and how to `put` a changed tensor back. Sites that are no part of any single value
(`result`, the norm scales) instead turn a change into a correction of a `later` value of the same block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

Take = Callable[[Any], Tensor]
Put = Callable[[Any, Tensor], Any]


@dataclass(frozen=True, eq=False)
class Port:
    """Where one site of one layer is served.

    Attributes:
        site: Site name; `layer` is None for sites of the whole model.
        location: The name under which blocks and plans ask for it: `model.transformer.h.0.z`.
        source: The native location that carries it; None for the tensors inside the attention function.
        axes: Axis words of the tensor.
        take: Native value -> the site's tensor.
        put: Native value, changed tensor -> native value.
        later: Native location that a change corrects instead of the source; then `correct` makes the correction.
        correct: (native source value, old, new) -> (later value -> later value).
    """

    site: str
    layer: int | None
    location: str
    source: str | None
    axes: tuple[str, ...]
    take: Take
    put: Put
    later: str | None = None
    correct: Callable[[Any, Tensor, Tensor], Callable[[Any], Any]] | None = None

    @property
    def address(self) -> str:
        """The site's address, as users write it."""
        return self.site if self.layer is None else f"L{self.layer}.{self.site}"


# What a module receives or returns ------------------------------------------------------------------------------


def first_input(value: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    """The hidden states among a module's (args, kwargs)."""
    args, kwargs = value
    return args[0] if args else kwargs["hidden_states"]


def with_first_input(value: tuple[tuple[Any, ...], dict[str, Any]], new: Tensor) -> Any:
    """(args, kwargs) with other hidden states."""
    args, kwargs = value
    return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})


def first_output(value: Any) -> Tensor:
    """The hidden states among what a module returns: a tensor, or the first of a tuple."""
    return value if isinstance(value, Tensor) else value[0]


def with_first_output(value: Any, new: Tensor) -> Any:
    """The same return value with other hidden states."""
    return new if isinstance(value, Tensor) else (new, *value[1:])


LOGITS = ("logits", "prediction_logits")
"""Names under which outputs of transformers keep the logits of tokens."""


def logits_of(value: Any) -> Tensor:
    """Logits among what the whole model returns."""
    name = next((name for name in LOGITS if hasattr(value, name)), None)
    return value[0] if name is None else getattr(value, name)


def with_logits(value: Any, new: Tensor) -> Any:
    """The model's return value with other logits."""
    for name in LOGITS:
        if hasattr(value, name):
            setattr(value, name, new)
            return value
    return (new, *value[1:])


def into_stream(value: Any, new: Tensor) -> Any:
    """Change the tensor in place: the block holds a second reference to it, the skip path."""
    first_input(value).copy_(new)
    return value


GRIPS: dict[str, tuple[Take, Put]] = {
    "input": (first_input, with_first_input),
    "output": (first_output, with_first_output),
    "logits": (logits_of, with_logits),
    "stream": (first_input, into_stream),
}

# Parts of a projection's output ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of a projection's last axis, shaped into heads.

    `select` returns a view of the whole; `grouped` says that the view has (kv_head, group) where the site has head.
    """

    select: Callable[[Tensor], Tensor]
    grouped: bool = False

    def take(self, whole: Tensor) -> Tensor:
        """The part as [batch pos head d_head] (or [batch pos d_mlp])."""
        view = self.select(whole)
        return rearrange(view, "b p kv g d -> b p (kv g) d") if self.grouped else view

    def put(self, whole: Tensor, new: Tensor) -> Tensor:
        """A copy of the whole with this part replaced."""
        out = whole.clone()
        target = self.select(out)
        target.copy_(new.reshape(target.shape) if self.grouped else new)
        return out


def heads(d_head: int) -> Part:
    """The whole, split into heads."""
    return Part(lambda x: x.unflatten(-1, (-1, d_head)))


def span(start: int, stop: int, d_head: int | None = None) -> Part:
    """Columns start to stop, split into heads when `d_head` is given."""
    if d_head is None:
        return Part(lambda x: x[..., start:stop])
    return Part(lambda x: x[..., start:stop].unflatten(-1, (-1, d_head)))


def fused_part(which: str, packing: str, n_heads: int, n_kv: int, d_head: int) -> Part:
    """The query, key or value part of a fused projection; see `Family.packing` for the layouts."""
    group = n_heads // n_kv
    edge = {"q": (0, n_heads), "k": (n_heads, n_heads + n_kv), "v": (n_heads + n_kv, n_heads + 2 * n_kv)}[which]
    if packing in ("concat", "multi_query"):
        return span(edge[0] * d_head, edge[1] * d_head, d_head)
    if packing == "per_head":
        row = "qkv".index(which)
        return Part(lambda x: x.unflatten(-1, (n_heads, 3, d_head))[..., row, :])
    rows = {"q": slice(0, group), "k": slice(group, group + 1), "v": slice(group + 1, group + 2)}[which]
    return Part(lambda x: x.unflatten(-1, (n_kv, group + 2, d_head))[..., rows, :], grouped=True)


def through(grip: str, part: Part | None = None) -> tuple[Take, Put]:
    """`take` and `put` for a part of what a grip holds."""
    get, set_ = GRIPS[grip]
    if part is None:
        return get, set_
    return (lambda value: part.take(get(value))), (lambda value, new: set_(value, part.put(get(value), new)))


def clipped(take: Take, limit: float) -> Take:
    """`take` of a value that the model then keeps between -limit and limit: what it goes on with."""
    return lambda value: take(value).clamp(-limit, limit)


HEADS_FIRST: tuple[Take, Put] = (lambda x: rearrange(x, "b h p d -> b p h d"),
                                 lambda value, new: rearrange(new, "b p h d -> b h p d"))
"""`take` and `put` for the tensors inside attention, which carry heads before positions."""


def scaled(take: Take, put: Put, factor: float) -> tuple[Take, Put]:
    """`take` and `put` for a value that the model carries multiplied by `factor`."""
    return (lambda value: take(value) / factor), (lambda value, new: put(value, new * factor))


# Sites that no single value carries -------------------------------------------------------------------------------


def wide(x: Tensor) -> Tensor:
    """A tensor in float32, or in its own type where that is wider: what norms compute in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def centres(kind: str) -> bool:
    """Whether a kind of norm takes the mean out first."""
    return kind.startswith("layer")


def norm_scale(norm: torch.nn.Module, kind: str) -> Callable[[Tensor], Tensor]:
    """x -> what the norm divides by, in float32 at least: [batch pos one]."""
    eps = norm_eps(norm, kind)

    def scale(x: Tensor) -> Tensor:
        x = wide(x)
        if centres(kind):
            return (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        return (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    return scale


def norm_eps(norm: torch.nn.Module, kind: str = "rms") -> float:
    """The norm's epsilon, under whichever name it keeps it; torch's own where a layer norm keeps none."""
    for name in ("eps", "variance_epsilon"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    return 1e-5 if centres(kind) else 0.0


def norm_gain(norm: torch.nn.Module, kind: str) -> Tensor | float:
    """The norm's gain, [d_model], in float32 at least."""
    weight = getattr(norm, "weight", None)
    if weight is None:
        return 1.0
    return wide(weight) + 1.0 if kind.endswith("1p") else wide(weight)


def norm_held(norm: torch.nn.Module, kind: str, x: Tensor, divisor: Tensor) -> Tensor:
    """x [… d_model] through a norm whose divisor [… one] is held, and without its bias: linear in x. In float32 at least."""
    x = wide(x)
    centred = x - x.mean(-1, keepdim=True) if centres(kind) else x
    return centred / divisor.to(x) * torch.as_tensor(norm_gain(norm, kind)).to(x)


def scale_correction(norm: torch.nn.Module, kind: str) -> Callable[[Any, Tensor, Tensor], Callable[[Any], Any]]:
    """What a changed divisor does to the norm's output."""

    def correct(value: Any, old: Tensor, new: Tensor) -> Callable[[Any], Any]:
        x = wide(first_input(value)).reshape(*old.shape[:-1], -1)
        centred = x - x.mean(-1, keepdim=True) if centres(kind) else x
        weighted = centred * norm_gain(norm, kind)
        # A difference, so that an unchanged divisor corrects by exactly zero.
        change = weighted / new - weighted / old
        return lambda out: out + change.reshape(out.shape).to(out.dtype)

    return correct


def head_results(z: Tensor, w_o: Tensor) -> Tensor:
    """Each head's own write: [batch pos head d_model] from z and W_O [head d_head d_model]."""
    return torch.einsum("bphd,hdm->bphm", z, w_o.to(z.dtype))


def result_correction(bias: Tensor | None, factor: float = 1.0) -> Callable[[Any, Tensor, Tensor], Callable[[Any], Any]]:
    """What changed head writes do to the output of `o`, which has a bias and is multiplied by `factor` afterwards.

    Where a write changed, the output is the new sum; elsewhere it keeps its bits. Adding the difference instead would
    leave rounding behind, which a norm that comes next blows up where the new sum is zero.
    """

    def correct(value: Any, old: Tensor, new: Tensor) -> Callable[[Any], Any]:
        changed = (new != old).flatten(2).any(-1, keepdim=True)
        total = new.sum(2) / factor
        difference = (new - old).sum(2) / factor  # which carries gradients where nothing changed
        total = total if bias is None else total + bias.to(total)

        def output(out: Any) -> Any:
            shape = out.shape
            return torch.where(changed.reshape(*shape[:-1], 1), total.reshape(shape), out + difference.reshape(shape))

        return output

    return correct
