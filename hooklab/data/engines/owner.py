"""Who holds a part: a process, named so that another one can tell whether it still lives.

On the machine where it runs, a process is asked for by its number and the moment of its start. From elsewhere nothing can be
known of it; there only the signs of life count that it leaves on the shared disk (`claims`).
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """A process that works on parts.

    Attributes:
        token: Its own word, and no other's.
        host: Name of its machine.
        place: The machine, since when it is up, and the space of process numbers; "" where that cannot be told.
        pid: Its number there.
        started: When it began, in the ticks of its machine; "" where that cannot be told.
    """

    token: str
    host: str
    place: str
    pid: int
    started: str = field(default="")

    def alive(self) -> bool | None:
        """Whether it runs; None where that cannot be seen from here."""
        if not self.place or not self.started or self.place != _place():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process(token: str | None = None) -> Owner:
    """The process that asks.

    >>> this_process().alive() is not False
    True
    """
    return Owner(token or uuid.uuid4().hex, socket.gethostname(), _place(), os.getpid(), _started(os.getpid()))


@cache
def _place() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        numbers = (PROC / "self/ns/pid").readlink()
    except OSError:  # no Linux
        return ""
    return f"{socket.gethostname()} {boot} {numbers}"


def _started(pid: int) -> str:
    """When a process began; "" where there is none, or it has ended and nobody has asked how."""
    try:
        told = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] in "ZX" else told[19]
