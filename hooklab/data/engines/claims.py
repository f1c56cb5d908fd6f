"""The folder in which several processes share numbered parts out among themselves: nothing but files, no messages.

    plan.json                 what is done: whoever joins must want the same
    claims/NNNNNN.G           who works on part N; a later G takes over from an owner that died or fell silent
    work/NNNNNN.G/            a part while it is written
    parts/NNNNNN/             a part that is complete, checked, and published
    ends/NNNNNN               there is no such part, nor one behind it
    journal/TOKEN.jsonl       a line for each part that this owner published; nothing is ever taken out
    errors/TOKEN.json         why this owner stopped

A claim is a file that can be made only once. Taking over makes the next one, so that of several who would, one does; no
claim that others may have read is taken away. A part appears by one rename, which fails where the part is there already: an
owner that was given up for dead and comes back publishes nothing twice. When the parts are merged, `merged.json` says so
before they are thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ...errors import RecordError
from ...files import write_whole
from ..store.manifest import sync
from .owner import Owner

VERSION = 1
PLAN, MERGED = "plan.json", "merged.json"
INNER = ("claims", "work", "parts", "ends", "journal", "errors")
LEASE = 60.0


@dataclass(frozen=True)
class Claim:
    """A part, or "merge", that this process alone works on.

    Attributes:
        name: Which.
        generation: How many had it before.
        path: The file that says so.
    """

    name: str
    generation: int
    path: Path

    def held(self) -> bool:
        """Whether no other has taken over meanwhile."""
        later = self.path.with_name(f"{self.name}.{self.generation + 1}")
        return self.path.exists() and not later.exists()

    def release(self) -> None:
        """Let the next one have it."""
        with suppress(OSError):
            told = json.loads(self.path.read_text())
            write_whole(self.path, json.dumps({**told, "released": True}).encode(), replace=True)

    @contextmanager
    def beating(self, lease: float) -> Iterator[None]:
        """Leave a sign of life on the disk, four times in a lease."""
        done = Event()

        def beat() -> None:
            while not done.wait(lease / 4):
                with suppress(OSError):
                    os.utime(self.path)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Shared:
    """The folder, as one process sees it.

    Args:
        path: Where; made if there is none.
        owner: The process.
        settings: What is done; must be what it was begun with.
        count: How many parts; None where that shows when one is asked for that is not there.
        lease: Seconds without a sign of life after which an owner on another machine counts as dead.

    Raises:
        RecordError: the folder was begun with other settings, or cannot be written.
    """

    def __init__(self, path: Path, owner: Owner, settings: Mapping[str, Any], count: int | None = None,
                 lease: float = LEASE) -> None:
        self.path, self.owner, self.count, self.lease = path, owner, count, lease
        self._seen: dict[tuple[str, int], tuple[int, float]] = {}
        try:
            for name in INNER:
                (path / name).mkdir(parents=True, exist_ok=True)
            self._agree({"hookparts": VERSION, "count": count, "settings": dict(settings)})
        except OSError as error:
            raise RecordError(f"{path} could not be written: {error.strerror or error}") from error

    def _agree(self, asked: dict[str, Any]) -> None:
        try:
            asked = json.loads(json.dumps(asked, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise RecordError(f"settings must be what JSON can hold: {error}") from error
        with suppress(FileExistsError):
            write_whole(self.path / PLAN, json.dumps(asked).encode())
        found = json.loads((self.path / PLAN).read_text())
        if found == asked:
            return
        mine, theirs = {**asked, **asked["settings"]}, {**found, **found.get("settings", {})}
        odd = [f"{key}={theirs.get(key)!r}, not {mine.get(key)!r}" for key in sorted({*mine, *theirs} - {"settings"})
               if mine.get(key) != theirs.get(key)]
        raise RecordError(f"{self.path} was begun with other settings: {'; '.join(odd)}. Ask for the same to continue, or "
                          "delete the folder to begin anew")

    # What there is ---------------------------------------------------------------------------------------------------

    def _names(self, inner: str) -> list[str]:
        try:
            return os.listdir(self.path / inner)  # noqa: PTH208  # names only, and many of them
        except FileNotFoundError:
            return []

    def published(self) -> set[int]:
        """Parts that are complete."""
        return {int(name) for name in self._names("parts") if name.isdigit()}

    def end(self) -> int | None:
        """How many parts there are; None while nobody knows."""
        return min([int(name) for name in self._names("ends")], default=None) if self.count is None else self.count

    def complete(self) -> bool:
        """Whether every part is published, or was. Raises RecordError where there is one behind the end."""
        end, found = self.end(), self.published()
        if end is not None and found and (last := max(found)) >= end:
            raise RecordError(f"one worker found that the source ends before part {end}, another made part {last}: it is "
                              "not the same each time it is read. Give a list or a file")
        return (end is not None and len(found) == end) or (self.path / MERGED).exists()

    def parts(self) -> tuple[Path, ...]:
        """The parts, in order."""
        return tuple(self.path / "parts" / f"{p:06d}" for p in range(self.end() or 0))

    def journal(self) -> list[dict[str, Any]]:
        """What was published by whom, the last of each part, in their order; a line that was cut short is passed over."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.path / "journal").glob("*.jsonl")):
            for line in path.read_bytes().splitlines(keepends=True):
                with suppress(ValueError):
                    found += [json.loads(line)] if line.endswith(b"\n") else []
        last = {one["part"]: one for one in sorted(found, key=lambda one: (not one.get("found"), one["at"]))}
        return [last[part] for part in sorted(last)]

    # Claims ----------------------------------------------------------------------------------------------------------

    def claims(self) -> dict[str, int]:
        """Name -> its last generation."""
        found: dict[str, int] = {}
        for name, _, generation in (file.rpartition(".") for file in self._names("claims")):
            if generation.isdigit() and not name.startswith("."):
                found[name] = max(found.get(name, 0), int(generation))
        return found

    def take(self, name: str, generation: int | None) -> Claim | None:
        """A claim that nobody has, or whose owner is gone; None where another has it."""
        if generation is not None and not self._stale(name, generation):
            return None
        claim = Claim(name, number := 0 if generation is None else generation + 1,
                      self.path / "claims" / f"{name}.{number}")
        try:
            with claim.path.open("x") as file:
                json.dump(asdict(self.owner), file)
        except (FileExistsError, FileNotFoundError):  # another's; or the parts were merged just now
            return None
        return claim

    def next(self) -> Claim | None:
        """The first part that is free; None where there is none now."""
        claims, published, end = self.claims(), self.published(), self.end()
        known = [int(name) for name in claims if name.isdigit()]
        for p in range(end if end is not None else max(known, default=-1) + 2):
            if p in published:
                continue
            claim = self.take(name := f"{p:06d}", claims.get(name))
            if claim is None:
                continue
            if not self.has(claim):  # otherwise it was published while this one looked
                return claim
            claim.release()
        return None

    def has(self, claim: Claim) -> bool:
        """Whether the part is published, or was."""
        return (self.path / "parts" / claim.name).exists() or (self.path / MERGED).exists()

    def _stale(self, name: str, generation: int) -> bool:
        path = self.path / "claims" / f"{name}.{generation}"
        try:
            changed = path.stat().st_mtime_ns
            told = json.loads(path.read_text())
        except FileNotFoundError:
            return False
        except ValueError:  # its owner is writing it, or died while it did
            told = None
        if told:
            if told.pop("released", False):
                return True
            alive = Owner(**told).alive()
            if alive is not None:
                return not alive
        before, since = self._seen.get((name, generation), (None, 0.0))
        if before != changed:  # clocks of two machines differ: only this process's own counts
            self._seen[name, generation] = changed, time.monotonic()
            return False
        return time.monotonic() - since > self.lease

    def release_of(self, token: str) -> list[int]:
        """Let others have what an owner held that is known to be dead; which parts that were."""
        held = []
        for name, generation in self.claims().items():
            path = self.path / "claims" / f"{name}.{generation}"
            with suppress(OSError, ValueError):
                told = json.loads(path.read_text())
                if told["token"] == token and not told.get("released") and not (self.path / "parts" / name).exists():
                    Claim(name, generation, path).release()
                    held += [int(name)] if name.isdigit() else []
        return held

    # Writing ---------------------------------------------------------------------------------------------------------

    def room(self, claim: Claim) -> Path:
        """Where the part is to be written; what its owners before left half done is gone."""
        for name in self._names("work"):
            part, _, generation = name.partition(".")
            if part == claim.name and int(generation) <= claim.generation:
                shutil.rmtree(self.path / "work" / name, ignore_errors=True)
        return self.path / "work" / f"{claim.name}.{claim.generation}"

    def publish(self, claim: Claim, made: Path, about: Mapping[str, Any]) -> bool:
        """Give a part its place, and enter it in the journal; False where it is there already."""
        target = self.path / "parts" / claim.name
        try:
            made.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(made, ignore_errors=True)
            return False
        sync(target.parent)
        self.note({"part": int(claim.name), "generation": claim.generation, "host": self.owner.host, "pid": self.owner.pid,
                   **about})
        return True

    def note(self, line: Mapping[str, Any]) -> None:
        """Enter a line in this owner's journal."""
        with (self.path / "journal" / f"{self.owner.token}.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps({**line, "at": round(time.time(), 3)}).encode() + b"\n")
            os.fsync(file.fileno())

    def ends_before(self, p: int) -> None:
        """Say that there is no part p."""
        (self.path / "ends" / f"{p:06d}").touch()

    def clear(self, *inner: str) -> None:
        """Take folders away that are no longer needed, each in one step; and files that somebody died over."""
        for left in self.path.glob(".*.json.*.part"):
            left.unlink(missing_ok=True)
        for name in inner:
            with suppress(FileNotFoundError):
                (self.path / name).rename(self.path / f".{name}.{self.owner.token}")
            for gone in self.path.glob(f".{name}.*"):
                shutil.rmtree(gone, ignore_errors=True)
