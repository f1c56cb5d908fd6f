"""Filling a store: examples go in one by one, and out to the disk a shard at a time, while the next ones come in.

A shard counts from the moment its line is in the journal; the only shard of a store that is closed, from the moment the
manifest has it. Whatever ends the process, what was committed stays, and what was not leaves no trace; a writer opened again
with `resume=True` passes over the examples that are there, so that the same calls in the same order give the same bytes as
one run would have given.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ...errors import RecordError
from . import manifest as files
from .fitting import fitted, unpadded
from .flight import Flight
from .folder import agree, made, sweep
from .gathered import Gathered
from .index import Index, Row, arrow, row
from .layout import Layout, layouts
from .lock import Lock
from .manifest import Manifest
from .room import Room

if TYPE_CHECKING:
    from ...tokens import Tokens

SHARD_BYTES = 64 << 20


class Writer:
    """Puts examples into a store, which is made if there is none.

        with Writer("acts", ["L3.resid_post"], resume=True) as writer:
            for id, prompt in prompts:
                if id not in writer:
                    writer.add(id, {"L3.resid_post": stream}, tokens=ids, metadata={"prompt": prompt})

    Leaving the block with an error, or dying, commits nothing more; leaving it well commits the rest and seals the store.

    Args:
        out: The folder of the store; its parents are made.
        sites: Addresses, or name -> axis words (without batch) or Layout for what is no site.
        model: What the values came from: a fingerprint, or a dictionary with one and more.
        tokenizer: The same for the tokenizer.
        spec: The text that made them.
        options: Whatever else they depend on.
        dtype: Type to store: "float16", torch.bfloat16 …; None stores each site as it comes.
        shard_bytes: A shard is written as soon as its values are as large; twice that much is held in memory at most.
        resume: Continue what is there, if it was begun with the same settings.

    Raises:
        RecordError: the folder is taken, holds something else, was begun with other settings, or is being written.
    """

    def __init__(self, out: str | Path, sites: Iterable[str] | Mapping[str, Any], *, model: Any = None,
                 tokenizer: Any = None, spec: str = "", options: Mapping[str, Any] | None = None,
                 dtype: str | torch.dtype | None = None, shard_bytes: int = SHARD_BYTES, resume: bool = False) -> None:
        arrow()
        if shard_bytes < 1:
            raise RecordError(f"shard_bytes={shard_bytes} must be a whole number from 1")
        about = files.told({"model": model, "tokenizer": tokenizer, "spec": spec, "options": dict(options or {})})
        asked = Manifest(layouts(sites, dtype), about, shard_bytes)
        self.path = Path(out).expanduser().absolute()
        try:
            if files.there(self.path) and not resume:
                raise RecordError(f"{self.path} exists: resume=True continues it, or choose another name")
            made(self.path)
            self._lock = Lock(self.path)
        except RecordError:
            raise
        except (OSError, ValueError) as error:  # a name with a zero in it is a ValueError
            raise RecordError(f"{self.path} could not be made: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._open(asked)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise RecordError(f"{self.path} could not be written: {error.strerror or error}") from error
            raise

    def _open(self, asked: Manifest) -> None:
        if not (self.path / files.MANIFEST).exists():
            files.draft(self.path, asked)
        found, whole = files.read(self.path)
        agree(self.path, found, asked)
        files.cut(self.path, whole)
        sweep(self.path, found)
        self._manifest, self._pid, self._open_now = found, os.getpid(), True
        self._before = {name for one in found.shards for name in Index(files.index_path(self.path, one.name)).ids}
        self._seen: set[str] = set()
        self._rows: list[Row] = []
        self._found = {site: Gathered() for site in found.sites}
        self._bytes = 0
        self._room = Room()
        self._flights: list[Flight] = []

    @property
    def sites(self) -> dict[str, Layout]:
        """Name -> layout; sizes and types are known from the first example on."""
        return dict(self._manifest.sites)

    def __contains__(self, example: object) -> bool:
        return str(example) in self._before or str(example) in self._seen

    def __len__(self) -> int:
        """Examples that are committed."""
        return sum(one.examples for one in self._manifest.shards)

    def add(self, example: str | int, values: Mapping[str, Tensor], tokens: Any = None,
            metadata: Mapping[str, Any] | None = None,
            positions: Sequence[int] | Mapping[str, Sequence[int]] | None = None, *, copy: bool = True) -> bool:
        """Put in one example; False where it was there before this writer began, and is passed over.

        Args:
            example: Its id, once in a store; a number is stored as its text.
            values: The value of every site, axes as in `sites`.
            tokens: The ids of its tokens (or Tokens of one prompt), unpadded; None where the input was no text.
            metadata: Text, numbers, lists and dictionaries.
            positions: Which tokens the rows belong to, counted from 0, where they are not all of them: for every site that
                has positions, or by site.
            copy: Whether values are copied, so that they may be changed afterwards. Without it, those that lie on the CPU
                in one piece and in the type that is stored are kept as they are until `flush` or `close`, and must stay so.

        Raises:
            RecordError: a part does not fit; the store and the writer are then as before. Or the disk is full, or cannot be
                written; the writer is then closed, and what is committed is intact.
        """
        self._usable()
        kept = row(example, tokens, metadata)
        if kept.id in self._seen:
            raise RecordError(f"there is an example {kept.id!r} already: an id names one example")
        if kept.id in self._before:
            self._seen.add(kept.id)
            return False
        settled, pieces = fitted(kept, values, self._manifest.sites, positions, self._room, copy=copy)
        if settled != self._manifest.sites:
            self._manifest = replace(self._manifest, sites=settled)
        self._seen.add(kept.id)
        self._rows.append(kept)
        for site, one in pieces.items():
            self._found[site].add(one)
            self._bytes += one.values.nbytes
        if self._bytes >= self._manifest.shard_bytes:
            self._send()
        return True

    def add_batch(self, examples: Sequence[str | int], values: Mapping[str, Tensor | Sequence[Tensor]], tokens: Tokens,
                  metadata: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Put in what one forward pass gave, without its padding; how many were new.

        Args:
            examples: Ids.
            values: Per site a tensor [batch, …] over the padded positions of `tokens`, or a list of one tensor per example.
            tokens: The tokens of the batch.
            metadata: Per example.

        Raises:
            RecordError: as `add`, or there are not as many of one as of the other.
        """
        counts = {"examples": len(examples), "tokens": len(tokens), **{site: len(one) for site, one in values.items()}}
        counts |= {} if metadata is None else {"metadata": len(metadata)}
        if len(set(counts.values())) > 1:
            raise RecordError("not one of each per example: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
        new = 0
        for i, example in enumerate(examples):
            if str(example) in self._before - self._seen:
                self._seen.add(str(example))
                continue
            own = {site: unpadded(site, self._manifest.sites.get(site), one, tokens, i) for site, one in values.items()}
            new += self.add(example, own, tokens.ids[i], metadata[i] if metadata else None)
        return new

    def flush(self) -> None:
        """Commit what is in memory as a shard, however small. Raises RecordError when it cannot be written."""
        self._usable()
        self._send()
        self._settle()

    def _send(self, *, only: bool = False) -> None:
        """Send what is in memory off to the disk, as soon as the values of the shard before it are in their file.

        Args:
            only: It is the only shard of a store that is sealed next, which commits it.
        """
        self._settle(1 if self._flights and self._flights[-1].written() else 0)
        if not self._rows:
            return
        last = max((int(one.name) for one in self._manifest.shards), default=-1)
        name = f"{1 + last + len(self._flights):06d}"
        before = self._flights[-1] if self._flights else None
        self._flights.append(Flight(self.path, name, self._manifest, self._rows, self._found, before,
                                    partial(self._room.again, self._room.emptied()), self._lock, only=only))
        self._rows, self._found, self._bytes = [], {site: Gathered() for site in self._found}, 0

    def _settle(self, on_the_way: int = 0) -> None:
        """Wait until so many shards are on the way, and count those that are committed.

        Raises:
            RecordError: one could not be written; the writer is then closed.
        """
        while len(self._flights) > on_the_way:
            first = self._flights[0]
            entry = first.landed()
            if entry is None:
                self._failed(first.error)
            self._flights.pop(0)
            self._manifest = replace(self._manifest, shards=(*self._manifest.shards, entry), complete=False)

    def _failed(self, error: BaseException | None) -> NoReturn:
        for one in self._flights:
            one.landed()
        self._left()
        self._stop()
        if isinstance(error, OSError):
            raise RecordError(self._stopped(error)) from error
        assert error is not None
        raise error

    def _left(self) -> None:
        """Keep what was committed, whatever went wrong after that, and sweep away what was not."""
        with suppress(RecordError, OSError):
            self._manifest = files.read(self.path)[0]
            sweep(self.path, self._manifest)

    def close(self) -> None:
        """Commit the rest, seal the store and let others write. Raises RecordError as `flush`."""
        if not self._open_now:
            return
        try:
            self._usable()
            self._send(only=not self._manifest.shards and not self._flights)
            self._settle()
            if not self._manifest.complete or (self.path / files.JOURNAL).exists():
                self._manifest = replace(self._manifest, complete=True)
                files.seal(self.path, self._manifest)
        except OSError as error:
            self._left()
            raise RecordError(self._stopped(error)) from error
        finally:
            self._stop()

    def _stop(self) -> None:
        self._open_now = False
        for one in self._flights:
            one.landed()
        self._flights, self._room = [], Room()
        self._lock.release()

    def _stopped(self, error: OSError) -> str:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        return (f"{self.path} could not be written on: {why}. Its {len(self._manifest.shards)} shards with {len(self)} "
                "examples are intact; resume=True continues after them")

    def _usable(self) -> None:
        if not self._open_now:
            raise RecordError(f"this writer of {self.path} is closed: open another with resume=True")
        if os.getpid() != self._pid:
            raise RecordError(f"this writer of {self.path} belongs to process {self._pid}: give each process a store of its "
                              "own and merge them")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        elif self._open_now:
            self._stop()
