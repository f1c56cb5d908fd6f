"""Exercises of the forward pass: the longest write, a head's values from weights, attention as a function."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ..model.model import Model
from .answers import head_of, place_of, tensor_of
from .exercise import Wrong, exercise

WRITES = ("attn_out", "mlp_out")


def near(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors hold the same numbers, up to rounding."""
    return bool(torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())))


@exercise("01.2", "Values from weights")
def head_values(answer: Any, prompt: str, head: Any, model: Model) -> str:
    """The values of one head at every token, computed from the normalised stream and the weights.

    Args:
        answer: A tensor [pos d_head].
        prompt: The prompt that the exercise gives.
        head: The head that it gives.
        model: The notebook's model.

    Right is what the model itself computes there, bias included.
    """
    (layer, at), weights, facts = head_of(head, model), model.W, model.facts
    sites = {name: f"L{layer}.{name}" for name in ("resid_pre", "ln1", "q", "k", "v", "z")}
    acts = {name: acts[0] for name, acts in zip(sites, model.capture(prompt, list(sites.values())).values(), strict=True)}
    group = at // (facts.n_heads // facts.n_kv_heads)
    values = acts["v"][:, group]
    found = tensor_of(answer, tuple(values.shape), "pos d_head")
    if near(found, values):
        return "A head moves these vectors and nothing else: its pattern says from where, its values say what."
    into, bias = weights.V[layer, group], weights.b_V[layer, group]
    mistakes = {
        "That is the head's z: the values after the pattern has mixed them. Its values are what it mixes.": acts["z"][:, at],
        "These are the head's queries. Values have weights of their own, W.V.": acts["q"][:, at],
        "These are the head's keys. Values have weights of their own, W.V.": acts["k"][:, group],
        "The bias is missing: W.b_V, one vector for all tokens.": values - bias,
        "You read resid_pre. A head reads the stream through the norm before attention: the site ln1.":
            acts["resid_pre"] @ into + bias,
        "You read resid_pre, and left the bias away. A head reads the site ln1, and adds W.b_V.": acts["resid_pre"] @ into,
    }
    for sentence, wrong in mistakes.items():
        if near(found, wrong):
            raise Wrong(sentence)
    if any(near(found, acts["v"][:, other]) for other in range(facts.n_kv_heads)):
        raise Wrong("These are values, of another head than the one that is asked for.")
    raise Wrong("The shape is right and the numbers are not. Take ln1 of this layer and this prompt, W.V and W.b_V of this "
                "head, and let d_model be the axis that disappears.")


@exercise("01.1", "Who writes most?")
def longest_write(answer: Any, prompt: str, model: Model) -> str:
    """The attention or MLP whose write to the stream is longest at the last token.

    Args:
        answer: An address, such as "L2.attn_out" or "L2.mlp_out".
        prompt: The prompt that the exercise gives.
        model: The notebook's model.

    Right is the one of all attn_out and mlp_out whose vector at the last token has the largest norm.
    """
    place = place_of(answer, model)
    if place.site not in WRITES or place.heads is not None:
        raise Wrong(f"{place} is not one of the writes: those are attn_out and mlp_out of every layer.")
    acts = model.capture(prompt, [f"L*.{site}" for site in WRITES])
    lengths = {key: act[0].norm(dim=-1) for key, act in acts.items()}
    last = {key: float(length[-1]) for key, length in lengths.items()}
    if last[place.key] == max(last.values()):
        return ("Long is not yet important: the norms divide by the length of the whole stream, and what a write does "
                "depends on who reads its direction.")
    if place.key == max(lengths, key=lambda key: float(lengths[key].max())):
        raise Wrong(f"{place.key} is longest at another token of the prompt. At the last one it is not.")
    if place.key == max(last, key=lambda key: last[key] if key.endswith(place.site) else 0.0):
        kind, other = ("attentions", "MLPs") if place.site == "attn_out" else ("MLPs", "attentions")
        raise Wrong(f"{place.key} is the longest of the {kind}. Compare it with the {other} as well.")
    longer = sum(length > last[place.key] for length in last.values())
    raise Wrong(f"{place.key} has length {last[place.key]:.1f} at the last token; {longer} other "
                f"{'write is' if longer == 1 else 'writes are'} longer.")


Attention = Callable[[Tensor, Tensor, Tensor], Any]


@exercise("01.3", "Attention in five lines")
def attention_function(answer: Any, model: Model) -> str:
    """A function from queries, keys and values to what each head reads.

    Args:
        answer: A function `attention(q, k, v)`; each argument is [pos head d_head], and so is what it returns, z.
        model: The notebook's model.

    Right is causal attention, scaled by the root of d_head: on random tensors, and on the model's own where it scales so.
    """
    if not callable(answer):
        raise Wrong("A function of q, k and v is asked for: give its name, without calling it.")
    drawn = torch.Generator().manual_seed(0)
    for pos, heads, width in ((6, 3, 4), (1, 2, 8), (5, 5, 5)):
        q, k, v = (torch.randn(pos, heads, width, generator=drawn) for _ in range(3))
        try:
            given = answer(q.clone(), k.clone(), v.clone())
        except Exception as error:
            raise Wrong(f"With q, k and v of shape {(pos, heads, width)} [pos head d_head] your function stops with "
                        f"{type(error).__name__}: {error}") from None
        if torch.is_tensor(given) and torch.isnan(given).any():
            raise Wrong("Some of what it returns is not a number: a softmax of scores that are all -inf has no result. It "
                        "should run over keys, and a token may look at itself.")
        found = tensor_of(given, (pos, heads, width), "pos head d_head")
        if not near(found, attended(q, k, v)):
            raise Wrong(mistaken(found, q, k, v))
    return "This function holds for every layer and head of this model; only the weights before and after it differ."


def attended(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, diagonal: int | None = 1,
             softmax_over: str = "key") -> Tensor:
    """Attention as the exercise asks for it, or with one thing done otherwise: [pos head d_head]."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / (sqrt(q.shape[-1]) if scale is None else scale)
    if diagonal is not None:
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(diagonal).bool(), -torch.inf)
    pattern = scores.softmax({"head": 0, "query": 1, "key": 2}[softmax_over]).nan_to_num(0.0)
    return torch.einsum("hqk,khd->qhd", pattern, v)


def mistaken(found: Tensor, q: Tensor, k: Tensor, v: Tensor) -> str:
    """What was done otherwise, in a sentence."""
    width = q.shape[-1]
    over = "The softmax runs over the wrong axis: for each query, the weights of all keys should add up to 1."
    plain = torch.einsum("qhd,khd->hqk", q, k) / sqrt(width)
    unnormed = torch.einsum("hqk,khd->qhd", plain.tril(), v)
    late = torch.einsum("hqk,khd->qhd", plain.softmax(-1).tril(), v)
    known = [
        ("Tokens look ahead: mask the keys that come after the query.", attended(q, k, v, diagonal=None)),
        ("The scores are not scaled. Divide them by the square root of d_head.", attended(q, k, v, scale=1.0)),
        ("The scores are divided by d_head itself, not by its square root.", attended(q, k, v, scale=float(width))),
        ("The scores are not scaled, and tokens look ahead.", attended(q, k, v, scale=1.0, diagonal=None)),
        ("A token does not look at itself here. It may: mask only what comes after it.", attended(q, k, v, diagonal=0)),
        ("The softmax is missing: scores are not yet a pattern.", unnormed),
        ("The mask comes after the softmax, so that the rows no longer add up to 1. Mask the scores.", late),
        (over, attended(q, k, v, softmax_over="query")),
        (over, attended(q, k, v, softmax_over="head")),
        ("Queries and keys have changed places: a query looks at keys.", attended(k, q, v)),
    ]
    for sentence, wrong in known:
        if near(found, wrong):
            return sentence
    return ("The shape is right and the numbers are not. In order: scores of every query with every key, divided by the "
            "root of d_head; the future masked; a softmax over keys; the mean of the values with those weights.")
