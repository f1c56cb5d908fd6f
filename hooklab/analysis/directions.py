"""Directions as tokens: which tokens a direction of the stream makes likelier, and which ones carry it.

A neuron reads the stream along its column of W_in (of the gate, where there is one) and writes along its row of W_out; a
feature along its encoder and decoder. Writing is seen through the unembedding, reading through the embedding, both with the
norms' gains folded in, one behind the MLP included (the norm's division is left out: it has no direction), and without the
mean where norms take it away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..address import Place, check_index, parse
from ..errors import RecordError, SiteError, did_you_mean
from ..model.model import Model
from ..model.unembedding import check_head
from ..model.writes import gained
from ..records import Scores
from ..runtime.trace import places
from ..sae import SAE, Dictionary, attach
from .asking import whole
from .decomposition import decompose
from .relation_spaces import relations
from .single import single
from .stream import vector_of
from .units import STREAM, units_of

SIDES = ("write", "read")
WRITERS = ("result", "z", "mlp_post")


def token_direction(model: Model, direction: str | Tensor | Any, k: int = 10, *, side: str = "write",
                    lowest: bool = False) -> Scores:
    """The tokens that a direction speaks for.

    Args:
        model: An open model.
        direction: A vector [d_model], or a neuron's address such as `"L3N17"`.
        k: How many tokens.
        side: `"write"`: the tokens whose logits it raises most. `"read"`: those whose embeddings have most of it.
        lowest: The other end of the list.

    Returns:
        Scores [rank], the tokens as `labels`.

    Raises:
        RecordError: another side, more tokens than there are, or a vector of another length.
        SiteError: an address that names no neuron, or more than one; a model whose head is more than a norm and a matrix.

    >>> import hooklab as hl
    >>> model = hl.load("lab")
    >>> token_direction(model, model.W.folded(centre=True).U[:, 7], 1).labels.tolist() == [model.tokenizer.decode([7])]
    True
    """
    _check_side(side)
    k = whole("k", k, 1, model.facts.d_vocab, error=RecordError)
    if side == "write":
        check_head(model)
    weights = model.W.folded(centre=True)
    vector = neuron_direction(model, direction, side) if isinstance(direction, str) else torch.as_tensor(
        vector_of(direction, model.facts.d_model, error=RecordError))
    matrix = weights.U if side == "write" else weights.E.mT
    scores = vector.to(matrix.device, torch.float32) @ matrix.float()
    found = torch.topk(scores, k, largest=not lowest)
    texts = [f"#{i}" if model.tokenizer is None else str(model.tokenizer.decode([i])) for i in found.indices.tolist()]
    return Scores(found.values.double().cpu().numpy(), ("rank",), {"rank": tuple(range(k))},
                  "logits" if side == "write" else "dot product", f"{side}s", labels=np.array(texts, dtype=object))


def _check_side(side: str) -> None:
    if side not in SIDES:
        raise RecordError(f"a direction writes or reads, not {side!r}.{did_you_mean(side, SIDES)} There are "
                          f"{', '.join(SIDES)}.")


def neuron_direction(model: Model, address: str, side: str = "write") -> Tensor:
    """The direction [d_model] that a neuron writes to the stream when it is 1, or reads from the normalised stream.

    Raises:
        SiteError: the address names no neuron, or more than one, or the model has none.
    """
    place = parse(address if "." in address else f"{address}.mlp_post")
    found = places(model, [address if "." in address else f"{address}.mlp_post"]) if place.neurons is not None else []
    if len(found) != 1 or found[0].neurons is None or len(found[0].neurons) != 1 or found[0].layer is None:
        raise SiteError(f"{address} names no single neuron: write L3N17, say.")
    weights, layer, neuron = model.W.folded(centre=True), found[0].layer, found[0].neurons[0]
    if side == "write":
        return gained(model, layer, "mlp_out", weights.Out[layer, neuron]).detach()
    gated = weights.missing("Gate") is None
    return (weights.Gate if gated else weights.In)[layer][:, neuron]


def top_tokens(model: Model, of: Any, k: int = 10, *, side: str = "write", prompt: Any = None, positions: Any = "last",
               at: str | None = None) -> Scores:
    """The tokens that anything which writes to the stream votes up and down most, or reads most and least.

    Args:
        model: An open model.
        of: A vector [d_model]; a neuron, `"L3N17"`; a head, `"L3H2"`; a site of the stream, `"L3.mlp_out"`; a feature of
            a dictionary, `(sae, 12)`.
        k: How many tokens each way.
        side: `"write"`: what it writes, through the unembedding; `"read"`: what it reads, through the embeddings.
        prompt: One text or the ids of one: what a head or a site writes there. A head without a prompt is the strongest
            direction that it moves, the first singular one of its W_V W_O: its sign, and so which tokens are up, is
            arbitrary, but the same when it is read and written.
        positions: Where in the prompt; one position.
        at: The site of a dictionary that does not stand in the stream, such as `"L3.mlp_post"`.

    Returns:
        Scores [vote rank], `vote` being `up` and `down`, the tokens as `labels`.

    Raises:
        RecordError: no such vote can be taken, or `k` is more tokens than there are.
        SiteError: an address that is neither a head, a neuron nor a site of the stream, or several.

    >>> import hooklab as hl
    >>> model = hl.load("lab")
    >>> votes = top_tokens(model, model.W.folded(centre=True).U[:, 7], 1)
    >>> votes.sel(vote="up").labels.tolist() == [model.tokenizer.decode([7])]
    True
    """
    _check_side(side)
    vector, name = _vector_of(model, of, side, prompt, positions, at)
    ends = [token_direction(model, vector, k, side=side, lowest=lowest) for lowest in (False, True)]
    labels = np.stack([np.asarray(end.labels, dtype=object) for end in ends])
    return Scores(np.stack([end.values for end in ends]), ("vote", "rank"), {"vote": ("up", "down")}, ends[0].unit,
                  f"{name} {ends[0].name}".strip(), labels=labels)


def _vector_of(model: Model, of: Any, side: str, prompt: Any, positions: Any, at: str | None) -> tuple[Tensor, str]:
    """The direction [d_model] that something writes or reads, and what it is called."""
    feature = isinstance(of, tuple) and len(of) == 2 and not isinstance(of[0], (int, float))
    if at is not None and not feature:
        raise RecordError("at= says where a dictionary stands, and this is none: leave it out")
    place = _place(model, of) if isinstance(of, str) else None
    varies = place is not None and place.neurons is None
    if prompt is not None and (not varies or side == "read"):
        raise RecordError("only what a head or a site writes depends on a prompt: leave prompt= out")
    if prompt is None and not (isinstance(positions, str) and positions == "last"):
        raise RecordError("positions= are those of a prompt: give prompt= too, or leave them out")
    if feature:
        return _feature(model, of[0], of[1], side, at), f"feature {of[1]}"
    if place is None:
        return torch.as_tensor(vector_of(of, model.facts.d_model, error=RecordError)), ""
    name = str(of)
    if place.neurons is not None:
        return neuron_direction(model, name, side), name
    if place.heads is not None and prompt is None:
        assert place.layer is not None
        u, _, v = relations(model, place.layer, place.heads[0], matrix="OV", top=1)
        return (v if side == "write" else u)[0], name
    if prompt is None:
        raise RecordError(f"what {name} writes depends on the prompt: give prompt=, and positions= if it is not the last")
    if place.heads is not None:
        found = decompose(model, prompt, f"L{place.layer}.resid_post", positions=positions, by="heads")
        return _one(found[f"L{place.layer}H{place.heads[0]}"], positions), name
    return _one(single(model, prompt, [place.key], positions)[place.key], positions), name


def _place(model: Model, address: str) -> Place:
    """The neuron, the head or the site of the stream that an address names."""
    found = places(model, [address])
    if len(found) == 1:
        place = found[0]
        one = next((inner for inner in (place.heads, place.neurons) if inner is not None), None)
        if (one is None and place.site in STREAM) or (one is not None and len(one) == 1 and place.site in WRITERS):
            return place
    raise SiteError(f"{address} is not one writer: name a neuron (L3N17), a head (L3H2) or a site of the stream "
                    "(L3.mlp_out)")


def _one(vectors: Tensor, positions: Any) -> Tensor:
    if len(vectors) != 1:
        raise RecordError(f"positions={positions!r} are {len(vectors)}: tokens are listed for one")
    return vectors[0]


def _feature(model: Model, source: Any, feature: int, side: str, at: str | None) -> Tensor:
    """What a feature of a dictionary writes to the stream, or reads from it, [d_model]."""
    opened = attach(source)
    feature = check_index(feature, opened.n_features, "feature")
    if side == "write":
        units = units_of(model, opened, at or f"L{model.facts.n_layers - 1}.resid_post", [feature])
        if units.writes is None:
            raise RecordError(f"what this feature writes is no direction of the stream{units.note}")
        return units.writes[0]
    if not isinstance(opened, (SAE, Dictionary)):
        raise RecordError(f"what a feature of a {type(source).__name__} reads is not known: its encoder may be anything")
    columns = opened.w_enc.detach()
    if at is not None and places(model, [at])[0].site not in STREAM:
        raise RecordError(f"a dictionary at {at} reads no direction of the stream")
    return columns[:, feature]
