"""Nodes as tokens: `node_write`, the vector that a node adds to the stream, and `token_inputs`, what drives a neuron.

With `token_direction` a write becomes the tokens that it speaks for and against:

    token_direction(model, node_write(model, prompt, "L2H3 @9"), 5)
    token_direction(model, node_write(model, prompt, "L2H3 @9"), 5, lowest=True)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import Place
from ..errors import RecordError, SiteError
from ..model import ports
from ..model.writes import entering, heads_written, neurons_written, norm_behind
from ..records import Scores
from ..runtime.trace import places
from .asking import whole
from .units import STREAM

if TYPE_CHECKING:
    from ..model.model import Model

PAIR = re.compile(r"^(?P<head>L-?\d+H-?\d+)\.pattern\[(?P<query>-?\d+),\s*(?P<key>-?\d+)\]$")
ROOM = 2**24
"""Numbers of embeddings that are normalised at once."""


def node_write(model: Model, prompt: Any, node: str) -> Tensor:
    """What a node adds to the stream, [d_model], through the norm behind attention or the MLP if there is one (Gemma 2).

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        node: An address with its position, as the tables of `nodes` have it: `"L2H3 @9"`, `"L1N17 @4"`, `"L2.mlp_out @4"`,
            `"embed @2"`, `"L2H3.pattern[9,4]"`. Without a position the last one is meant.

    Raises:
        SiteError: the address names no single head, neuron or place in the stream.
        PositionError: there is no such token.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.node_tokens import node_write
        >>> model = hl.load("lab")
        >>> node_write(model, "When Mary and John went", "L2H3 @2").shape == (model.facts.d_model,)
        True
    """
    if not isinstance(node, str):
        raise SiteError(f'a node is an address such as "L2H3 @9", not {node!r}.')
    if pair := PAIR.match(node.strip()):
        return _of_pair(model, prompt, pair["head"], int(pair["query"]), int(pair["key"]))
    address, _, at = (part.strip() for part in node.partition("@"))
    found = places(model, [address])
    place = found[0]
    single = place.heads is None or len(place.heads) == 1
    single = single and (place.neurons is None or len(place.neurons) == 1)
    if len(found) != 1 or not single or not _writes(place.site, place.neurons is not None):
        raise SiteError(f"{node} is no single node that writes to the stream: write L2H3 @9, L1N17 @4, L2.mlp_out @4, "
                        "embed @2 or L2H3.pattern[9,4].")
    value = ports.wide(model.capture(prompt, address, at=at or "last")[str(place)])
    if len(value) != 1:
        raise SiteError(f"{node} is {len(value)} nodes: name one token of one prompt.")
    return _entered(model, prompt, place, at or "last", value)


def _entered(model: Model, prompt: Any, place: Place, at: str, value: Tensor) -> Tensor:
    """The value of one node as it comes into the stream: a norm on the way divides by what the whole layer writes."""
    layer = place.layer
    if place.neurons is not None:
        assert layer is not None
        if norm_behind(model, layer, "mlp_out") is None:
            return value.reshape(()) * ports.wide(model.W.Out[layer])[place.neurons[0]].to(value)
        mlp_post = ports.wide(model.capture(prompt, f"L{layer}.mlp_post", at=at)[f"L{layer}.mlp_post"])
        return neurons_written(model, layer, mlp_post.reshape(-1), place.neurons)[0]
    if place.heads is not None and layer is not None and norm_behind(model, layer, "attn_out") is not None:
        result = ports.wide(model.capture(prompt, f"L{layer}.result", at=at)[f"L{layer}.result"])
        return heads_written(model, layer, result.reshape(-1, value.shape[-1]), place.heads)[0]
    return value.reshape(-1)


def _writes(site: str, neuron: bool) -> bool:
    return site == "mlp_post" if neuron else site in (*STREAM, "result")


def _of_pair(model: Model, prompt: Any, head: str, query: int, key: int) -> Tensor:
    """A[q,k] v_k W_O."""
    place = places(model, [f"{head}.pattern"])[0]
    assert place.layer is not None and place.heads is not None
    layer, number = place.layer, place.heads[0]
    group = model.facts.n_heads // model.facts.n_kv_heads
    acts = model.capture(prompt, [f"{head}.pattern", f"L{layer}.v", f"L{layer}.result"])
    if len(acts[str(place)]) != 1:
        raise SiteError(f"{head}.pattern[{query},{key}] is a node of each of {len(acts[str(place)])} prompts: take one.")
    pattern, v = ports.wide(acts[str(place)][0, 0]), ports.wide(acts[f"L{layer}.v"][0, :, number // group])
    if not all(-len(v) <= index < len(v) for index in (query, key)):
        raise SiteError(f"{head}.pattern[{query},{key}]: this prompt has {len(v)} tokens.")
    write = pattern[query, key] * (v[key] @ ports.wide(model.W.O[layer, number]).to(v))
    result = ports.wide(acts[f"L{layer}.result"][0, query])  # [head d_model]
    return entering(model, layer, "attn_out", write[None], lambda: result.sum(0) + model.W.b_O[layer].to(result))[0]


# What drives a neuron -------------------------------------------------------------------------------------------------


def token_inputs(model: Model, neuron: str, k: int = 10, *, lowest: bool = False) -> Scores:
    """The tokens whose embedding alone drives a neuron most: its pre-activation when the MLP reads nothing else.

    The embedding goes through the norm before the MLP as it would in a pass, and through the neuron's weights and bias (of
    a gated MLP: the gate's). `token_direction(…, side="read")` has the direction alone, without the norm's division.

    Args:
        model: An opened model.
        neuron: Its address, `"L1N17"`.
        k: How many tokens.
        lowest: The other end of the list.

    Returns:
        Scores [rank], the tokens as `labels`.

    Raises:
        SiteError: the address names no single neuron.
        RecordError: more tokens than there are.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.node_tokens import token_inputs
        >>> token_inputs(hl.load("lab"), "L0N17", 3).shape
        (3,)
    """
    k = whole("k", k, 1, model.facts.d_vocab, error=RecordError)
    found = places(model, [neuron if "." in str(neuron) else f"{neuron}.mlp_post"])
    if len(found) != 1 or found[0].neurons is None or len(found[0].neurons) != 1 or found[0].layer is None:
        raise SiteError(f"{neuron} names no single neuron: write L1N17, say.")
    drive = _driven(model, found[0].layer, found[0].neurons[0])
    best = torch.topk(drive, k, largest=not lowest)
    texts = [f"#{i}" if model.tokenizer is None else str(model.tokenizer.decode([i])) for i in best.indices.tolist()]
    return Scores(best.values.double().cpu().numpy(), ("rank",), {"rank": tuple(range(k))}, "pre-activation",
                  f"tokens that drive {neuron}", labels=np.array(texts, dtype=object))


def _driven(model: Model, layer: int, neuron: int) -> Tensor:
    """Its pre-activation on every embedding, [d_vocab]."""
    weights, family = model.W, model.layout.family
    stem = "Gate" if weights.missing("Gate") is None else "In"
    column = ports.wide(getattr(weights, stem)[layer][:, neuron])
    bias = ports.wide(getattr(weights, f"b_{stem}")[layer][neuron])
    norm = model.layout.role(layer, "ln2")
    if norm is None and family.residual == "parallel":
        norm = model.layout.role(layer, "ln1")
    rows = weights.E.split(max(1, ROOM // model.facts.d_model))
    with torch.no_grad():
        return torch.cat([ports.wide(part if norm is None else norm(part)) @ column.to(part.device) for part in rows]) + bias
