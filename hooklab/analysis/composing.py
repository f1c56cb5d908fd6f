"""Composition: how much a head reads of what an earlier head writes, from the weights alone.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": the norm of the product of two matrices over the
product of their norms. In rows, as hooklab has them (a head moves `x @ OV`, a query from x matches a key from y by
`x QK yᵀ`):

    queries  ‖OV₁ QK₂‖ / ‖OV₁‖‖QK₂‖        keys  ‖OV₁ QK₂ᵀ‖ / ‖OV₁‖‖QK₂‖        values  ‖OV₁ OV₂‖ / ‖OV₁‖‖OV₂‖

It is 1 where the second head reads exactly the one direction that the first writes, and about 1/√d_model between random
matrices; that baseline is drawn and stands in `.control`. No matrix of d_model × d_model is formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..address import check_index
from ..errors import LayerError, RecordError, did_you_mean
from ..model import ports
from ..model.factored import Factored
from ..model.model import Model
from ..model.writes import gained, norm_behind
from ..records import Scores

KINDS = {"q": "queries", "k": "keys", "v": "values"}
DRAWS = 32


def composition(model: Model, kinds: str | Sequence[str] = "qkv", *, fold: bool = True, seed: int = 0) -> Scores:
    """Composition scores of every pair of heads, the second in a later layer.

    Args:
        model: An open model.
        kinds: Which of `q`, `k`, `v`.
        fold: Move the gains of norms into the weights first, of those that read the stream and of one behind attention
            (Gemma 2, OLMo 2), and leave out the mean where norms take it away, so that heads write and read what they
            really write and read, up to the norms' divisors.
        seed: Of the random baseline.

    Returns:
        Scores [sender receiver], labelled `L0H3` and `L2H1.q`; NaN where the receiver is not later. `.control` holds the
        baseline, the mean over random matrices of the same sizes. Rotations of queries and keys are left out.

    Raises:
        RecordError: another kind than these.

    >>> import hooklab as hl
    >>> scores = composition(hl.load("lab"), "k")
    >>> [cell["receiver"] for cell, _ in scores.top(1)] != [], 0 < float(scores.control.values[0, -1]) < 0.15
    (True, True)
    """
    for kind in kinds:
        if kind not in KINDS:
            raise RecordError(f"composition is through q, k or v, not {kind!r}.{did_you_mean(kind, KINDS)}")
    facts, weights = model.facts, model.W.folded(centre=True) if fold else model.W
    moved = [moving(model, layer, fold=fold) for layer in range(facts.n_layers)]
    matched = [weights.QK(layer) for layer in range(facts.n_layers)]
    senders = [f"L{layer}H{head}" for layer in range(facts.n_layers) for head in range(facts.n_heads)]
    found = np.full((len(senders), facts.n_layers, len(kinds), facts.n_heads), np.nan)
    for first in range(facts.n_layers):
        rows = slice(first * facts.n_heads, (first + 1) * facts.n_heads)
        for second in range(first + 1, facts.n_layers):
            reading = {"q": matched[second], "k": matched[second].T, "v": moved[second]}
            for number, kind in enumerate(kinds):
                found[rows, second, number] = shared(moved[first], reading[kind]).double().cpu().numpy()
    receivers = tuple(f"L{layer}H{head}.{kind}" for layer in range(facts.n_layers) for kind in kinds
                      for head in range(facts.n_heads))
    values = found.reshape(len(senders), -1)
    coords = {"sender": tuple(senders), "receiver": receivers}
    random = baseline(facts.d_model, facts.d_head, seed=seed)
    control = Scores(np.where(np.isnan(values), np.nan, random), ("sender", "receiver"), coords, "fraction", "composition")
    return Scores(values, ("sender", "receiver"), coords, "fraction", "composition", control=control,
                  note="the norm of the product of two heads' matrices over the product of their norms; random matrices "
                       f"give {random:.3g}")


def moving(model: Model, layer: int, head: int | None = None, *, fold: bool) -> Factored:
    """OV of a head, or of all heads of a layer; folded, from what they read to what of their writes is ever read.

    Folded, a norm before attention is in what is read and a norm behind it in what is written, but for what they divide by,
    which is one number for all heads; where norms take the mean of the stream away, nobody reads the mean of a write.
    """
    weights = model.W.folded(centre=True) if fold else model.W
    moved = weights.OV(layer) if head is None else weights.OV(layer, head)
    family = model.layout.family
    unread = ports.centres(family.norm) and family.residual != "post"
    if not fold or not (unread or norm_behind(model, layer, "attn_out")):
        return moved
    right = ports.wide(gained(model, layer, "attn_out", moved.right).detach())
    return Factored(ports.wide(moved.left), right - right.mean(-1, keepdim=True) if unread else right)


def shared(first: Factored, second: Factored) -> Tensor:
    """‖A B‖ / ‖A‖‖B‖ of every matrix A [n …] with every B [m …]: [n m], between 0 and 1."""
    left, right = first.left.float(), second.right.float()
    before = torch.linalg.qr(left).R  # [n r r]: lengths on the left are kept by it
    after = torch.linalg.qr(right.mT).R.mT
    middle = torch.einsum("nrd,mds->nmrs", first.right.float(), second.left.float())
    product = torch.linalg.matrix_norm(torch.einsum("nqr,nmrs,mst->nmqt", before, middle, after))
    return product / (first.norm()[:, None] * second.norm()[None]).clamp_min(torch.finfo(product.dtype).tiny)


def baseline(d_model: int, d_head: int, *, seed: int = 0) -> float:
    """The mean score of random matrices of rank d_head, their factors drawn from a normal distribution."""
    drawn = torch.Generator().manual_seed(seed)

    def one() -> Factored:
        return Factored(torch.randn(DRAWS, d_model, d_head, generator=drawn), torch.randn(DRAWS, d_head, d_model,
                                                                                          generator=drawn))

    return float(shared(one(), one()).mean())


def virtual_head(model: Model, first: tuple[int, int], second: tuple[int, int], *, fold: bool = False) -> Factored:
    """What the second head moves of what the first one moved: OV₁ OV₂, [d_model d_model], never multiplied out.

    `fold` as for `composition`.

    Raises:
        LayerError: a layer or head is out of range, or the second head is not in a later layer.

    >>> import hooklab as hl
    >>> virtual_head(hl.load("lab"), (0, 1), (2, 3))
    Factored(144 × 144, rank 24)
    """
    facts = model.facts
    (a, i), (b, j) = ((check_index(layer, facts.n_layers, "layer"), check_index(head, facts.n_heads, "head"))
                      for layer, head in (first, second))
    if b <= a:
        raise LayerError(f"L{b}H{j} does not come after L{a}H{i}: a virtual head needs a second head in a later layer")
    return moving(model, a, i, fold=fold) @ moving(model, b, j, fold=fold)
