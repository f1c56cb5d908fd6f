"""Heads taken out for as long as a block runs: `ablated_heads`.

It is the same edit as `ablate L1H3.z` of the language, for everything that is done with the model in between: captures,
traces, runs, generation. `prune` gives a second model instead, without heads or neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import RecordError, did_you_mean
from .pruning import Unit, by_layer

if TYPE_CHECKING:
    from ..model.model import Model

KINDS = ("zero", "mean")


@contextmanager
def ablated_heads(model: Model, heads: Unit | Iterable[Unit], by: str = "zero", *, over: Any = None) -> Iterator[Model]:
    """The model with heads that say nothing (zero) or always the same (mean), in every run until the block ends.

    What a head gathered, z, is replaced before W_O. The weights are not touched, and afterwards the model is what it was,
    bit for bit.

    Args:
        model: An open model.
        heads: Addresses such as `"L1H3"`, `"L2H[0,1]"`, `"L*H0"`, or pairs (layer, head).
        by: `"zero"`, or `"mean"`: the mean of z over all tokens of `over`.
        over: Prompts for the mean.

    Raises:
        LayerError: there is no such layer or head.
        SiteError: an address names something else.
        RecordError: there is no such ablation, or prompts for the mean are missing, or given for none.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> with ablated_heads(model, "L1H3"):
        ...     z = model.capture("Mary saw John", "L1.z")["L1.z"]
        >>> bool(z[:, :, 3].any()), bool(z[:, :, 2].any())
        (False, True)
    """
    if by not in KINDS:
        raise RecordError(f"heads are ablated by {' or '.join(KINDS)}, not {by!r}.{did_you_mean(by, KINDS)}")
    if (by == "mean") != (over is not None):
        raise RecordError("a mean is one over prompts: give over=[…]" if by == "mean" else "zero takes no prompts: leave "
                          "over= out, or take by=\"mean\"")
    chosen = by_layer(model, "head", heads)
    means = _means(model, list(chosen), over) if by == "mean" else {}
    with ExitStack() as stack:
        for layer, gone in chosen.items():
            stack.enter_context(model.hook(f"L{layer}.z", _silencer(sorted(gone), means.get(layer))))
        yield model


def _means(model: Model, layers: list[int], over: Any) -> dict[int, Tensor]:
    """Layer -> the mean of z over tokens [head d_head], padding left out."""
    acts = model.capture(over, [f"L{layer}.z" for layer in layers], at="all")
    return {layer: acts[f"L{layer}.z"].double().flatten(0, -3).mean(0) for layer in layers}


def _silencer(heads: list[int], mean: Tensor | None) -> Callable[[Tensor], Tensor]:
    return partial(_silence, heads=heads, mean=mean)


def _silence(z: Tensor, heads: list[int], mean: Tensor | None) -> Tensor:
    z[:, :, heads] = torch.zeros((), dtype=z.dtype, device=z.device) if mean is None else mean[heads].to(z)
    return z
