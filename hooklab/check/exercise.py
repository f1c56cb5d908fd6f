"""An exercise: a function that judges an answer, with a number and a title."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from ..errors import HooklabError
from .verdict import Verdict, strictly

DOTS = "Put your answer in place of the dots, run the cell, and come back."


class Wrong(Exception):
    """Raised by a check: the answer is wrong, and these words say how, without saying what is right."""


def exercise(number: str, title: str) -> Callable[[Callable[..., str]], Callable[..., Verdict]]:
    """Make a check of a function that returns praise, or raises `Wrong` with a hint.

    Args:
        number: Of the tutorial and of the exercise in it, as in "03.1".
        title: A few words.

    The check takes the learner's answer first. An answer of dots (or None) is not answered yet; one that hooklab itself
    cannot make sense of (a head that the model lacks, a misspelt site) is wrong, in hooklab's own words.

    >>> @exercise("00.0", "Two and two")
    ... def sum_of_twos(answer):
    ...     "The sum."
    ...     if answer != 4:
    ...         raise Wrong("Count on your fingers.")
    ...     return "Indeed."
    >>> sum_of_twos(4), sum_of_twos(5), sum_of_twos(...)
    (✓ 00.0 Two and two: Indeed., ✗ 00.0 Two and two: Count on your fingers., ○ 00.0 Two and two: Put your answer in ...)
    """
    def judge(check: Callable[..., str]) -> Callable[..., Verdict]:
        @functools.wraps(check)
        def checked(answer: Any, *given: Any, **named: Any) -> Verdict:
            name = f"{number} {title}"
            if is_open(answer):
                return Verdict("open", name, DOTS)
            try:
                return Verdict("right", name, check(answer, *given, **named))
            except (Wrong, HooklabError) as error:
                return strictly(Verdict("wrong", name, str(error)))

        checked.exercise = (number, title)  # type: ignore[attr-defined]
        return checked
    return judge


def is_open(answer: Any) -> bool:
    """Whether an answer is still the dots, or holds them."""
    if isinstance(answer, (list, tuple, set)):
        return any(is_open(part) for part in answer)
    if isinstance(answer, dict):
        return any(is_open(part) for part in answer.values())
    return answer is None or answer is ...


def exercises() -> dict[str, str]:
    """The checks by name, each with its number and title, in the order of the tutorials."""
    from . import _HOME

    found = {}
    for name, module in _HOME.items():
        check = getattr(importlib.import_module(f".{module}", __package__), name)
        if numbered := getattr(check, "exercise", None):
            found[name] = " ".join(numbered)
    return dict(sorted(found.items(), key=lambda item: item[1]))
