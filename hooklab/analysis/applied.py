"""Heads of any weights, applied: to a tensor (`apply_head`), or at a head's place in a running model (`run_head`).

The first is the bare formula. The second lets the model do what is its own between queries and keys: rotation, norms of
queries and keys, windows, caps, sinks, masks of padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..address import check_index
from ..errors import WriteError, did_you_mean
from ..records import Scores
from ..records.drawn import Drawn, Part
from ..runtime.trace import capture
from ..tokens import Tokens
from .watching import read, tokens_of

if TYPE_CHECKING:
    from ..model.model import Model

MOST_DRAWN = 4
"""Prompts of which pictures are made."""
WEIGHTS = ("Q", "K", "V", "O", "b_Q", "b_K", "b_V")


def apply_head(stream: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, *, b_q: Tensor | float = 0.0,
               b_k: Tensor | float = 0.0, b_v: Tensor | float = 0.0, scale: float | None = None,
               causal: bool = True) -> tuple[Tensor, Tensor]:
    """What a head of any weights would do on a stream, with softmax and without rotations.

    Args:
        stream: What the head reads, [batch pos d_model] (already normalised, not padded).
        q: What makes queries, [d_model d_head].
        k: Keys, the same.
        v: Values, [d_model d_value].
        o: [d_value d_model].
        b_q: Added to queries, [d_head].
        b_k: To keys.
        b_v: To values.
        scale: What the scores are multiplied by; 1/√d_head unless given.
        causal: Whether a token sees only itself and what came before.

    Returns:
        The head's write [batch pos d_model] and its pattern [batch query_pos key_pos].

    Raises:
        WriteError: these are no tensors, or do not fit each other.

    >>> stream = torch.eye(3)[None]
    >>> write, pattern = apply_head(stream, *[torch.zeros(3, 3)] * 2, *[torch.eye(3)] * 2)
    >>> pattern[0, 1].tolist()
    [0.5, 0.5, 0.0]
    """
    _check_head(stream, q, k, v, o, b_q, b_k, b_v)
    scores = torch.einsum("bqe,bke->bqk", stream @ q + b_q, stream @ k + b_k)
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    pattern = scores.softmax(-1)
    return pattern @ (stream @ v + b_v) @ o, pattern


def _check_head(stream: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, b_q: Any, b_k: Any, b_v: Any) -> None:
    """Refuse weights that do not fit each other. Raises WriteError."""
    given = {"stream": stream, "q": q, "k": k, "v": v, "o": o}
    if other := [name for name, one in given.items() if not isinstance(one, Tensor)]:
        raise WriteError(f"{other[0]} is a tensor, not {type(given[other[0]]).__name__}")
    if [one.ndim for one in given.values()] != [3, 2, 2, 2, 2]:
        raise WriteError("a stream is [batch pos d_model], and q, k, v and o are matrices; these have the shapes "
                         + ", ".join(f"{name} {tuple(one.shape)}" for name, one in given.items()))
    wide, narrow, value = stream.shape[-1], q.shape[-1], v.shape[-1]
    wanted: dict[str, tuple[int, ...]] = {"q": (wide, narrow), "k": (wide, narrow), "v": (wide, value)}
    wanted |= {"o": (value, o.shape[-1]), "b_q": (narrow,), "b_k": (narrow,), "b_v": (value,)}
    for name, one in (given | {"b_q": b_q, "b_k": b_k, "b_v": b_v}).items():
        shape = tuple(getattr(one, "shape", ()))
        if name in wanted and shape != wanted[name] and not (name.startswith("b_") and not shape):
            raise WriteError(f"{name} has shape {shape}, and {wanted[name]} fits the others")


@dataclass(frozen=True, repr=False)
class HeadRun(Drawn):
    """What a head did.

    Attributes:
        write: What it adds to the stream, [batch pos d_model]; the bias of W_O is no head's.
        pattern: Where it looks, [batch query_pos key_pos].
        tokens: What it ran on; where they differ in length, rows are padded, and `tokens.column` says where they begin.
    """

    write: Tensor
    pattern: Tensor
    tokens: Tokens

    def pictures(self) -> dict[str, Part]:
        """Of the first prompts, without padding: where it looks, [query_pos key_pos], and the length of its write, [pos]."""
        found: dict[str, Part] = {}
        for row, pieces in enumerate(self.tokens.pieces[:MOST_DRAWN]):
            at = self.tokens.column(row, 0) + torch.arange(len(pieces), device=self.pattern.device)
            labels = tuple(f"{i}: {piece}" for i, piece in enumerate(pieces))
            said = "" if len(self.tokens) == 1 else f" {row}"
            pattern, write = self.pattern[row][at][:, at], self.write[row][at].norm(dim=-1)
            found[f"pattern{said}"] = Scores(pattern.detach().double().cpu().numpy(), ("query_pos", "key_pos"),
                                             {"query_pos": labels, "key_pos": labels}, "share", "pattern")
            found[f"write{said}"] = Scores(write.detach().double().cpu().numpy(), ("pos",), {"pos": labels}, "length",
                                           "norm of the write")
        left = len(self.tokens) - MOST_DRAWN
        return found | ({"more": f"{left} prompts more"} if left > 0 else {})


def run_head(model: Model, prompt: Any, layer: int, head: int, *, stream: Tensor | None = None,
             **weights: Tensor | float) -> HeadRun:
    """Run a head of any weights in the place of one of the model's: with its rotation, mask, window and scale.

    Args:
        model: An opened model.
        prompt: Whatever the model takes.
        layer: The layer in whose place the head stands.
        head: The head in whose place it stands.
        stream: What it reads in place of the layer's normalised stream, [batch pos d_model].
        weights: `Q`, `K`, `V` [d_model d_head], `O` [d_head d_model], `b_Q`, `b_K`, `b_V` [d_head], from anywhere; those
            of the head itself unless given. A matrix that is given comes without a bias unless that is given too.

    Returns:
        Its write and its pattern. The model's own pass is not changed by it.

    Raises:
        LayerError: there is no such layer or head.
        WriteError: there is no such weight, or something is of another shape.
        SiteError: the model has no attention of this kind.

    Example:
        >>> import hooklab as hl
        >>> model, prompt = hl.load("lab"), "When Mary and John went to the store"
        >>> other = run_head(model, prompt, 1, 3, Q=model.W.Q[1, 2], b_Q=model.W.b_Q[1, 2])
        >>> other.pattern.shape
        torch.Size([1, 9, 9])
    """
    facts = model.facts
    layer, head = check_index(layer, facts.n_layers, "layer"), check_index(head, facts.n_heads, "head")
    made = read(model, prompt)
    given = _checked(model, weights)
    if stream is not None and not (isinstance(stream, Tensor) and bool(stream.isfinite().all())):
        raise WriteError("stream= is a tensor [batch pos d_model] of finite numbers")
    source = f"L{layer}.{'ln1' if model.sites.missing('ln1') is None else 'resid_pre'}"
    heads = {"q": head, "k": head // (facts.n_heads // facts.n_kv_heads)}
    heads["v"] = heads["k"]
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor) -> None:
        if stream is not None and stream.shape != value.shape:
            raise WriteError(f"the stream that a head of {source} reads has shape {tuple(value.shape)} here, not "
                             f"{tuple(stream.shape)}")
        seen["read"] = value.detach() if stream is None else stream.to(value)

    def put(site: str) -> Any:
        name = site.upper()

        def edit(value: Tensor) -> Tensor | None:
            if stream is None and name not in given and f"b_{name}" not in given:
                return None
            matrix = given.get(name, getattr(model.W, name)[layer, heads[site]])
            own = 0.0 if name in given else getattr(model.W, f"b_{name}")[layer, heads[site]]
            bias = torch.as_tensor(given.get(f"b_{name}", own)).to(value)
            out = value.clone()
            out[:, :, heads[site]] = seen["read"] @ matrix.to(value) + bias
            return out

        return edit

    sites = [f"L{layer}.pattern", f"L{layer}.z"]
    acts = capture(model, made, sites, edits={source: keep, **{f"L{layer}.{site}": put(site) for site in heads}})
    z = acts[sites[1]][:, :, head]
    write = z @ given.get("O", model.W.O[layer, head]).to(z)
    return HeadRun(write, acts[sites[0]][:, head], tokens_of(made))


def _checked(model: Model, weights: dict[str, Tensor | float]) -> dict[str, Tensor]:
    """Weights by name, of the right shapes."""
    wide, narrow = model.facts.d_model, model.facts.d_head
    shapes: dict[str, tuple[int, ...]] = {"O": (narrow, wide), **dict.fromkeys("QKV", (wide, narrow))}
    found = {}
    for name, value in weights.items():
        if name not in WEIGHTS:
            raise WriteError(f"a head has no weight {name!r}.{did_you_mean(name, WEIGHTS)} It has {', '.join(WEIGHTS)}")
        try:
            tensor = torch.as_tensor(value).detach()
        except (TypeError, ValueError, RuntimeError):
            raise WriteError(f"{name} is a tensor, not {type(value).__name__}") from None
        wanted = shapes.get(name, (narrow,))
        if tensor.shape != wanted and (name in shapes or tensor.ndim):
            raise WriteError(f"{name} of a head of this model has shape {wanted}, not {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise WriteError(f"{name} holds what is no finite number")
        found[name] = tensor
    return found
