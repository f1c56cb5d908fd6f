"""One writer at a time: a lock on a file of the store, which the system lets go of when its holder ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import RecordError

NAME = ".lock"
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_HELD: set[tuple[int, Path]] = set()


class Lock:
    """Held from its making until `release`, or until nothing refers to it any more: a writer that was dropped without being
    closed, and one that a dead process left behind, hold nobody up.

    Raises:
        RecordError: another writer holds it, and the message names its process; or it can only be read here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._key = (os.getpid(), self.folder)
        path = self.folder / NAME
        if self._key in _HELD:
            raise RecordError(f"{folder} is being written by this very process: close its writer first")
        try:
            self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b", buffering=0)
            _hold(self._file)
        except BlockingIOError:
            raise RecordError(f"{folder} is being written by {_holder(self._file)}: wait until it ends, or give each "
                              "writer a folder of its own and merge them") from None
        except OSError as error:
            why = error.strerror or error
            if error.errno in READ_ONLY:
                raise RecordError(f"{folder} can be read here, not written: {why}. To change it, copy it with merge to a "
                                  "folder of yours") from error
            raise RecordError(f"{folder} could not be locked: {why}") from error
        _HELD.add(self._key)
        self._end = weakref.finalize(self, _let_go, self._file, self._key)
        self._end.atexit = False  # the system does that, as after a crash
        with suppress(OSError):  # a full disk: who holds it is then not said
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Let the next one write."""
        self._end()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


def _let_go(file: BinaryIO, key: tuple[int, Path]) -> None:
    """Free what a lock holds; a child of the process that holds it frees nothing."""
    if key[0] == os.getpid():
        with suppress(OSError, ValueError):
            file.truncate(0)
        file.close()
        _HELD.discard(key)


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    found = file.read(200).decode(errors="replace")
    file.close()
    return found or "another process"


def _hold(file: BinaryIO) -> None:
    """Raises BlockingIOError when another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            file.seek(1 << 20)  # a byte far behind what is written, so that others can read who holds it
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            raise BlockingIOError from error
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:
        raise BlockingIOError from error
