"""One shard on its way to the disk, in a thread of its own: written, brought to the disk, committed.

While one shard is brought to the disk the next can be written already; they are committed in their order, and what comes
after a shard that failed is not committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread

from . import manifest as files
from .folder import begin, brought, put
from .gathered import Gathered
from .index import Row
from .lock import Lock
from .manifest import Entry, Manifest


class Flight:
    """A shard being written.

    Args:
        folder: The store's.
        name: Number of the shard.
        manifest: With sizes and types settled.
        rows, found: What the shard holds; see `folder.put`.
        before: The shard before it where that is not committed yet; None for the first of a store that has none.
        written: Called when the values are in the file, and their memory is free.
        lock: That of the folder, which is held until the shard has landed, also where its writer was dropped.
        only: It is the only shard of a store that is sealed when it is on the disk: nothing is committed before that.
    """

    def __init__(self, folder: Path, name: str, manifest: Manifest, rows: Sequence[Row],
                 found: Mapping[str, Gathered], before: Flight | None, written: Callable[[], None], lock: Lock, *,
                 only: bool = False) -> None:
        self._written = Event()
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(folder, name, manifest, rows, found, before, written, lock,
                                                      only))
        self._thread.start()

    def _run(self, folder: Path, name: str, manifest: Manifest, rows: Sequence[Row], found: Mapping[str, Gathered],
             before: Flight | None, written: Callable[[], None], lock: Lock, only: bool) -> None:
        try:
            if before is None and not manifest.shards and not only:
                begin(folder, manifest)
            entry = put(folder, name, rows, found, manifest.sites)
            written()
            self._written.set()
            brought(folder, name)
            if before is None or before.landed() is not None:
                if not only:
                    files.enter(folder, entry)
                self.entry = entry
        except BaseException as error:  # raised by the writer, where the caller is
            self.error = error
        finally:
            self._written.set()

    def written(self) -> bool:
        """Wait until the values are in the file; False where that failed."""
        self._written.wait()
        return self.error is None

    def landed(self) -> Entry | None:
        """Wait until it is committed (the only one: until it is on the disk); None where it could not be, or one before."""
        self._thread.join()
        return self.entry
