"""Checks of the tutorial on steering: a null, a price, and an edit written as a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.model import Model
from .answers import number_of, tensor_of
from .exercise import Wrong, exercise

HALF = 0.5
CLOSE = 1e-3
PUSHES = """
prompt texts = {texts}
metric loss
run everywhere on texts:
    steer {place} by {half} * {direction}
run ending on texts:
    steer {place} @last by {half} * {direction}
"""


@exercise("07.1", "A fair null")
def fair_null(answer: Any, direction: Tensor) -> str:
    """A random direction with the length of another one.

    Args:
        answer: [d_model].
        direction: The direction that it stands beside, [d_model].

    Right is a vector of the same length whose cosine with the direction is one that random draws have, and whose numbers are
    spread over its dimensions as those of a draw are.
    """
    direction = direction.detach().float()
    size = direction.numel()
    value = tensor_of(answer, (size,), "d_model")
    if not value.norm() > 0:
        raise Wrong("This is the zero vector. Adding it changes nothing: that null would hold for anything.")
    cosine = float(torch.cosine_similarity(value, direction, dim=0))
    if abs(cosine) > 0.99:
        raise Wrong("This is the direction itself, or the same turned round. A null must know nothing of it: draw it.")
    ratio = float(value.norm() / direction.norm())
    if abs(ratio - 1) > 0.01:
        raise Wrong(f"Its length is {ratio:.3g} times that of the direction. A push that is weaker or stronger is no fair "
                    "comparison: bring both to one length.")
    if abs(cosine) > 5 / size**0.5:
        raise Wrong(f"Its cosine with the direction is {cosine:.2f}, far more than draws in {size} dimensions have. "
                    "Something of the direction is still in it.")
    if float((value.abs() > 0.01 * value.abs().max()).float().mean()) < 0.5:
        raise Wrong("Most of its numbers are 0 or nearly so: that is one special direction, and not one drawn at random.")
    return (f"A draw with a cosine of {cosine:.2f}; in {size} dimensions it spreads by about {size**-0.5:.2f} around 0. "
            "One draw is one null: several say how far chance goes.")


@exercise("07.2", "The bill")
def bill(answer: Any, model: Model, place: str, direction: Tensor, texts: Sequence[str]) -> str:
    """By how much half the direction, added at the last token only, raises the loss on some texts.

    Args:
        answer: A number, in nats per token.
        model: An opened model.
        place: The site that is steered.
        direction: [d_model].
        texts: The texts.

    Right is the loss with the push less that without, to a ten-thousandth of a nat.
    """
    value = number_of(answer)
    plain, everywhere, last = _losses(model, place, direction, texts)
    truth = last - plain
    if abs(value - truth) < CLOSE / 10:
        return ("A bill of nothing, because nobody is asked to pay: what is written at the last token changes only "
                "predictions of what comes after it. Where a side effect cannot show, none will.")
    if abs(value - last) < CLOSE:
        raise Wrong("That is a loss, with or without the push. What the push adds is asked for: a difference.")
    if abs(value - (everywhere - plain)) < CLOSE:
        raise Wrong("That is the price of pushing at every token. Here the push acts at one token of each text.")
    if value < truth - CLOSE / 10:
        raise Wrong("That is a gain. Which of the two losses has to be taken from the other, and were both on the same "
                    "texts?")
    raise Wrong("That is too much. Does the push act at the last token and nowhere else? And which tokens of the text does "
                "the loss ask about that come after it?")


@exercise("07.3", "Remove it without taking sides")
def erasing(answer: Any, model: Model) -> str:
    """A function that sets the part along a direction to that of a middle point, and leaves the rest.

    Args:
        answer: `erase(x, d, middle)`: x [... d_model], d [d_model] of any length, middle [d_model].
        model: An opened model; its width is used.

    Right is what gives, on drawn numbers, x moved along d alone to where the middle lies.
    """
    if not callable(answer):
        raise Wrong("A function is asked for: define erase(x, d, middle), then answer = erase, without calling it.")
    width = model.facts.d_model
    draw = torch.Generator().manual_seed(0)
    d, middle = 3 * torch.randn(width, generator=draw), torch.randn(width, generator=draw)
    for shape in ((2, 5, width), (3, width), (width,)):
        _judge(answer, torch.randn(shape, generator=draw), d, middle)
    return ("Only the part along d moves, and it moves to the middle. To make the two sides alike is one aim, to put them "
            "between the two another; say which one an ablation was meant for.")


def _judge(erase: Callable[..., Any], x: Tensor, d: Tensor, middle: Tensor) -> None:
    """Compare one call with the definition, and say what is wrong about it."""
    before = x.clone()
    try:
        found = erase(x, d, middle)
    except Exception as error:
        raise Wrong(f"Called with x of shape {tuple(x.shape)}, the function raises {type(error).__name__}: "
                    f"{error}") from None
    if not torch.equal(x, before):
        raise Wrong("The function changes the x that it was given. Return a new tensor: the caller may still need the old "
                    "one.")
    value = tensor_of(found, tuple(x.shape), "... d_model")
    u = d / d.norm()
    along, right = value @ u, x - ((x - middle) @ u)[..., None] * u
    if torch.allclose(value, right, atol=CLOSE):
        return
    if torch.allclose(value, x, atol=CLOSE):
        raise Wrong("What comes out is what went in.")
    across = value - along[..., None] * u, x - (x @ u)[..., None] * u
    if not torch.allclose(*across, atol=CLOSE):
        if torch.allclose(value, middle.expand_as(value), atol=CLOSE):
            raise Wrong("Everything is replaced by the middle point. Only the part along d should be: the rest of x must "
                        "stay.")
        raise Wrong("Something at right angles to d has changed as well. Move x along d and nowhere else.")
    if torch.allclose(along, torch.zeros_like(along), atol=CLOSE):
        raise Wrong("The part along d is 0 now, which is what project_out does. Zero is not where the middle lies.")
    if torch.allclose(along, along.flatten()[0].expand_as(along), atol=CLOSE):
        raise Wrong("The part along d is the same for every x, as it should be, but it is not that of the middle. Is the "
                    "direction brought to length 1 wherever it is used?")
    raise Wrong("The part along d differs from one x to the next. It should be the same for all. d may have any length: is "
                "it brought to length 1?")


def _losses(model: Model, place: str, direction: Tensor, texts: Sequence[str]) -> tuple[float, float, float]:
    """The loss on texts untouched, pushed at every token, and pushed at the last."""
    found = model.run(PUSHES, texts=list(texts), place=place, direction=direction, half=HALF).metrics
    return found["texts"]["loss"], found["everywhere"]["loss"], found["ending"]["loss"]
