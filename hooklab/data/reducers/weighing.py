"""How much each head writes for each token that it looks at: what a pattern is weighed with before it is added up.

In: a model, for its W_O, and of each example the pattern and the values `v`. Out: A[q,k] · ‖v_k W_O‖, the length of what
head and key add to the stream at the query. Under grouped-query attention heads share their values. Where a model has a
norm behind attention, lengths are those behind it: its gain is in them, and its divisor at each query, which takes `z`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import RecordError
from ...model import ports
from ...model.writes import gained, norm_behind
from ...runtime.trace import places

if TYPE_CHECKING:
    from ...model.model import Model


@dataclass(frozen=True)
class Behind:
    """A norm behind attention, and what gives its input.

    Attributes:
        norm, kind: The norm.
        out: W_O of all heads, [head d_head d_model].
        bias: [d_model]
    """

    norm: nn.Module
    kind: str
    out: Tensor
    bias: Tensor

    def divisor(self, z: Tensor) -> Tensor:
        """What the norm divides by at each query, [query_pos 1], of z [query_pos head d_head]."""
        whole = torch.einsum("qhd,hdm->qm", z, self.out.to(z)) + self.bias.to(z)
        return ports.norm_scale(self.norm, self.kind)(whole)


@dataclass(frozen=True)
class Writes:
    """The lengths of what the heads of a layer write.

    Attributes:
        site: The pattern's address.
        sites: What is needed beside it: the values, and z where there is a norm behind attention.
        shared: Head -> the key and value head that it takes from.
        gram: W_O W_Oᵀ of each head, [head d_head d_head] float64: ‖v W_O‖² is v W_O W_Oᵀ vᵀ, of far fewer numbers.
        behind: The norm behind attention; None in most models.
    """

    site: str
    sites: tuple[str, ...]
    shared: tuple[int, ...]
    gram: Tensor
    behind: Behind | None

    def __call__(self, pattern: Tensor, further: Mapping[str, Tensor], example: str) -> Tensor:
        """The weighed pattern, [head query_pos key_pos] as it came, of v [key_pos kv_head d_head], and z where it is needed.

        Raises:
            RecordError: the pattern and the rest do not come at the same positions.
        """
        for site in self.sites:
            if len(further[site]) != pattern.shape[-1] or len(further[site]) != pattern.shape[-2]:
                raise RecordError(f"{self.site} of example {example!r} has the shape {list(pattern.shape)}, and {site} "
                                  f"comes at {len(further[site])} positions: all are needed of both")
        values = further[self.sites[0]][:, list(self.shared)]
        lengths = torch.einsum("khd,hde,khe->hk", values, self.gram, values).clamp(min=0).sqrt()
        weighed = pattern * lengths[:, None, :]
        return weighed if self.behind is None else weighed / self.behind.divisor(further[self.sites[1]])


def writes(model: Model, site: str) -> Writes:
    """What weighs the pattern of a layer.

    >>> import hooklab as hl
    >>> writes(hl.load("lab"), "L2H1.pattern").sites
    ('L2.v',)

    Raises:
        SiteError: the model has no such pattern, or no W_O.
    """
    (place,) = places(model, [site])
    assert place.layer is not None
    heads = place.heads or tuple(range(model.facts.n_heads))
    group = model.facts.n_heads // model.facts.n_kv_heads
    out, norm = model.W.O[place.layer].detach(), norm_behind(model, place.layer, "attn_out")
    gains = gained(model, place.layer, "attn_out", out[list(heads)]).detach().to("cpu", torch.float64)
    behind = None if norm is None else Behind(norm, model.layout.family.norm, out.cpu(),
                                              model.W.b_O[place.layer].detach().cpu())
    return Writes(str(place), (f"L{place.layer}.v", *([f"L{place.layer}.z"] if behind else [])),
                  tuple(head // group for head in heads), gains @ gains.transpose(1, 2), behind)
