"""Graders: how right an answer is, with the reason. Nothing here runs a model.

In: a `Question` (tasks.py) and the answer found in a reply (answers.py). Out: a `Grade`, from 0 to 1. A grader is any
function (answer, question) -> Grade; GRADERS has those with a name. `potemkin_rate` sums up what a model makes of its own
answers.
"""

from __future__ import annotations

import math
import numbers
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import RecordError, did_you_mean
from .answers import letter, plain
from .vqa import normalised, vqa_accuracy

if TYPE_CHECKING:
    from .tasks import Question


@dataclass(frozen=True)
class Grade:
    """How right an answer is.

    Attributes:
        score: From 0, wrong, to 1, right.
        reason: Why, in a few words.
    """

    score: float
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.score, numbers.Real):
            raise RecordError(f"a score is a number from 0 to 1, not {self.score!r}")
        if not 0 <= self.score <= 1:
            raise RecordError(f"a score is from 0 to 1, not {self.score}")


Grader = Callable[[str | None, "Question"], Grade]
NONE = Grade(0.0, "no answer")


def multiple_choice(answer: str | None, question: Question) -> Grade:
    """Right if the answer names the right letter, or is the text of the right choice and of no other."""
    count = len(question.choices)
    right = question.answer
    if not isinstance(right, str) or len(right) != 1 or not 0 <= ord(right) - ord("A") < count:
        raise RecordError(f"question {question.id}: the answer {right!r} is no letter of its {count} choices; "
                          'grade it with "exact"')
    if not answer or not answer.strip():
        return NONE
    named = letter(answer, count) or _chosen(answer, question.choices)
    if named is None:
        return Grade(0.0, f"{_short(answer)} names no single one of {count} choices")
    return Grade(float(named == right), f"chose {named}" if named == right else f"chose {named}, not {right}")


def exact(answer: str | None, question: Question) -> Grade:
    """Right if the answer is the reference, or one of several; capitals and the number of blanks do not count."""
    if not any(one.strip() for one in question.references):
        raise RecordError(f"question {question.id}: it has no answer to compare with")
    if not answer or not answer.strip():
        return NONE
    if any(plain(answer) == plain(one) for one in question.references):
        return Grade(1.0, "the same text")
    return Grade(0.0, f"{_short(answer)} is not {' or '.join(map(_short, question.references[:3]))}")


def regex(answer: str | None, question: Question) -> Grade:
    """Right if the pattern that is the question's answer, or one of several, is found in the answer; capitals count."""
    if not answer or not answer.strip():
        return NONE
    for pattern in question.references:
        try:
            found = re.search(pattern, answer)
        except re.error as error:
            raise RecordError(f"question {question.id}: {pattern!r} is no regular expression: {error}") from None
        if found:
            return Grade(1.0, f"{_short(found[0])} matches {_cut(pattern)}")
    hint = "; it would without the blanks around the pattern" if any(
        _blanks_matter(pattern, answer) for pattern in question.references) else ""
    return Grade(0.0, f"{_short(answer)} does not match {' or '.join(map(_cut, question.references[:3]))}{hint}")


def vqa(answer: str | None, question: Question) -> Grade:
    """VQA accuracy over what people answered: `vqa.vqa_accuracy`."""
    score = vqa_accuracy(answer or "", question.references)
    if not answer or not answer.strip():
        return NONE
    same = sum(normalised(one) == normalised(answer) for one in question.references)
    return Grade(score, f"{same} of {len(question.references)} people gave {_short(normalised(answer))}")


def auto(answer: str | None, question: Question) -> Grade:
    """`multiple_choice` where the answer is the letter of a choice, `exact` where it is a text."""
    named = question.lettered or (question.choices and question.answer not in question.choices)
    return (multiple_choice if named else exact)(answer, question)


GRADERS: dict[str, Grader] = {
    "auto": auto, "multiple_choice": multiple_choice, "exact": exact, "regex": regex, "vqa": vqa,
}


def grader(how: str | Callable[[str, Question], Any]) -> Grader:
    """A grader by its name; or any function (answer, question) that returns a Grade, a truth value or a number.

    A function of yours is not called where there is no answer: that scores 0.

    Raises:
        RecordError: there is no grader of this name.

    >>> from hooklab.data.tasks.tasks import Question
    >>> near = grader(lambda answer, question: abs(float(answer) - float(question.answer)) < 0.1)
    >>> near("3.14", Question("pi", "π?", answer="3.1416"))
    Grade(score=1.0, reason='graded by <lambda>')
    """
    if isinstance(how, str):
        if how not in GRADERS:
            raise RecordError(f"there is no grader {how!r}.{did_you_mean(how, GRADERS)} Graders: {', '.join(GRADERS)}")
        return GRADERS[how]
    for known in GRADERS.values():
        if how is known:
            return known
    if not callable(how):
        raise RecordError(f"a grader is a name or a function (answer, question), not {how!r}. Graders: {', '.join(GRADERS)}")
    name = getattr(how, "__name__", type(how).__name__)

    def graded(answer: str | None, question: Question) -> Grade:
        if not answer or not answer.strip():
            return NONE
        verdict = how(answer, question)
        if isinstance(verdict, Grade):
            return verdict
        try:
            return Grade(float(verdict), f"graded by {name}")
        except (TypeError, ValueError):
            raise RecordError(f"question {question.id}: the grader {name} returned {verdict!r}; it is to return a Grade, a "
                              "truth value or a number from 0 to 1") from None

    return graded


@dataclass(frozen=True)
class Rate:
    """A rate with its standard error.

    Attributes:
        value: The rate.
        error: Its standard error over concepts; nan with a single one.
        concepts: How many there were.
    """

    value: float
    error: float
    concepts: int


def potemkin_rate(coherent: Mapping[str, Sequence[float]] | Sequence[Sequence[float]]) -> Rate:
    """How often a model that explains a concept rightly does not use it so: 2 · (1 − mean coherent).

    Coherent is an item about which the model, asked to grade, agrees with what it was asked to write: 1 or 0. Half of all by
    guessing, so that 0 is a model that always agrees with itself and 1 one that guesses. A concept counts once, however many
    items it has; the standard error is that of the mean over concepts (Mancoridis et al., Potemkin Understanding in Large
    Language Models, ICML 2025).

    Args:
        coherent: For each concept, 1 or 0 for each of its items.

    Raises:
        RecordError: there are no concepts, one has no items, or a value is not from 0 to 1.

    >>> potemkin_rate({"haiku": [1, 1, 1, 0], "sunk cost": [1, 0, 1, 0]})
    Rate(value=0.75, error=0.25, concepts=2)
    """
    named = coherent.items() if isinstance(coherent, Mapping) else enumerate(coherent)
    means = []
    for concept, items in named:
        values = [float(one) for one in items]
        if not values or not all(0 <= one <= 1 for one in values):
            raise RecordError(f"the concept {concept!r} has the items {values[:5]}; one is needed, each from 0 to 1")
        means.append(statistics.fmean(values))
    if not means:
        raise RecordError("there are no concepts to take a rate of")
    error = 2 * statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Rate(2 * (1 - statistics.fmean(means)), error, len(means))


def _chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the only choice whose text this is, perhaps after its letter."""
    said = plain(answer).rstrip(".")
    texts = [plain(one).rstrip(".") for one in choices]
    found = [chr(ord("A") + i) for i, text in enumerate(texts)
             if text and said in (text, f"{chr(ord('a') + i)} {text}")]
    return found[0] if len(found) == 1 else None


def _blanks_matter(pattern: str, answer: str) -> bool:
    """Whether a pattern that is not found would be without blanks at its ends, which answers often lack."""
    try:
        return pattern != pattern.strip() and re.search(pattern.strip(), answer) is not None
    except re.error:  # where the last of them was escaped
        return False


def _short(text: str | None) -> str:
    return _cut(" ".join((text or "").split()))


def _cut(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
