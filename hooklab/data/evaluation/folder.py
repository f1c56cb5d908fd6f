"""The folder of an evaluation: what was asked, and a line for every question and cell that is done.

    manifest.json   version of the format, everything that the answers depend on, checksum
    rows.jsonl      one JSON object per (question, cell), brought to the disk batch by batch
    activations/    a store (`store.store`), where activations were captured

Nothing that is there is ever written over. A last line that was cut short when a process died was not done; another line
that cannot be read is an error. One process writes at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...files import write_whole
from ..store.lock import Lock
from ..store.manifest import sync

VERSION = 1
MANIFEST, ROWS, STORE = "manifest.json", "rows.jsonl", "activations"


@dataclass(frozen=True)
class Row:
    """One question in one cell.

    Attributes:
        number, id: Which question.
        cell: Which cell; 0 is the model as it is.
        grid: Name of the grid -> label there; empty for the model as it is.
        prompt: What the model read.
        reply: What it wrote, or the choice that it finds likeliest.
        answer: The answer found in the reply; None where there is none.
        right: The right answer, or several.
        score: From 0, wrong, to 1, right.
        reason: Why.
        stopped: Why the reply ends: `"length"`, `"eos"` or `"stop"`; empty where none was written.
        log_probs: How likely each choice is, in nats.
        activations: The id of the example in the store; None where nothing was captured.
        metadata: Of the question.
    """

    number: int
    id: str
    cell: int
    grid: Mapping[str, Any]
    prompt: str
    reply: str
    answer: str | None
    right: str | tuple[str, ...]
    score: float
    reason: str
    stopped: str = ""
    log_probs: tuple[float, ...] = ()
    activations: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int]:
        """What orders the table."""
        return self.number, self.cell


def told(row: Row) -> str:
    """A row as a line."""
    line = json.dumps(asdict(row), ensure_ascii=False, allow_nan=True, default=str) + "\n"
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character, which JSON can say in other words
        line = json.dumps(asdict(row), allow_nan=True, default=str) + "\n"
    return line


def row_of(found: Mapping[str, Any]) -> Row:
    """A row from what a line holds."""
    right = found["right"]
    return Row(**{**found, "right": right if isinstance(right, str) else tuple(right),
                  "log_probs": tuple(found["log_probs"])})


def read(path: str | Path) -> tuple[dict[str, Any], list[Row], int]:
    """What was asked, what is done in the order of the questions, and how many bytes of the rows are whole.

    Raises:
        RecordError: there is no evaluation, it was changed, or a newer version of hooklab wrote it.
    """
    folder = Path(path).expanduser().absolute()
    found = _manifest(folder)
    rows, whole = _rows(folder / ROWS)
    return found, sorted(rows, key=lambda row: row.key), whole


class Folder:
    """The folder while it is being filled.

    Args:
        path: Its place; parents are made.
        asked: Everything that the answers depend on: what JSON can hold.
        about: What else is worth knowing.
        resume: Continue what is there, if the same was asked.

    Raises:
        RecordError: the folder is taken, something else was asked there, or another process is at it.
    """

    def __init__(self, path: str | Path, asked: Mapping[str, Any], about: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path).expanduser().absolute()
        asked = json.loads(json.dumps(dict(asked), default=str))
        try:
            there = (self.path / MANIFEST).exists()
            if there and not resume:
                raise RecordError(f"{self.path} holds an evaluation already: resume=True continues it, or choose another "
                                  "name")
            if not there:
                self._make()
            self._lock = Lock(self.path)
            try:
                if not there:
                    write_whole(self.path / MANIFEST, _dumped({"asked": asked, "about": dict(about)}))
                    sync(self.path)
                self.manifest, rows, whole = read(self.path)
                _agree(self.path, self.manifest["asked"], asked)
                self.rows = {row.key: row for row in rows}
                self._file = (self.path / ROWS).open("ab", buffering=0)
                self._file.truncate(whole)
                sync(self.path)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise RecordError(f"{self.path} could not be written: {error.strerror or error}") from error

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RecordError(f"{self.path} is a file; an evaluation is kept in a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        strangers = sorted(one.name for one in self.path.iterdir() if not one.name.startswith("."))
        if strangers:
            raise RecordError(f"{self.path} exists and holds no evaluation, but {', '.join(strangers[:3])}: choose another "
                              "name")

    def add(self, rows: Sequence[Row]) -> None:
        """Write the rows that are not there yet, and wait until they are on the disk. Raises RecordError."""
        new = [row for row in rows if row.key not in self.rows]
        if not new:
            return
        before = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview("".join(map(told, new)).encode())
            while left:
                left = left[self._file.write(left) or 0:]
            os.fsync(self._file.fileno())
        except BaseException as error:
            self._file.truncate(before)
            if not isinstance(error, OSError):
                raise
            raise RecordError(f"{self.path / ROWS} could not be written on: {error.strerror or error}. What is there is "
                              "intact; resume=True continues after it") from error
        self.rows |= {row.key: row for row in new}

    def close(self) -> None:
        """Let others write."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def digest(value: Any) -> str:
    """A short checksum of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _dumped(found: dict[str, Any]) -> bytes:
    content = {"evaluation": VERSION, **found}
    return (json.dumps({**content, "sha256": digest(content)}, indent=1, default=str) + "\n").encode()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"there is no evaluation in {folder}: it has no {MANIFEST}") from None
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    version = found.get("evaluation") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise RecordError(f"{path} does not say which version of the format it has: it belongs to no evaluation")
    if version > VERSION:
        raise RecordError(f"{folder} has version {version} of the format; this hooklab reads up to {VERSION}: install a "
                          "newer hooklab")
    if found.pop("sha256", None) != digest(found):
        raise RecordError(f"{path} is not the file that was written: it was changed")
    return dict(found)


def _rows(path: Path) -> tuple[list[Row], int]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
    found, whole = [], 0
    for number, line in enumerate(lines[:-1], 1):  # what stands after the last line end was cut short
        try:
            found.append(row_of(json.loads(line)))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise RecordError(f"{path}, line {number} was changed: {error}") from None
        whole += len(line) + 1
    return found, whole


def _agree(folder: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    other = [f"{key} was {_short(found.get(key))} and is {_short(asked.get(key))}"
             for key in dict.fromkeys((*found, *asked)) if found.get(key) != asked.get(key)]
    if other:
        raise RecordError(f"{folder} holds an evaluation of something else: {'; '.join(other)}. Choose another name")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
