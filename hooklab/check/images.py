"""Checks of the tutorial on images and text: an even spread, where a picture is gathered, how narrow the way is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..analysis.mass import attention_mass
from ..model.model import Model
from .answers import number_of, whole_of
from .exercise import Wrong, exercise

CLOSE = 0.01
CUTS = """
prompt clean = {questions} image={images}
answer {answers} vs {wrong}
metric logit_diff
mark asking = (text | last)
run no_end on clean:
    cut L* @eoi -> @asking
run no_image on clean:
    cut L* @image -> @asking
run neither on clean:
    cut L* @(image | eoi) -> @asking
run gathering on clean:
    cut each L* @image -> @eoi
run reading on clean:
    cut each L* @eoi -> @asking
"""


@exercise("09.1", "How much more than even")
def times_even(answer: Any, model: Model, questions: Sequence[str], images: Sequence[Any], layer: int) -> str:
    """How many times its even share of attention the end of the image gets from the last token.

    Args:
        answer: A number.
        model: An opened model that sees images.
        questions: Texts with room for one image.
        images: One for each.
        layer: The layer.

    Right is the attention from the last token to the end of the image, on average over heads and questions, times the number
    of tokens among which it is divided, to a hundredth of it.
    """
    value = number_of(answer)
    prompt = model.reader.read(list(questions), images=list(images))
    mass = attention_mass(model, prompt, "last", "eoi")
    masses = mass.values[None] if mass.examples is None else mass.examples  # [batch layer head]
    counts = np.asarray([len(ids) for ids in model.tokens(list(questions), images=list(images)).ids], float)[:, None]
    each = (masses.mean(-1) * counts).mean(0)  # [layer]
    truth, share, tokens = float(each[layer]), float(masses[:, layer].mean()), float(counts.mean())

    def near(other: float) -> bool:
        return abs(value - other) <= CLOSE * abs(other)

    if near(truth):
        return (f"{share:.0%} of the attention, where an even spread over {tokens:.0f} tokens gives {1 / tokens:.0%}: "
                f"{truth:.3g} times as much. A share says little until one knows among how many it was divided.")
    for other, words in (
            (share, "That is the share of attention itself. How large would it be if every token got the same?"),
            (1 / truth if truth else np.inf, "That is upside down: more than even should come out above 1."),
            (truth * model.facts.n_heads, "That adds up the heads. Every head has 1 to spend: take their mean."),
            (share * (tokens - 1), "Nearly: a token may look at itself as well, so one more token shares."),
            (100 * truth, "That is in per cent, and a plain ratio is asked for.")):
        if near(other):
            raise Wrong(words)
    if any(near(float(one)) for n, one in enumerate(each) if n != layer):
        raise Wrong("That is the ratio in another layer.")
    raise Wrong("It is another number. Take the attention from the last token to the end of the image, averaged over heads "
                "and questions, and divide it by one over the number of tokens.")


@exercise("09.2", "Where it is gathered")
def gathering_layer(answer: Any, model: Model, questions: Sequence[str], images: Sequence[Any], answers: Sequence[str],
                    wrong: Sequence[str]) -> str:
    """The layer in which the end of the image reads the image.

    Args:
        answer: The number of a layer.
        model: An opened model that sees images.
        questions: Texts with room for one image.
        images: One for each.
        answers: What is right to say next.
        wrong: What they are compared with.

    Right is the layer in which the end of the image may not look at the image, and the logit difference falls the most; it
    has to lose a tenth at least, or there is no such layer.
    """
    layer = whole_of(answer, 0, model.facts.n_layers - 1)
    run = _cut(model, questions, images, answers, wrong)
    clean = run.metrics["clean"]["logit_diff"]
    lost, unread = (clean - run.scores[f"{name}.logit_diff"].values for name in ("gathering", "reading"))
    if not lost.max() > 0.1 * abs(clean):
        raise Wrong("On this model no such cut costs anything, in whatever layer: the end of the image gathers nothing that "
                    "the answer needs, and there is no layer to be found.")
    if layer == int(lost.argmax()):
        return (f"Blind to the picture there, the end of the image costs {lost[layer] / clean:.0%} of the logit difference. "
                "Before, it has nothing to tell; after, it has to be asked.")
    if unread[layer] > 0.5 * abs(clean):
        raise Wrong("In that layer the text looks at the end of the image. The question is when the end itself has "
                    "looked at the picture.")
    costs = f"Cutting there costs {lost[layer] / clean:.0%} of the logit difference"
    if layer > int(lost.argmax()):
        raise Wrong(f"{costs}: by that layer the end holds what it needs.")
    raise Wrong(f"{costs}: it can still look later on.")


@exercise("09.3", "How narrow")
def narrowness(answer: Any, model: Model, null: Model, questions: Sequence[str], images: Sequence[Any],
               answers: Sequence[str], wrong: Sequence[str]) -> str:
    """A function that says how much of the way from image to text leads through the end of the image.

    Args:
        answer: A function of (model, questions, images, answers, wrong) that returns a number.
        model: An opened model that sees images.
        null: One in which the text reads the image's own tokens.
        questions: Texts with room for one image.
        images: One for each.
        answers: What is right to say next.
        wrong: What they are compared with.

    Right is, on both models, what the logit difference loses without the text's sight of the end of the image, over what it
    loses without its sight of the image and its end together, to a fiftieth.
    """
    if not callable(answer):
        raise Wrong("A function is asked for: put its name, without brackets after it.")
    given = questions, images, answers, wrong
    truths = np.array([_narrow(one, *given) for one in (model, null)])
    values = np.array([_asked(answer, one, *given) for one in (model, null)])
    off = abs(values - truths) > 2 * CLOSE
    if not off.any():
        return (f"{truths[0]:.2f} here and {truths[1]:.2f} in the null. Both numbers were needed: a measure that has seen "
                "only what it looks for has not been tested.")
    if abs(values[0] - values[1]) < CLOSE and abs(truths[0] - truths[1]) > 0.1:
        raise Wrong(f"It gives {values[0]:.2f} for both models, which differ in just this. Does it cut anything, and the "
                    "right thing?")
    if (abs(values - (1 - truths)) < 5 * CLOSE).all():
        raise Wrong("It is large where little passes through the end, and small where much does: the parts are exchanged, "
                    "or it counts what is left instead of what is lost.")
    if (abs(values + truths) < 2 * CLOSE).all():
        raise Wrong("Its sign is turned round: a loss is what was there before less what is there after.")
    if abs(values).max() > 1.5:
        raise Wrong(f"It gives {values[0]:.2f} and {values[1]:.2f}: that is no share. Divide by what is lost when the text "
                    "sees neither the image nor its end.")
    where, value = ("this model", values[0]) if off[0] else ("the null", values[1])
    raise Wrong(f"On {where} it should be another number than {value:.2f}. In all layers, from all that asks (the text and "
                "the last token): what is lost without the end, over what is lost without both.")


def _cut(model: Model, questions: Sequence[str], images: Sequence[Any], answers: Sequence[str], wrong: Sequence[str]) -> Any:
    return model.run(CUTS, questions=list(questions), images=list(images), answers=list(answers), wrong=list(wrong))


def _narrow(model: Model, *given: Any) -> float:
    """The share, worked out. Raises Wrong where there is nothing to divide."""
    metrics = {name: one["logit_diff"] for name, one in _cut(model, *given).metrics.items()}
    whole = metrics["clean"] - metrics["neither"]
    if not abs(whole) > 0.05 * max(abs(metrics["clean"]), 1.0):
        raise Wrong("One of the models answers alike with and without its sight of the image: there is nothing to divide.")
    return float((metrics["clean"] - metrics["no_end"]) / whole)


def _asked(function: Callable[..., Any], *given: Any) -> float:
    """What the learner's function gives, or Wrong with what it raised."""
    try:
        found = function(*given)
    except Exception as error:
        raise Wrong(f"It raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    if found is None:
        raise Wrong("The function returns nothing: is there a return?")
    return number_of(found)
