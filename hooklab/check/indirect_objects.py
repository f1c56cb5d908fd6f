"""The exercises of tutorial 05: pairs of prompts, patching both ways, and a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..analysis.sweep import sweep
from ..model.model import Model
from .answers import Head, heads_of, tensor_of
from .exercise import Wrong, exercise

FAITHFUL = 0.9


@exercise("05.1", "A corrupted prompt")
def corrupted_prompt(answer: Any, model: Model, clean: str, right: str, wrong: str) -> str:
    """A prompt that differs from the clean one in one token, and whose answer is the other name.

    Args:
        answer: The text.
        model: The model.
        clean: The prompt after which `right` follows.
        right: The name that is right after the clean prompt, as a token.
        wrong: The other one.

    Right is a prompt of as many tokens, all but one the same, with both names in it, in which the token that differs is one
    of them, and after which the model prefers the other name.
    """
    if not isinstance(answer, str):
        raise Wrong("A text is asked for.")
    answer = answer.strip()
    tokens = model.tokens([clean, answer])
    before, after = tokens.pieces
    if len(before) != len(after):
        raise Wrong(f"The clean prompt has {len(before)} tokens, yours {len(after)}: patching compares position with "
                    "position.")
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    if not changed:
        raise Wrong("This is the clean prompt itself: nothing differs, so nothing can be traced.")
    if len(changed) > 1:
        raise Wrong(f"{len(changed)} tokens differ. Whatever a patch then shows could come from any of them: change one.")
    (old, new), = changed
    if not {old.strip(), new.strip()} <= {right.strip(), wrong.strip()}:
        raise Wrong(f'"{old.strip()}" became "{new.strip()}". The question is which of the two names is right, so the '
                    "change has to be about them, and bring in no third one.")
    if gone := [name for name in (right, wrong) if name.strip() not in answer.split()]:
        raise Wrong(f'"{gone[0].strip()}" no longer occurs. A patch could then bring the name itself, not only the '
                    "choice.")
    run = model.run("prompt clean = {clean}\nprompt corrupt = {corrupt}\nanswer {right} vs {wrong}\nmetric logit_diff",
                    clean=clean, corrupt=answer, right=right, wrong=wrong)
    start, end = (run.metrics[name]["logit_diff"] for name in ("clean", "corrupt"))
    if not end < 0 < start:
        raise Wrong(f"One token differs, but the logit difference only goes from {start:.1f} to {end:.1f}: the answer has "
                    "to become the other name.")
    return f"One token differs, and the logit difference turns from {start:+.1f} to {end:+.1f}: all of that is its doing."


@exercise("05.2", "The other direction")
def noised_heads(answer: Any, model: Model, clean: Sequence[str], other: Sequence[str], right: Sequence[str]) -> str:
    """What is left of the right answer's logit when one head of the clean run takes its value from the other prompt.

    Args:
        answer: [layer head], on the scale from the other prompt (0) to the clean one (1).
        model: The model.
        clean: The prompts.
        other: The same with other names.
        right: The answers to the clean ones.

    Right is what `hl.sweep(…, metric="logit", mode="noise")` gives.
    """
    asked: dict[str, Any] = {"sites": "L*H*", "metric": "logit", "answer": list(right)}
    truth = sweep(model, list(clean), list(other), mode="noise", **asked)
    given = tensor_of(answer, truth.shape, "layer head").numpy()
    if _alike(given, truth.values):
        back = sweep(model, list(clean), list(other), **asked).values.max()
        return (f"The strongest head alone gives back {back:.0%} of the way, and the most that the loss of one costs is "
                f"{1 - truth.values.min():.0%}: enough and needed are two questions.")
    if _alike(given, 1 - truth.values):
        raise Wrong("This is what is lost. What is left is asked for: 1 is the clean prompt.")
    back = sweep(model, list(clean), list(other), **asked).values
    if _alike(given, back):
        raise Wrong("Here clean values were put into the other prompt's run. The other way round is asked for.")
    if _alike(given, 1 - back):
        raise Wrong("This is one minus the map of the other direction. It is a guess about this one: run it.")
    if truth.ends is not None and _alike(given, truth.raw.values):
        raise Wrong("These are logits. Put them on the scale from the other prompt (0) to the clean one (1).")
    if given.max() < 0.5:
        raise Wrong("These are changes: a head that does nothing should stand at 1, where the clean prompt is.")
    raise Wrong("These are other numbers. The run starts from the clean prompt, one head at a time takes its value, at all "
                "positions, from the other one, and the metric is the logit of the right name.")


@exercise("05.3", "A circuit that brings the name")
def small_circuit(answer: Any, model: Model, clean: Sequence[str], other: Sequence[str], right: Sequence[str]) -> str:
    """Few heads that do the task while all other heads see a prompt with other names.

    Args:
        answer: The heads.
        model: The model.
        clean: The prompts.
        other: The same with other names.
        right: The answers to the clean ones.

    Right is a set of at most half of all heads that keeps 90 % or more of the way of the right answer's probability from the
    other prompt to the clean one, while every other head takes its value from the other prompt, and in which no head is
    idle: without any one of them less than 90 % is kept. All MLPs stay.
    """
    chosen = heads_of(answer, model)
    total = model.facts.n_layers * model.facts.n_heads
    if len(chosen) > total // 2:
        raise Wrong(f"{len(chosen)} of {total} heads are more than half: a circuit should leave most of the model out.")
    smaller = [[one for one in chosen if one != head] for head in chosen]
    whole, *without = _kept(model, [chosen, *smaller], clean, other, right)
    if not whole >= FAITHFUL:
        raise Wrong(f"These heads keep {whole:.0%} of the way. Something that the answer needs is not among them: what "
                    "brings the name, or what chooses between the two?")
    idle = [head for head, share in zip(chosen, without, strict=True) if share >= FAITHFUL]
    if idle:
        raise Wrong(f"They keep {whole:.0%}, but {len(idle)} of the {len(chosen)} could each go, and the rest would still "
                    f"keep {FAITHFUL:.0%}. Take the idlest out and look again.")
    return (f"{len(chosen)} of {total} heads keep {whole:.0%}, and every one is needed. Other contrasts ask other "
            "questions: a circuit is one for a task, a metric and a corrupted prompt.")


def _kept(model: Model, circuits: list[list[Head]], clean: Sequence[str], other: Sequence[str],
          right: Sequence[str]) -> list[float]:
    """The share that each circuit keeps."""
    lines = ["prompt clean = {clean}", "prompt other = {other}", "answer {right}", "metric prob"]
    for number, heads in enumerate(circuits):
        but = f" except {', '.join(f'L{layer}H{head}' for layer, head in heads)}" if heads else ""
        lines += [f"run circuit{number} on clean:", f"    patch L*H*{but} from other"]
    found = model.run("\n".join(lines), clean=list(clean), other=list(other), right=list(right)).metrics
    zero, one = found["other"]["prob"], found["clean"]["prob"]
    if not abs(one - zero) > 1e-6:
        raise Wrong("The answer is as likely after both prompts, so nothing can be said to bring it.")
    return [(found[f"circuit{number}"]["prob"] - zero) / (one - zero) for number in range(len(circuits))]


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= 0.01 * np.abs(other).max() + 1e-4)
