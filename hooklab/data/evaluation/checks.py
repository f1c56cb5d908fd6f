"""Whether what `evaluate` is given fits, said before anything runs.

In: its options and questions. Out: nothing, or an error that says what was given and what is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import RecordError, did_you_mean
from ..tasks.graders import GRADERS, grader
from ..tasks.tasks import Question
from .choices import NORMALISE
from .grid import Grid
from .running import CAPTURE_AT

HOW = ("generate", "choices")
WORDS: dict[str, tuple[str | None, ...]] = {"how": HOW, "normalise": NORMALISE, "capture_at": CAPTURE_AT}


def words(**given: str | None) -> None:
    """Raises RecordError for a word that is none of a few."""
    for name, known in WORDS.items():
        if given[name] not in known:
            raise RecordError(f"{name}={given[name]!r}: it is one of {', '.join(map(repr, known))}."
                              f"{did_you_mean(str(given[name]), [one for one in known if one])}")


def numbers(temperature: float, seed: int, **given: int | None) -> None:
    """Raises RecordError for numbers that are none, or out of range."""
    for name, number in given.items():
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__") or number < 1):
            raise RecordError(f"{name}={number!r}: it is a whole number from 1")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise RecordError(f"temperature={temperature!r}: it is a number, 0 or more")
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or seed < 0:
        raise RecordError(f"seed={seed!r}: it is a whole number from 0")


def stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Texts at which a reply ends. Raises RecordError for what is none."""
    found = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else (stop,)
    if not all(isinstance(one, str) for one in found):
        raise RecordError(f"stop={stop!r}: it is a text, or a list of texts")
    return found


def shapes(model: Any, edits: Any, grid: Any, values: Any, capture: Any, out: Any) -> None:
    """Raises RecordError for an option that is another kind of thing."""
    if model is not None and not hasattr(model, "facts"):
        raise RecordError(f"model is {model!r}; it is an opened one, as hl.load gives it")
    for name, value in (("edits", edits), ("capture", () if capture is None else capture)):
        if not isinstance(value, str) and not (isinstance(value, Sequence) and all(isinstance(one, str) for one in value)):
            raise RecordError(f"{name}={value!r}: it is a text, or a list of texts")
    for name, value in (("grid", grid), ("values", values)):
        if value is not None and not isinstance(value, Mapping):
            raise RecordError(f"{name}={value!r}: it has a name for everything: {name}={{'much': …}}")
    if out is not None and (not isinstance(out, str | Path) or "\0" in str(out) or not str(out)):
        raise RecordError(f"out={out!r}: it is the name of a folder")


def questions(some: Sequence[Question]) -> None:
    """Raises RecordError for a question that is none."""
    seen: set[str] = set()
    for one in some:
        if not isinstance(one, Question):
            raise RecordError(f"questions are hooklab.data.Question, not {type(one).__name__}: load_task makes them")
        if not isinstance(one.id, str):
            raise RecordError(f"the id of a question is a text, not {one.id!r}")
        if not isinstance(one.images, tuple | list):
            raise RecordError(f"question {one.id!r}: images are a tuple, of one too: images=(picture,)")
        if not _texts(one.choices):
            raise RecordError(f"question {one.id!r}: its choices are {one.choices!r}; they are to be a tuple of texts")
        if not isinstance(one.answer, str) and not (_texts(one.answer) and one.answer):
            raise RecordError(f"question {one.id!r}: its answer is {one.answer!r}; it is to be a text, or several")
        try:
            json.dumps(dict(one.metadata), sort_keys=True, default=str)
        except (TypeError, ValueError) as error:
            raise RecordError(f"question {one.id!r}: its metadata cannot be kept: {error}. Its keys are to be "
                              "texts") from None
        if one.id in seen:
            raise RecordError(f"two questions have the id {one.id!r}; an id names one question")
        seen.add(one.id)


def answers(some: Sequence[Question], how: Any) -> None:
    """Raises RecordError for a question whose answer a grader with a name cannot grade by, before anything is asked."""
    known = grader(how)
    if known in GRADERS.values():
        for one in some:
            known("A", one)


def _texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(one, str) for one in value)


def together(model: Any, reply: Any, how: str, cells: Grid, extract: Any, capture: Any, out: Any) -> None:
    """Raises RecordError for options that do not go together."""
    if (model is None) == (reply is None):
        raise RecordError("either a model answers, or reply=, a function of the prompt: give one of them")
    if reply is not None and (cells.acting or capture or how != "generate"):
        raise RecordError("reply= is asked for text and nothing else: edits=, capture= and how=\"choices\" need a model")
    if capture and out is None:
        raise RecordError("activations go to a folder: say which, out=\"folder\"")
    if how == "choices" and extract is not None:
        raise RecordError("a choice is an answer already: extract= goes with how=\"generate\"")


def among(how: str, reply: Any, temperature: float, **given: Any) -> dict[str, float]:
    """Among which tokens is drawn. Raises RecordError where nothing is, or a number is out of range."""
    from ...compiler.writing import FITS

    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        fits, wanted = FITS[name]
        if not fits(value):
            raise RecordError(f"{name}={value!r}: it is {wanted}")
        if how != "generate" or reply is not None or not temperature > 0:
            raise RecordError(f"{name}={value!r} says among which tokens is drawn, and nothing is: it goes with "
                              'how="generate" and a temperature above 0')
    return found
