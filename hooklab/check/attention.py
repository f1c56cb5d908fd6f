"""Exercises of attention: find a head by eye, reckon with scores, write one row of a pattern by hand."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import torch

from ..analysis.heads import head_scores
from ..model.model import Model
from ..positions import resolve
from .answers import head_of, heads_of, number_of
from .exercise import Wrong, exercise

KINDS = {
    "first": "spends {:.0%} of its attention on the first token: it rests there",
    "current": "looks at the token itself ({:.0%}), not at the one before",
    "induction": "looks ({:.0%}) at what followed the same word earlier",
}
TIE = 0.05


@exercise("02.1", "The head that looks one token back")
def previous_token_head(answer: Any, prompt: str, model: Model) -> str:
    """The head that looks from every token to the one before it.

    Args:
        answer: One head, as "L2H5" or (2, 5).
        prompt: The text in which to look.
        model: The notebook's model.

    Right is the head that spends most on the token before, on average over the text's tokens, or one within 0.05 of it.
    """
    layer, head = head_of(answer, model)
    name, scores = f"L{layer}H{head}", head_scores(model, prompt, "previous").values
    if scores[layer, head] >= scores.max() - TIE:
        return (f"It spends {scores[layer, head]:.0%} of its attention one token back, whatever the words are. "
                "Notebook 03 shows what it is good for.")
    for kind, sentence in KINDS.items():
        try:
            share = float(head_scores(model, prompt, kind).values[layer, head])
        except LookupError:  # no token comes twice
            continue
        if share > 0.5:
            raise Wrong(f"{name} {sentence.format(share)}. Look for bright cells just below the diagonal.")
    raise Wrong(f"{name} spends {scores[layer, head]:.0%} of its attention on the token before, and another head spends "
                "more. Look for a picture that has bright cells just below the diagonal and nothing else.")


@exercise("02.2", "Raise a score")
def raised_score(answer: Any, prompt: str, head: Any, key: int, by: float, model: Model) -> str:
    """The attention that the last token would pay to a key if that key's score were higher.

    Args:
        answer: A number between 0 and 1.
        prompt: The prompt that the exercise gives.
        head: The head that it gives.
        key: The position whose score is raised.
        by: By how much.
        model: The notebook's model.
    """
    value = number_of(answer)
    layer, at = head_of(head, model)
    row = model.capture(prompt, f"L{layer}.scores")[f"L{layer}.scores"][0, at, -1].double()
    before = float(row.softmax(-1)[key])
    after, lower = (_moved(before, change) for change in (by, -by))
    if abs(value - after) < 0.005:
        return (f"From {before:.2f} to {after:.2f}: odds are multiplied by e to the {by:g}, and the rest of the row pays "
                "for it. The other keys keep their shares among themselves.")
    if abs(value - before * exp(by)) < 0.005:
        raise Wrong("You multiplied by e to the change, and the row no longer adds up to 1. Every entry of the row is "
                    "divided by their new sum.")
    if abs(value - before) < 0.005:
        raise Wrong("That is the attention as it is now. A softmax of other scores is another row.")
    if abs(value - float(row[key]) - by) < 0.005:
        raise Wrong("That is the new score. The question is for the attention, what the softmax makes of it.")
    if abs(value - lower) < 0.005:
        raise Wrong("That is what a lower score would give. This one is raised.")
    if not 0 <= value <= 1:
        raise Wrong("Attention lies between 0 and 1, whatever the score.")
    raise Wrong(f"Attention changes here from {before:.3f} to something else. Take the row of scores, change one entry, and "
                "put it through a softmax.")


def _moved(share: float, by: float) -> float:
    """A share of a softmax after its score has moved."""
    return share * exp(by) / (1 - share + share * exp(by))


@exercise("02.3", "One head is enough")
def turning_heads(answer: Any, prompt: str, right: str, wrong: str, key: Any, model: Model) -> str:
    """The heads of which one alone turns the answer when its last row is written by hand.

    Args:
        answer: A list of heads, or an empty one where there is none.
        prompt: The prompt that the exercise gives.
        right: The answer of the untouched model.
        wrong: The other answer.
        key: The position, or a selector such as '" Mary"', on which the row puts all attention.
        model: The notebook's model.

    Right is the list of all heads for which `wrong` gets a higher logit than `right`.
    """
    tokens = model.tokens(prompt)
    (position,) = resolve(key, tokens)[0]
    row = torch.zeros(len(tokens.pieces[0]))
    row[position] = 1.0
    run = model.run("prompt {prompt}\nanswer {right} vs {wrong}\nmetric logit_diff\nset each L*H*.pattern @last to {row}",
                    prompt=prompt, right=right, wrong=wrong, row=row)
    left = np.asarray(run.scores["hooked.logit_diff"].values)
    truth = {(int(layer), int(head)) for layer, head in np.argwhere(left < 0)}
    empty = isinstance(answer, (list, tuple)) and not answer
    found = set() if empty else set(heads_of(answer, model))
    if extra := sorted(found - truth, key=lambda head: -left[head]):
        layer, head = extra[0]
        more = f"; {len(extra)} of your list are so" if len(extra) > 1 else ""
        raise Wrong(f"With this row in L{layer}H{head} alone the difference is {left[layer, head]:.2f}: the answer does not "
                    f"turn{more}.")
    if missing := len(truth - found):
        raise Wrong(f"What you name is right, and {missing} more {'head does' if missing == 1 else 'heads do'} it too."
                    if found else "There are such heads. Look for cells below 0 in the map.")
    if not truth:
        return "Indeed, no single head of this model does it: the work is shared, or done elsewhere."
    return (f"{len(truth)} of {left.size} heads, each by itself: what they read at the last token, the rest of the model "
            "takes for who gave.")
