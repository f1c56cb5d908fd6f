"""The small records that a Run is made of, besides tensors and scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import RecordError

STOPPED = ("length", "eos", "stop")


@dataclass(frozen=True)
class Text:
    """One continuation.

    Attributes:
        text: Prompt and continuation.
        prompt: What was given.
        new: What was written on.
        ids: Ids of the tokens that were written on.
        cell: The values of the sweep axes that it was written under.
        sample: Which of the continuations of this prompt.
        example: Which prompt of the batch.
        stopped: Why it ends: `"length"`, `"eos"` or `"stop"`.
    """

    text: str
    prompt: str
    new: str
    ids: tuple[int, ...] = ()
    cell: dict[str, Any] = field(default_factory=dict)
    sample: int = 0
    example: int = 0
    stopped: str = "length"

    def __post_init__(self) -> None:
        if self.stopped not in STOPPED:
            raise RecordError(f"stopped must be one of {', '.join(STOPPED)}, not {self.stopped!r}")


@dataclass(frozen=True)
class ViewRequest:
    """A view that the spec asks for: its name, how many, of which places, with which options."""

    view: str
    count: int | None = None
    sites: tuple[str, ...] = ()
    opts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """A claim of the spec with both of its numbers, and whether it holds."""

    text: str
    left: float
    right: float
    holds: bool


@dataclass(frozen=True)
class Unstored:
    """Stands for a value that no file can hold, such as a function; `what` says what it was."""

    what: str
