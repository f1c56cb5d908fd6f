"""How far a run is: one line, for whoever can show and take away a line; and what else talks meanwhile, kept quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

QUIET_FOR = 0.4
EVERY = 0.1
FEW = 2


class Progress:
    """Tells how far a run is, and takes the line away when it ends; says nothing about what is done in a moment.

    `show` gets the line, how much is done and how much there is; an empty line means that the last one is to go.

    >>> clock = iter([0.0, 0.1, 1.0, 1.01, 2.0]).__next__
    >>> progress = Progress(lambda line, done, total: print([line, done, total]), clock)
    >>> for done in range(4):
    ...     progress(done, 4, "hooked")
    ['1 of 4 passes · hooked', 1, 4]
    ['3 of 4 passes · hooked', 3, 4]
    >>> progress.close()
    ['', 4, 4]
    """

    def __init__(self, show: Callable[[str, int, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.show, self.clock = show, clock
        self.due = clock() + QUIET_FOR
        self.total = 0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now = self.clock()
        if total <= FEW or now < self.due:
            return
        self.due = now + EVERY
        self.total = total
        self.show(f"{done} of {total} passes" + (f" · {what}" if what else ""), done, total)

    def close(self) -> None:
        """Take the line away."""
        if self.total:
            self.show("", self.total, self.total)
            self.total = 0


def in_terminal(line: str, done: int, total: int) -> None:
    """Show a line at a terminal, over the one before; nothing where nobody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers' progress bars and notes away while it works."""
    import transformers.utils.logging as log

    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
