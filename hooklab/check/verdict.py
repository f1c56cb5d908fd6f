"""What a check says: right, wrong, or not answered yet, with a sentence."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from ..errors import HooklabError

State = Literal["right", "wrong", "open"]
SIGNS: dict[State, str] = {"right": "✓", "wrong": "✗", "open": "○"}
STRICT = "HOOKLAB_CHECK"
"""The variable of the environment that, set to "strict", makes a wrong answer an error."""


class CheckError(HooklabError):
    """A wrong answer, or a claim that does not hold, where the environment asks for strict checks."""


@dataclass(frozen=True)
class Verdict:
    """The judgement of an answer.

    Attributes:
        state: "right", "wrong", or "open" for an exercise that nobody has answered yet.
        title: Which exercise, with its number.
        message: What is right, what is wrong, or what to do.

    A verdict is true when it is right.

    >>> Verdict("open", "03.1", "Put your answer in place of the dots.")
    ○ 03.1: Put your answer in place of the dots.
    """

    state: State
    title: str
    message: str

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        return f"{SIGNS[self.state]} {self.title}: {self.message}"

    def _repr_html_(self) -> str:
        return (f'<div class="hooklab" role="status" style="border-left: 4px solid {_EDGES[self.state]}; '
                f'padding: 4px 10px; margin: 4px 0"><b>{SIGNS[self.state]} {escape(self.title)}</b><br>'
                f"{escape(self.message)}</div>")


_EDGES: dict[State, str] = {"right": "rgb(44, 123, 182)", "wrong": "rgb(230, 97, 1)", "open": "rgb(128, 128, 128)"}
"""Blue and orange, as in the views; the sign and the words say the same."""


def strictly(verdict: Verdict) -> Verdict:
    """The verdict itself, or an error where it is wrong and the environment asks for strict checks.

    Raises:
        CheckError: as said.
    """
    if verdict.state == "wrong" and os.environ.get(STRICT) == "strict":
        raise CheckError(repr(verdict))
    return verdict


def expect(claim: Any, sentence: str) -> Verdict:
    """Whether a claim of the text holds on the model at hand.

    Args:
        claim: Anything with one truth value: a comparison of numbers, a tensor with one element.
        sentence: The claim in words.

    Raises:
        CheckError: it does not hold, and `HOOKLAB_CHECK` is "strict".

    >>> expect(0.9 > 0.8, "One head spends most of its attention there")
    ✓ claim: One head spends most of its attention there
    """
    if bool(claim):
        return Verdict("right", "claim", sentence)
    return strictly(Verdict("wrong", "claim", f"{sentence}: this does not hold here. On another model than the shipped one, "
                            "that can be a finding rather than a mistake."))
