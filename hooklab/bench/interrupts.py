"""Ctrl-C while a run is stored: the run is stored whole, the caller gets the value, and then the interrupt comes.

    Ctrl-C ──later──▶ noted ──▶ stored, returned ──▶ KeyboardInterrupt where the caller is, or in the next experiment
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

SOON = 0.2
"""Seconds after which an interrupt that was put off comes: the caller has the value by then, on a busy machine too."""
_waiting = threading.Event()


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Put off interrupts inside, where that is possible: on the main thread, where Python handles the signal."""
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(before):
        yield
        return
    seen: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            _waiting.set()
            soon = threading.Timer(SOON, _come)
            soon.daemon = True
            soon.start()


def _come() -> None:
    if _waiting.is_set():
        _waiting.clear()
        if hasattr(signal, "pthread_kill"):  # also wakes what sleeps or waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()


def now() -> None:
    """Let an interrupt that was put off come, so that a loop over experiments ends. Raises KeyboardInterrupt."""
    if _waiting.is_set() and threading.current_thread() is threading.main_thread():
        _come()
