"""Heads that do the same: how alike they are, and what the model does when two become one (Michel et al. 2019 ask the same
of taking heads away)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..address import check_index
from ..model.writes import entering, heads_written
from ..positions import columns
from ..records import Scores
from ..records.drawn import Drawn, Part
from .readwrite import head_writes
from .watching import AttentionError, Seen, averaged, check, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

MERGES = ("z", "weights")


def head_redundancy(model: Model, prompts: Any, kind: str = "merge", *, seed: int = 0, **inputs: Any) -> Scores:
    """How alike the heads of a layer are, pair by pair.

    | kind | 1 means | a number is |
    |---|---|---|
    | `merge` | merging the two changes nothing | 1 − ‖change‖ / ‖what both write‖, when each gets the mean of both z |
    | `pattern` | they look at the same tokens | 1 − half the summed difference of their attention |
    | `write` | they write in the same direction | the cosine of what they write |

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        kind: One of the table; all are means over tokens.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head other_head], symmetric, 1 for a head and itself; `merge` may fall below 0, and `write` is nan for
        heads that write nothing.

    Raises:
        AttentionError: there is no such kind.

    Example:
        >>> import hooklab as hl
        >>> alike = head_redundancy(hl.load("lab"), "When Mary and John went to the store", "pattern")
        >>> alike.axes
        ('layer', 'head', 'other_head')
    """
    check("kind of redundancy", kind, tuple(_ALIKE))
    site, alike = _ALIKE[kind]
    prompt = read(model, prompts, **inputs)
    facts = model.facts
    found = np.full((prompt.size, facts.n_layers, facts.n_heads, facts.n_heads), np.nan)

    def visit(seen: Seen) -> None:
        values = dict(seen.patterns()) if site == "pattern" else {i: seen.of("z", i) for i in seen.examples}
        for example, value in values.items():
            found[example, seen.layer] = alike(model, seen.layer, value).detach().cpu().numpy()

    watch(model, prompt, (site,), visit)
    return averaged(found, ("layer", "head", "other_head"), {}, seed, name=f"redundancy: {kind}")


@contextmanager
def merged_heads(model: Model, layer: int, heads: tuple[int, int], share: float = 0.5, by: str = "z") -> Iterator[Model]:
    """Two heads of a layer as one, in every run until the block ends: one head that writes with the sum of both W_O.

    The weights are not touched: both heads are given the same blended values, which is the same sum. So two heads with the
    same z merge without any change, and afterwards the model is what it was, bit for bit.

    Args:
        model: An open model.
        layer: Which layer.
        heads: Which two.
        share: What the blend takes from the first; the rest is the second's.
        by: `"z"` blends what the heads have gathered, each with its own attention. `"weights"` blends W_Q, W_K and W_V with
            their biases (through q, k and v, which is the same), so that the merged head has one attention; where the two
            share keys and values, W_Q alone.

    Raises:
        LayerError: there is no such layer or head.
        AttentionError: the two are one, the share is not a finite number, or by weights they would change the keys and
            values of other heads.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> with merged_heads(model, 1, (0, 4)):
        ...     z = model.capture("Mary saw John", "L1.z")["L1.z"]
        >>> torch.equal(z[:, :, 0], z[:, :, 4])
        True
    """
    sites = _blended(model, layer, heads, share, by)
    layer = check_index(layer, model.facts.n_layers, "layer")
    with ExitStack() as stack:
        for site, pair in sites.items():
            stack.enter_context(model.hook(f"L{layer}.{site}", partial(_blend, pair=pair, share=share)))
        yield model


@dataclass(frozen=True, repr=False)
class MergeEffect(Drawn):
    """What merging two heads does; each is a mean over examples, with them and an interval in the scores.

    Attributes:
        attn_out: ‖change of attn_out‖ / ‖attn_out‖ in the merged layer.
        logits: The largest change of any logit; None for a model without logits.
        kl: KL divergence of the next token from that of the whole model, in nats; None without logits.
    """

    attn_out: Scores
    logits: Scores | None
    kl: Scores | None

    def pictures(self) -> dict[str, Part]:
        """All that were measured, by their names."""
        return {"attn_out": self.attn_out, "logits": self.logits, "kl": self.kl}


def merge_effect(model: Model, prompts: Any, layer: int, heads: tuple[int, int], share: float = 0.5, by: str = "z", *,
                 positions: Any = "last", seed: int = 0, **inputs: Any) -> MergeEffect:
    """What changes when two heads are merged, at some positions.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        layer: Which layer.
        heads: Which two.
        share: What the blend takes from the first.
        by: `"z"` or `"weights"`; see `merged_heads`.
        positions: Those whose mean is taken.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Raises:
        LayerError, AttentionError: as `merged_heads` does.
        PositionError, TokenError: an example has no such position.

    Example:
        >>> import hooklab as hl
        >>> effect = merge_effect(hl.load("lab"), "When Mary and John went to the store", 1, (0, 4))
        >>> float(effect.kl) >= 0
        True
    """
    prompt = read(model, prompts, **inputs)
    layer = check_index(layer, model.facts.n_layers, "layer")
    sites = [f"L{layer}.attn_out", *(["logits"] if model.sites.missing("logits") is None else [])]
    counts = [len(row) for row in columns(positions, tokens_of(prompt))]
    before = model.capture(prompt, sites, at=positions)
    with merged_heads(model, layer, heads, share, by):
        after = model.capture(prompt, sites, at=positions)

    def scores(name: str, unit: str, each: Tensor) -> Scores:
        mean = np.array([part.mean().item() for part in each.split(counts)])
        return averaged(mean, (), {}, seed, unit=unit, name=name)

    old, new = (acts[sites[0]].double() for acts in (before, after))
    change, whole = (new - old).norm(dim=-1), old.norm(dim=-1)
    moved = scores("change of attn_out", "fraction", torch.where(change > 0, change / whole, 0.0))
    if len(sites) == 1:
        return MergeEffect(moved, None, None)
    old, new = (acts["logits"].double() for acts in (before, after))
    kl = torch.nn.functional.kl_div(new.log_softmax(-1), old.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return MergeEffect(moved, scores("largest change of a logit", "logits", (new - old).abs().amax(-1)),
                       scores("kl", "nats", kl))


def _alike_writes(model: Model, layer: int, z: Tensor) -> Tensor:
    """Over the tokens where both write something; nan where there is none."""
    writes = heads_written(model, layer, head_writes(z, model.W.O[layer].double()))
    loud = (writes.norm(dim=-1) > 0).to(writes)
    writes = torch.nn.functional.normalize(writes, dim=-1)
    return torch.einsum("pam,pbm->ab", writes, writes) / torch.einsum("pa,pb->ab", loud, loud)


def _alike_patterns(model: Model, layer: int, pattern: Tensor) -> Tensor:
    rows = rearrange(pattern, "head query key -> head (query key)")
    return 1 - torch.cdist(rows, rows, p=1) / (2 * pattern.shape[1])


def _alike_merged(model: Model, layer: int, z: Tensor) -> Tensor:
    """Both write from (z_a + z_b) / 2, so together they change by (z_b - z_a) (W_a - W_b) / 2."""
    heads, out = z.shape[1], model.W.O[layer].double().to(z.device)
    result = head_writes(z, out)
    writes, found = heads_written(model, layer, result), torch.ones((heads, heads), dtype=z.dtype, device=z.device)
    together = result.sum(1) + model.W.b_O[layer].to(result)
    for a in range(heads):
        for b in range(a):
            change = ((z[:, b] - z[:, a]) @ (out[a] - out[b]) / 2)[:, None]
            change = entering(model, layer, "attn_out", change, lambda: together)[:, 0].norm(dim=-1).mean()
            whole = (writes[:, a] + writes[:, b]).norm(dim=-1).mean()
            found[a, b] = found[b, a] = 1 - change / whole if change > 0 else 1.0
    return found


def _blended(model: Model, layer: int, heads: Sequence[int], share: float, by: str) -> dict[str, tuple[int, int]]:
    """Site -> the two entries of its head axis that are blended."""
    check("way to merge", by, MERGES)
    facts = model.facts
    check_index(layer, facts.n_layers, "layer")
    if len(heads) != 2:
        raise AttentionError(f"two heads are merged, not {len(heads)}")
    one, other = (check_index(head, facts.n_heads, "head") for head in heads)
    if one == other:
        raise AttentionError(f"head {one} cannot be merged with itself: give two different ones")
    if not math.isfinite(share):
        raise AttentionError(f"share={share}: it is a finite number, 1 for the first head alone")
    if by == "z":
        return {"z": (one, other)}
    group = facts.n_heads // facts.n_kv_heads
    if one // group == other // group and group > 1:
        return {"q": (one, other)}
    if group > 1:
        raise AttentionError(f"heads {one} and {other} read different keys and values, which they share with other heads: "
                             'merge by="z", or two heads of the same group of ' f"{group}")
    return {site: (one, other) for site in ("q", "k", "v")}


def _blend(value: Tensor, pair: tuple[int, int], share: float) -> Tensor:
    one, other = (value[:, :, head].clone() for head in pair)
    value[:, :, list(pair)] = (share * one + (1 - share) * other)[:, :, None]
    return value


_ALIKE: dict[str, tuple[str, Callable[[Model, int, Tensor], Tensor]]] = {
    "merge": ("z", _alike_merged), "pattern": ("pattern", _alike_patterns), "write": ("z", _alike_writes)}
