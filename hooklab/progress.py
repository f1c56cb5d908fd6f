"""How far a run is: one line, for whoever can show and take away a line; and what else talks meanwhile, kept quiet."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator

QUIET_FOR = 0.4
EVERY = 0.1


class Progress:
    """Tells how far a run is and how long it will take, and takes the line away when it ends.

    It says nothing about what is done in a moment. `show` gets the line, how much is done and how much there is (in units
    that mean nothing beyond their ratio); an empty line means that the last one is to go.

    >>> clock = iter([0.0, 0.1, 1.0, 1.01, 2.0]).__next__
    >>> progress = Progress(lambda line, done, total: print([line, done, total]), clock)
    >>> for done in range(4):
    ...     progress(done, 4, "hooked")
    ['25 % · hooked · about 3 s left', 1, 4]
    ['75 % · hooked · about 1 s left', 3, 4]
    >>> progress.close()
    ['', 4, 4]
    """

    def __init__(self, show: Callable[[str, int, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.show, self.clock = show, clock
        self.start = clock()
        self.due = self.start + QUIET_FOR
        self.total = 0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now = self.clock()
        if not total or now < self.due:
            return
        self.due = now + EVERY
        self.total = total
        left = [f"about {lasting((now - self.start) * (total - done) / done)} left"] if 0 < done < total else []
        self.show(" · ".join([f"{100 * done // total} %", *([what] if what else []), *left]), done, total)

    def close(self) -> None:
        """Take the line away."""
        if self.total:
            self.show("", self.total, self.total)
            self.total = 0


def lasting(seconds: float) -> str:
    """A time in the words of a clock.

    >>> lasting(0.2), lasting(59), lasting(200), lasting(9000)
    ('1 s', '59 s', '4 min', '2.5 h')
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def in_terminal(line: str, done: int, total: int) -> None:
    """Show a line at a terminal, over the one before; nothing where nobody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers' progress bars and notes away while it works; its settings, and those of the hub, come back."""
    import transformers.utils.logging as log
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, bars, downloads = log.get_verbosity(), log.is_progress_bar_enabled(), not are_progress_bars_disabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        with warnings.catch_warnings():  # of the hub, where the environment forbids its bars
            warnings.simplefilter("ignore")
            if bars:
                log.enable_progress_bar()
            (enable_progress_bars if downloads else disable_progress_bars)()
