"""The workers of one caller, watched until every part is published: who dies is replaced, who fails ends it for all.

How workers are started, seen and ended is the engine's own (`local`, `ray_actors`).
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from ...errors import RecordError
from .claims import Shared
from .work import POLL, Job, raised

TRIES = 3
GRACE = 10.0
Progress = Callable[[int, int, str], None]


class Hand(Protocol):
    """A worker that was started."""

    def ended(self) -> str | None:
        """None while it runs; "" when it ended well or left word of its error; else how it died."""

    def end(self) -> None:
        """End it, however busy it is."""


class Clock:
    """Raises when too long nothing was published, and says how far things are.

    Args:
        shared: The folder.
        timeout: Seconds; None for ever.
        progress: Called with (parts done, parts in all or 0, what).
    """

    def __init__(self, shared: Shared, timeout: float | None, progress: Progress | None = None) -> None:
        self.shared, self.timeout, self.progress = shared, timeout, progress
        self.state, self.since = (-1, 0), time.monotonic()

    def look(self) -> None:
        """Raises RecordError."""
        done = len(self.shared.published())
        state = done, self.shared.end() or 0
        if state != self.state:
            self.state, self.since = state, time.monotonic()
            if self.progress is not None:
                self.progress(*state, "parts")
        elif self.timeout is not None and time.monotonic() - self.since > self.timeout:
            raise RecordError(f"no part was published in {self.shared.path} for {self.timeout:g} s; {done} of "
                              f"{self.shared.end() or 'an unknown number'} are there. What is there stays: the same call "
                              "continues")


def lead(start: Callable[[int, str], Hand], workers: int, job: Job, shared: Shared, clock: Clock) -> None:
    """Start workers and wait until every part is published.

    Args:
        start: Starts a worker, given its number and its token.
        workers: How many.
        job: What they do.
        shared: Where.
        clock: Looked at again and again.

    Raises:
        RecordError: a part, or the start, killed worker after worker. And whatever a worker raised.
    """
    tokens = [uuid.uuid4().hex for _ in range(workers)]
    hands: dict[int, Hand] = {}
    deaths: Counter[int] = Counter()
    try:
        for number, token in enumerate(tokens):
            hands[number] = start(number, token)
        while not shared.complete():
            clock.look()
            for number, hand in list(hands.items()):
                how = hand.ended()
                if how is None:
                    continue
                if (error := raised(shared.path, tokens[number])) is not None:
                    raise error
                if how:
                    _count(deaths, shared.release_of(tokens[number]), how)
                    tokens[number] = uuid.uuid4().hex
                    hands[number] = start(number, tokens[number])
            time.sleep(POLL / 2)
        clock.look()
        until = time.monotonic() + GRACE  # the last ones are just entering what they did
        while time.monotonic() < until and any(hand.ended() is None for hand in hands.values()):
            time.sleep(POLL / 2)
    finally:
        for hand in hands.values():
            hand.end()
        for token in tokens:
            shared.release_of(token)


def _count(deaths: Counter[int], parts: list[int], how: str) -> None:
    for part in parts or [-1]:
        deaths[part] += 1
        if deaths[part] >= TRIES:
            where = "before they had a part" if part < 0 else f"at part {part}"
            raise RecordError(f"{TRIES} workers died {where}; the last one {how}. If it was memory: smaller parts or "
                              "batches, or fewer workers")
