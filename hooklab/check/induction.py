"""Exercises of induction: find the heads, count how many may go, and rewire the head that feeds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..analysis.heads import head_scores
from ..model.model import Model
from .answers import head_of, heads_of, tensor_of, whole_of
from .exercise import Wrong, exercise

LEAST, MARGIN = 0.4, 0.05
SHARE = 0.25
MOST = 0.8


@exercise("03.1", "Find the induction heads")
def induction_heads(answer: Any, model: Model) -> str:
    """All heads that spend more than 0.4 of their attention where an induction head would look.

    Args:
        answer: A list of heads, such as ["L2H5", "L3H0"].
        model: The notebook's model.

    Right is the set of heads whose induction score on random tokens, repeated once, is above 0.4; a head within 0.05 of
    that line may be in it or not. Where there is none, it is the empty list.
    """
    scores = head_scores(model, kind="induction").values
    if isinstance(answer, (list, tuple)) and not answer and scores.max() < LEAST + MARGIN:
        return "Indeed, this model has none."
    found = set(heads_of(answer, model))
    for layer, head in sorted(found, key=lambda at: scores[at]):
        if scores[layer, head] > LEAST - MARGIN:
            break
        name, others = f"L{layer}H{head}", head_scores(model, kind=["previous", "duplicate", "first"]).values[:, layer, head]
        if others[0] > LEAST:
            raise Wrong(f"{name} looks at the token before, not at what followed the earlier copy: it is one step short. "
                        "You will meet it again below.")
        if others[1] > LEAST:
            raise Wrong(f"{name} looks at the earlier copy itself. What is asked for looks one token further on.")
        raise Wrong(f"{name} spends {scores[layer, head]:.2f} of its attention on what followed the earlier copy. That is "
                    f"not more than {LEAST}." + (" Did you list all heads?" if len(found) >= scores.size else ""))
    if missing := sum(score > LEAST + MARGIN and at not in found
                      for at, score in zip(_places(scores.shape), scores.flat, strict=True)):
        raise Wrong(f"What you list is right, but {missing} {'head is' if missing == 1 else 'heads are'} missing. "
                    "`top(1)` shows the strongest only; ask for more, and keep those above the line.")
    return (f"{len(found)} {'head' if len(found) == 1 else 'heads'}. A score says where a head looks, and not yet that the "
            "model needs it.")


def _places(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(shape[0]) for head in range(shape[1])]


@exercise("03.2", "How many may go?")
def heads_to_remove(answer: Any, heads: Sequence[Any], prompts: Sequence[Any], right: Sequence[Any], model: Model) -> str:
    """How many heads must be held at their mean, in the order given, until fewer than a quarter of answers are right.

    Args:
        answer: A whole number; 0 if it stays at a quarter or above even without all of them.
        heads: Heads, in the order in which they go.
        prompts: Prompts, as text or ids.
        right: The right next token of each.
        model: The notebook's model.
    """
    value = whole_of(answer, 0, len(heads))
    names = ["L{}H{}".format(*head_of(head, model)) for head in heads]
    runs = "".join(f"run without{k} on main:\n    ablate {', '.join(names[:k])} with mean per=all\n"
                   for k in range(1, len(names) + 1))
    run = model.run("prompt {prompts}\nanswer {right}\nmetric rank\n" + runs, prompts=list(prompts), right=list(right))
    stages = ["main", *(f"without{k}" for k in range(1, len(names) + 1))]
    left = [float((run.examples[stage]["rank"] == 0).mean()) for stage in stages]
    truth = next((k for k, share in enumerate(left) if k and share < SHARE), 0)
    if value == truth:
        gone = f"without {truth} it is {left[truth]:.0%}" if truth else f"and without all of them it is {left[-1]:.0%}"
        return f"Without the best alone {left[1]:.0%} are right, {gone}. They share the work; taking one away hides it."
    if value == 0:
        raise Wrong("There is a number of heads that is enough. Take more of them away.")
    if left[value] < SHARE:
        raise Wrong(f"Without the first {value} fewer than a quarter are right, but fewer heads do that already.")
    raise Wrong(f"Without the first {value} still {left[value]:.0%} are right.")


@exercise("03.3", "A model that repeats itself")
def repeating_pattern(answer: Any, prompts: Sequence[Sequence[int]], head: Any, model: Model) -> str:
    """A pattern for the previous-token head under which the model gives the last token again.

    Args:
        answer: A tensor [query_pos key_pos]: for each token, how it spreads its attention over itself and those before.
        prompts: Random tokens whose beginning is repeated, as lists of ids of one length.
        head: The previous-token head.
        model: The notebook's model.

    Right is a pattern (rows add up to 1, none looks ahead) under which the likeliest next token is the prompt's last one, in
    more than 0.8 of the prompts.
    """
    ids = torch.tensor([list(row) for row in prompts])
    size = ids.shape[1]
    layer, at = head_of(head, model)
    given = pattern_of(answer, size)
    acts = model.capture([list(row) for row in prompts], "logits", at="last",
                         edits={f"L{layer}H{at}.pattern": lambda old: given.to(old).expand_as(old)})
    said = acts["logits"].reshape(len(ids), -1).argmax(-1).cpu()
    last = ids[:, -1]
    again = float((said == last).float().mean())
    if again > MOST:
        return (f"{again:.0%} of the prompts end in a stutter. The heads above copy whatever stands where \"it was before "
                'you" is written; you have rewritten that note.')
    earlier = (ids[:, :-1] == last[:, None]).float().argmax(-1)  # where the last token came first
    for steps, sentence in STEPS.items():
        wanted = ids[torch.arange(len(ids)), (earlier + steps).clamp(0, size - 1)]
        if float((said == wanted).float().mean()) > 0.5:
            raise Wrong(sentence)
    raise Wrong(f"The last token comes again after {again:.0%} of the prompts. Ask for each token what note it should "
                "carry, so that the heads above, which look for a note that names the present token, rest on its copy.")


STEPS = {
    1: "The model copies on, as it always does. With this pattern the head writes what it wrote before.",
    2: "The model skips one token. Your head looks too far back: see what that does to the copy, and go the other way.",
    3: "The model skips two tokens. Your head looks too far back: see what that does to the copy, and go the other way.",
    4: "The model skips three tokens. Your head looks too far back: see what that does to the copy, and go the other way.",
}
"""How far behind the earlier copy the model's word stands -> what happened."""


def pattern_of(answer: Any, size: int) -> torch.Tensor:
    """A pattern of one head.

    Raises:
        Wrong: it has another shape, a row does not add up to 1, or a token looks ahead.
    """
    given = tensor_of(answer, (size, size), "query_pos key_pos")
    if (given < 0).any():
        raise Wrong("Attention is never negative.")
    if float(given.triu(1).abs().max()) > 0:
        query, key = (int(i) for i in given.triu(1).nonzero()[0])
        raise Wrong(f"Token {query} looks ahead, at token {key}. Rows are queries, columns keys; what lies right of the "
                    "diagonal has to be 0.")
    if not torch.allclose(given.sum(-1), torch.ones(size), atol=1e-3):
        row = int((given.sum(-1) - 1).abs().argmax())
        raise Wrong(f"Row {row} adds up to {float(given[row].sum()):.2f}. Each token has one unit of attention to give.")
    return given
