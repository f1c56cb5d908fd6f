"""`early_exit` and `skip_layers`: what a model would say if it stopped after a layer, or went without some.

Stopping after layer l means that the stream behind it goes straight to the final norm, so it is the logit lens there;
going without a layer is `surgery.skip`: the layer adds nothing, and those behind it see what is then there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..address import check_index
from ..errors import PromptError
from ..positions import resolve
from ..records import Scores
from . import surgery
from .lens import lens
from .lens_values import VALUES, LensError, chosen, ids_of, measured
from .predictions import check
from .watching import averaged

if TYPE_CHECKING:
    from ..model.model import Model

Layers = int | Iterable[int]


def early_exit(model: Model, prompt: Any, *, value: str | None = None, answer: Any = None, wrong: Any = None,
               positions: Any = "last", seed: int = 0) -> Scores:
    """What the model would say if the blocks behind each layer were left out; after the last layer it is the model itself.

    Args:
        model: A model that predicts the next token.
        prompt: Text, ids, or a list of them.
        value: `"kl"` from the model's own prediction, `"agreement"` with its likeliest token, or any other of `lens`. By
            default the answer's probability, its logit_diff where there is a wrong answer, and kl without an answer.
        answer: The right next token.
        wrong: The wrong one that it is compared with.
        positions: Where it is read: a position, or `"each"`.
        seed: Draws the intervals over several prompts.

    Returns:
        Scores [layer], or [layer pos].

    Raises:
        LensError, PredictionError, PositionError: as `lens` does.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.exits import early_exit
        >>> found = early_exit(hl.load("lab"), "When Mary and John went to the store, John gave a drink to")
        >>> found.axes, bool(abs(found.values[-1]) < 1e-6)
        (('layer',), True)
    """
    named = _value(value, answer, wrong)
    return lens(model, prompt, "L*.resid_post", value=named, answer=answer, wrong=wrong, positions=positions, seed=seed)


def skip_layers(model: Model, prompt: Any, layers: Sequence[Layers] | None = None, *, value: str | None = None,
                answer: Any = None, wrong: Any = None, positions: Any = "last", seed: int = 0) -> Scores:
    """What the model says without some of its layers, each choice by itself.

    Args:
        model: A model that predicts the next token; it is not changed.
        prompt: Text, ids, or a list of them.
        layers: Choices: a layer, or several that are skipped together, as in `[3, (3, 4), range(5, 8)]`; every layer by
            itself unless given.
        value: As for `early_exit`.
        answer: The right next token.
        wrong: The wrong one that it is compared with.
        positions: Where it is read; several positions are averaged.
        seed: Draws the intervals over several prompts.

    Returns:
        Scores [layer] where each choice is one layer, else [site] with names such as `L[3,4]`.

    Raises:
        LensError: there is no choice, no such value, or `positions="each"`.
        LayerError: there is no such layer.
        ModelError: the architecture's layers cannot be silenced; see `surgery.skip`.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.exits import skip_layers
        >>> skip_layers(hl.load("lab"), "When Mary and John went to", [0, (1, 2)]).coords["site"]
        ('L0', 'L[1,2]')
    """
    check(model, 1)
    if isinstance(positions, str) and positions == "each":
        raise LensError('what is left without a layer is read at a position, such as positions="last", or over several.')
    name = _value(value, answer, wrong)
    if layers is not None and (isinstance(layers, str) or not isinstance(layers, Iterable)):
        raise LensError(f"layers= is a list of choices, such as [3, (3, 4)], not {layers!r}.")
    choices = [_choice(model, one) for one in (range(model.facts.n_layers) if layers is None else layers)]
    if not choices or not all(choices):
        raise LensError("there is no layer to skip: layers= holds an empty choice.")
    known = model.capture(prompt, "logits", at=positions)
    if known.tokens is None:
        raise PromptError("embeddings have no tokens that positions could be counted on: give text or ids.")
    at = resolve(positions, known.tokens)
    rows = torch.tensor([i for i, row in enumerate(at) for _ in row])
    ids = [ids_of(model, token, len(at))[rows] for token in (answer, wrong)]
    starts = np.cumsum([0, *map(len, at)])
    found = []
    for choice in choices:
        with surgery.skip(model, choice) as other:
            logits = other.capture(prompt, "logits", at=positions)["logits"]
        numbers = measured(name, logits, ids[0], ids[1], known["logits"]).cpu().numpy()
        found.append([numbers[a:b].mean() for a, b in pairwise(starts)])
    single = all(len(choice) == 1 for choice in choices) and len({choice[0] for choice in choices}) == len(choices)
    labels = tuple(choice[0] if single else _label(choice) for choice in choices)
    axis = "layer" if single else "site"
    return averaged(np.array(found).T, (axis,), {axis: labels}, seed, unit=VALUES[name].unit, name=name,
                    note="without these layers, which add nothing to the stream")


def _value(value: str | None, answer: Any, wrong: Any) -> str:
    """The value that is meant, the answer's probability by default."""
    if value is None and answer is not None and wrong is None:
        return "prob"
    return chosen(value, answer, wrong, "kl")


def _choice(model: Model, given: Layers) -> list[int]:
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    return sorted({check_index(one, model.facts.n_layers, "layer") for one in several})


def _label(choice: list[int]) -> str:
    return f"L{choice[0]}" if len(choice) == 1 else f"L[{','.join(map(str, choice))}]"
