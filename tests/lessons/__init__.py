"""What learners answer: for every exercise an answer that is right and some that are typically wrong."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """An exercise of a tutorial, tried.

    Attributes:
        check: The function of `hl.check`.
        right: Code of an answer that is right on the shipped model; `hl`, `model`, `np` and `torch` are at hand.
        wrong: Code of answers that are wrong, each with a regular expression that its message must match.
        secrets: Texts that no message about a wrong answer may hold.
        setup: Code that is run before, for names that the answers use.
        args: What the check is given after the answer, as code.
    """

    check: str
    right: str
    wrong: dict[str, str]
    secrets: tuple[str, ...] = ()
    setup: str = ""
    args: str = "model"


def lessons() -> list[Lesson]:
    """All of them, in the order of the tutorials."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return [lesson for name in names for lesson in importlib.import_module(f"{__name__}.{name}").LESSONS]
