"""What attention moves, not only where it looks: how much each head writes for each token that it may look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SiteError
from ..records import Activations

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["value_norms"]


def value_norms(model: Any, acts: Activations | Mapping[str, Tensor]) -> dict[int, Tensor]:
    """The length of what each head would add to the stream if it looked at one token alone: ‖v W_O‖.

    A pattern times these numbers is what Kobayashi et al. (Attention is Not Only a Weight, 2020) call norm-based attention:
    a token that gets a large weight but has nothing to say, as the first one often does, stays small. The bias of W_O is
    no token's and is left out; a norm after attention, where a model has one, is not counted.

    Args:
        model: An opened model.
        acts: Values by address, among them `L{layer}.v` [batch pos kv_head d_head] of the layers that are wanted.

    Returns:
        Layer -> [batch head key_pos] float32, padded as the values are.

    Raises:
        SiteError: no values were captured, or the model has no W_O.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> norms = value_norms(model, model.capture("When Mary and John went", "L2.v"))
        >>> tuple(norms[2].shape) == (1, model.facts.n_heads, 6)
        True
    """
    import torch

    layers = {int(key[1:-2]): value for key, value in acts.items() if key.endswith(".v") and key[1:-2].isdigit()}
    if not layers:
        raise SiteError('no values were captured: capture "L*.v" together with the patterns')
    group = model.facts.n_heads // model.facts.n_kv_heads
    found = {}
    for layer, values in sorted(layers.items()):
        out = model.W.O[layer].float()
        # One head at a time: all of them at once are batch × pos × head × d_model numbers.
        sizes = [(values[:, :, head // group].float().to(out.device) @ out[head]).norm(dim=-1)
                 for head in range(model.facts.n_heads)]
        found[layer] = torch.stack(sizes, dim=1).detach()
    return found
