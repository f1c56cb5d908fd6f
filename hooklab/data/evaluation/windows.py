"""Questions about pictures, a window at a time: read once each by the processor, and held until their batches have run.

    questions ──chunks of WINDOW──▶ those with a row missing ──processor──▶ windows of at most HELD bytes of pixels

Where a window begins depends on the questions alone, so that a run that goes on has the batches that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from ..inputs.batching import HELD, WINDOW
from .pictures import held
from .prompts import Asked


def windows(numbers: Iterable[int], ready: Callable[[Sequence[int]], bool],
            read: Callable[[int], Asked]) -> Iterator[list[Asked]]:
    """Questions that may run together. A window is empty once the next one is asked for: its pixels are let go.

    Args:
        numbers: Which questions.
        ready: Whether questions are all done; a chunk of which this holds is passed over unread.
        read: Has the processor read a question.
    """
    left = iter(numbers)
    while chunk := list(islice(left, WINDOW)):
        if ready(chunk):
            continue
        found: list[Asked] = []
        size = 0
        for number in chunk:
            one = read(number)
            found.append(one)
            size += held(one.read)
            if size >= HELD or number == chunk[-1]:
                yield found
                found.clear()
                size = 0
