"""The exercises of tutorial 04: the logit lens, and who writes the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..address import check_index
from ..analysis.lens import lens
from ..model.model import Model
from ..spec.printer import quote
from .answers import parts_of, tensor_of, whole_of
from .exercise import Wrong, exercise

SURE = 0.4
PRONOUNS = ("he", "she")


@exercise("04.1", "Where the answer settles")
def settled_layers(answer: Any, model: Model, questions: Mapping[str, str]) -> str:
    """For each question, the first layer from which on the lens's likeliest token is the answer, and stays it.

    Args:
        answer: One layer for each question, in their order, counted from 0; as many as the model has layers where the answer
            never becomes the likeliest for good.
        model: The model.
        questions: Prompt -> answer.

    Right is what `hl.lens(…, "L*.resid_post", value="rank", positions="last")` says: the rank is 0 from this layer on.
    """
    ranks = [lens(model, prompt, answer=said, positions="last", value="rank").values for prompt, said in questions.items()]
    truth = [_settled(row) for row in ranks]
    layers = list(answer.values()) if isinstance(answer, Mapping) and [*answer] == [*questions] else parts_of(answer) or []
    if len(layers) != len(truth):
        raise Wrong(f"One layer for each of the {len(truth)} questions is asked for, in a list such as {[0] * len(truth)}.")
    given = [whole_of(one, 0, model.facts.n_layers) for one in layers]
    for prompt, layer, right, rank in zip(questions, given, truth, ranks, strict=True):
        if layer != right:
            raise Wrong(f'"{prompt}": {_why(layer, right, rank)}')
    spread = "the same layer" if len(set(truth)) == 1 else "not the same layer"
    return f"It is {spread} for all: how deep a model has to go depends on the question."


def _settled(rank: np.ndarray) -> int:
    """The layer behind the last one in which the answer is not first."""
    return int(max((layer + 1 for layer, number in enumerate(rank) if number > 0), default=0))


def _why(layer: int, right: int, rank: np.ndarray) -> str:
    if layer > right:
        return "the answer is first earlier than that. L0.resid_post, the stream after the first layer, is layer 0."
    if rank[layer] == 0:
        return "at this layer the answer is first, but further on another token overtakes it."
    return f"at this layer {int(rank[layer])} tokens are likelier than the answer."


@exercise("04.2", "A head's share, by hand")
def head_shares(answer: Any, model: Model, prompt: str, right: str, wrong: str) -> str:
    """What each head adds to a logit difference at the last token, with the final norm's divisor held.

    Args:
        answer: [layer head], in logits of `right` less those of `wrong`.
        model: The model.
        prompt: One text.
        right: The right token.
        wrong: The one that it is compared with.

    Right is what a head wrote, times the difference of the two columns of the unembedding with the norm's gain folded in,
    over the divisor of the last stream.
    """
    asked: dict[str, Any] = {"answer": right, "wrong": wrong, "positions": "last"}
    truth = lens(model, prompt, "L*H*", norm="frozen", **asked).values
    given = tensor_of(answer, truth.shape, "layer head").numpy()
    if _alike(given, truth):
        return "Every share is one dot product, and with the other components they add up to the logit difference exactly."
    if _alike(given, -truth):
        raise Wrong("The sizes are right and the signs are not: the right token's column less the wrong one's.")
    if _alike(given, lens(model, prompt, "L*H*", norm="own", **asked).values):
        raise Wrong("Here each head has been through the norm by itself, which blows small ones up. Use the last stream's "
                    "divisor for all.")
    factor = float((given * truth).sum() / max(1e-12, (truth * truth).sum()))
    if _alike(given, factor * truth):
        raise Wrong(f"All shares are {factor:.3g} times too large: has each been divided by the last stream's divisor, "
                    "once?")
    if _alike(given, lens(model, prompt, "L*H*", norm="frozen", answer=right, positions="last", value="logit").values):
        raise Wrong("These are shares of the right token's logit. Take the difference to the wrong one's.")
    raise Wrong("These are other numbers. Check the position (the last token), the site (result: the head's own write), and "
                "that the norm's gain is folded into the unembedding.")


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= 0.01 * np.abs(other).max() + 1e-4)


@exercise("04.3", "Sure, and wrong")
def confidently_wrong(answer: Any, model: Model) -> str:
    """A prompt and a layer where the lens is sure of a token that the model does not say.

    Args:
        answer: (prompt, layer): the layer's stream is read at the prompt's last token.
        model: The model.

    Right is any pair for which the lens gives its likeliest token a probability above 0.4 and the model, no less sure,
    says another; but none where the model says "he" or "she", of which the text speaks.
    """
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not isinstance(answer[0], str):
        raise Wrong('A prompt and a layer are asked for, as in ("The capital of France is", 2).')
    layer = check_index(answer[1], model.facts.n_layers, "layer")
    if layer == model.facts.n_layers - 1:
        raise Wrong("After the last layer the lens is the model itself: there it cannot differ from what the model says.")
    found = model.run(f"prompt {quote(answer[0])}\nlens L[{layer},-1].resid_post @last top=1").scores["main.lens"]
    (read, said), (sure, end) = found.labels.reshape(-1), found.values.reshape(-1)  # type: ignore[union-attr]
    if read == said:
        raise Wrong(f'The lens reads "{read.strip()}" there, and that is what the model says.')
    if sure <= SURE:
        raise Wrong(f'The lens reads "{read.strip()}", which is not what the model says, but gives it only {sure:.2f}.')
    if end <= SURE:
        raise Wrong(f"The model itself is not sure: its likeliest token has {end:.2f}. Then a change of mind says little.")
    if said.strip() in PRONOUNS:
        raise Wrong(f'True, but here the model says "{said.strip()}", as in the text. Find one of another kind.')
    return (f'After layer {layer} the lens reads "{read.strip()}" ({sure:.2f}), and the model says "{said.strip()}" '
            f"({end:.2f}). The lens shows where the stream points now, not what the model will do with it.")
