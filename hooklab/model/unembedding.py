"""The way from the stream to the logits, taken apart: the final norm with its divisor held, and biases by themselves.

With the divisor of the real last stream held, norm and unembedding are linear, so that what the parts of the stream give
adds up to the logits before any soft-cap; the norm's bias and the head's belong to no part and stand apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SiteError
from . import ports
from .layout import HEAD_LAYERS

if TYPE_CHECKING:
    from .model import Model


NORMS = ("own", "frozen", None)
"""How a vector gets through the final norm: by itself, with the last stream's divisor held, or not at all."""


def lens_logits(model: Model, x: Tensor, norm: str | None = "own", last: Tensor | None = None, *, stream: bool = True,
                whole: bool = True, ids: Tensor | None = None) -> Tensor:
    """What vectors [… d_model] say about the next token, [… d_vocab]; with `ids` of these tokens only, [… token].

    Args:
        model: An open model.
        x: Vectors, as they are in the stream.
        norm: One of `NORMS`. Under the first and the last of them the unembedding is the model's own, soft-cap included.
        last: Under the frozen norm: the last stream at the same places, [… d_model].
        stream: Under the frozen norm: whether they are the stream itself, which has the biases of norm and unembedding in
            it, rather than a part of it, which has none.
        whole: Under the frozen norm: whether the logits are to be a prediction, so that a soft-cap acts on the stream's,
            rather than a sum, which it does not act on.
        ids: Tokens [token].
    """
    if norm != "frozen" or last is None:
        final = _final(model) if norm else None
        own: Tensor = model.layout.unembed((x if final is None else final(x)).to(model.dtype), ids)
        return own
    normed = held(model, x, final_divisor(model, last))
    if stream and whole:
        real: Tensor = model.layout.unembed((normed + norm_bias(model).to(normed)).to(model.dtype), ids)
        return real
    share = shares(model, normed, ids)
    return share + logit_bias(model, ids).to(share) if stream else share


def final_divisor(model: Model, last: Tensor) -> Tensor:
    """What the final norm divides the last stream [… d_model] by, [… one]; ones where there is no final norm."""
    norm = _final(model)
    if norm is None:
        return torch.ones_like(last[..., :1])
    return ports.norm_scale(norm, model.layout.family.norm)(last)


def held(model: Model, x: Tensor, divisor: Tensor) -> Tensor:
    """Vectors [… d_model] through the final norm with its divisor held and its bias left out, in float32 at least."""
    norm = _final(model)
    return ports.wide(x) if norm is None else ports.norm_held(norm, model.layout.family.norm, x, divisor)


def norm_bias(model: Model) -> Tensor:
    """The final norm's bias [d_model]; zeros where it has none."""
    if model.W.missing("b_ln_final") is not None:
        return torch.zeros(model.facts.d_model, device=model.device)
    bias: Tensor = model.W.b_ln_final
    return bias


def shares(model: Model, normed: Tensor, ids: Tensor | None = None) -> Tensor:
    """What normed vectors add to the logits before any soft-cap, without the head's bias: [… d_vocab], or [… token]."""
    matrix = model.W.U if ids is None else model.W.U[:, ids.to(model.W.U.device)]
    return normed.to(matrix) @ matrix


def logit_bias(model: Model, ids: Tensor | None = None) -> Tensor:
    """What the final norm's bias and the head's add to the logits of every prediction: [d_vocab], or [token]."""
    bias = model.W.folded().b_U
    return bias if ids is None else bias[ids.to(bias.device)]


def _final(model: Model) -> Any:
    """The final norm; None where there is none. Raises SiteError where it does not lead to the logits."""
    check_head(model)
    path = model.layout.family.ln_final
    return model.layout.module(model.layout.base, path) if path else None


def check_head(model: Model) -> None:
    """Refuse a model whose logits are not those of a norm and a matrix on its last stream. Raises SiteError."""
    if model.layout.family.head_layers:
        raise SiteError(HEAD_LAYERS.format(model.layout.family.name))
    if (reason := model.interleaver.refused.get("ln_final")) is not None:
        raise SiteError(f"The way from the stream to the logits is not known for this model: {reason}. Read logits, which "
                        "are the model's.")
