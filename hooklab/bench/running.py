"""A run that is going on: what it says, logs and draws, and which run the code that asks belongs to.

Code inside the function, and in threads that it starts, logs to its run. A thread that does not carry the context of its
maker belongs to the only run of the process; where several go on at once, it must be told which one (`bench.current()`).
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import RecordError

MOST_OUTPUT = 2**20
"""Characters of output that are kept; what comes after is cut, which the record says."""
BATCH_SECONDS = 0.5
_lock = threading.RLock()
_active: dict[str, Running] = {}
_pid = os.getpid()
_last = 0


def new_id() -> str:
    """A name for a run: unique, and later ones sort behind earlier ones.

    >>> new_id() < new_id()
    True
    """
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1000)
        moment = datetime.fromtimestamp(_last // 10**6, UTC)
        return f"{moment:%Y%m%d-%H%M%S}-{_last % 10**6:06d}-{uuid4().hex[:6]}"


class Running:
    """A run that is going on.

    Attributes:
        id: Its name.
        bench: Where it is kept.
        parent: The run of the same bench in which it was called, if any.
        outer: The run in which it was called, of this bench or another.
        figures: What it was handed to draw on, by name.
        pictures, logged: What it has logged that is no number: name -> file.
        lost: What of that was not kept as data.
    """

    def __init__(self, ident: str, bench: Any, outer: Running | None, figures: dict[str, Any] | None = None) -> None:
        self.id, self.bench, self.outer = ident, bench, outer
        self.parent = next((one for one in _outwards(outer) if one.bench.folder == bench.folder), None)
        self.figures = dict(figures or {})
        self.pictures: dict[str, str] = {}
        self.logged: dict[str, str] = {}
        self.lost: list[str] = []
        self._names = {*self.figures}
        self.troubles: list[str] = []
        self.about: dict[str, Any] = {}
        self.lock: Any = None
        self._writing = threading.RLock()
        self._said: list[str] = []
        self._length = 0
        self._numbers: list[tuple[str, int | None, float]] = []
        self._flushed = time.monotonic()

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Note a number, a figure or anything else under a name.

        Raises:
            RecordError: the name is empty or not printable, a figure's or value's name is taken, or the step is no whole
                number.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise RecordError(f"what is logged has a name, as in bench.log('loss', 0.5), not {name!r}")
        if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
            raise RecordError(f"a step is a whole number, not {step!r}")
        number = as_number(value)
        if number is None:
            if step is not None:
                name = f"{name}[{step}]"
            with self._writing:
                if name in self._names:
                    raise RecordError(f"{name} is logged or drawn already: give it another name, or a step")
                self._names.add(name)
                self.bench.value(self, name, value)  # now: a figure or tensor may be changed afterwards
            return
        with _lock:
            self._numbers.append((name, step, number))
            due = time.monotonic() - self._flushed > BATCH_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Bring the numbers to the disk; where that fails, they stay for the next time."""
        try:
            self.bench.numbers(self.id, taken := self.taken())
        except RecordError as error:
            with _lock:
                self._numbers[:0] = taken
            if str(error) not in self.troubles:
                self.troubles.append(str(error))

    def taken(self) -> list[tuple[str, int | None, float]]:
        """The numbers that are not on the disk yet; they are not given again."""
        with _lock:
            taken, self._numbers, self._flushed = self._numbers, [], time.monotonic()
        return taken

    def say(self, text: str) -> None:
        """Note what was written to the standard output."""
        if self._length < MOST_OUTPUT:
            self._said.append(text[:MOST_OUTPUT - self._length])
        self._length += len(text)
        if self.outer is not None:
            self.outer.say(text)

    @property
    def output(self) -> tuple[str, int]:
        """What was written, and how many characters more there were."""
        return "".join(self._said), max(0, self._length - MOST_OUTPUT)


def as_number(value: Any) -> float | None:
    """A number of any kind as a float; None for what is none (truth values and arrays of several among them).

    >>> as_number(2), as_number(True), as_number("2")
    (2.0, None, None)
    """
    import numpy as np

    from ..records.exact import is_tensor

    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (int, float, np.integer, np.floating)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if is_tensor(value) and not value.shape and value.device.type != "meta" and (
            value.dtype.is_floating_point or str(value.dtype)[6:].startswith(("int", "uint"))):
        return float(value)
    return None


_current: ContextVar[Running | None] = ContextVar("hooklab_bench_run", default=None)


def _outwards(run: Running | None) -> Iterator[Running]:
    """A run that goes on, the one in which it was called, and so on."""
    while run is not None:
        yield run
        run = run.outer


def current(required: bool = True, folder: Path | None = None) -> Running | None:
    """The run that the code which asks belongs to; with a folder, the innermost one of the bench there.

    Raises:
        RecordError: there is none and one is required, or it cannot be told which of several.
    """
    _after_fork()
    for found in _outwards(_current.get()):
        if found.id in _active and folder in (None, found.bench.folder):
            return found
    with _lock:
        several = [one for one in _active.values() if folder in (None, one.bench.folder)]
    if len(several) == 1:
        return several[0]
    if not required:
        return None
    if several:
        raise RecordError("several runs go on at once, and this thread belongs to none of them: take the run in the "
                          "function, run = bench.current(), and let the thread use run.log(name, value)")
    raise RecordError("no run of this bench goes on: log inside a function that is an experiment of it")


def around() -> Running | None:
    """The run that calls, where that is certain; None otherwise."""
    _after_fork()
    found = _current.get()
    return found if found is not None and found.id in _active else None


def is_active(ident: str) -> bool:
    """Whether a run goes on in this process."""
    _after_fork()
    return ident in _active


def _after_fork() -> None:
    global _pid
    if _pid != os.getpid():  # a child has its parent's memory, not its runs
        _pid = os.getpid()
        _active.clear()
        _current.set(None)


@contextlib.contextmanager
def going(run: Running) -> Iterator[None]:
    """Make a run the current one inside, and take down what is written to the standard output."""
    _after_fork()
    with _lock:
        _active[run.id] = run
        if not isinstance(sys.stdout, _Tee):
            sys.stdout = _Tee(sys.stdout)
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)
        with _lock:
            _active.pop(run.id, None)
            if not _active and isinstance(sys.stdout, _Tee):
                sys.stdout = sys.stdout.original


class _Tee:
    """Standard output that the runs going on take down."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def write(self, text: str) -> int:
        """Write on, and take down."""
        if (run := current(required=False)) is not None:
            run.say(text)
        return int(self.original.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


