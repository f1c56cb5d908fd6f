"""Runs as entries of a list, by what their `run.json` says.

    folder ──run.json, and the length of the arrays file──▶ Entry… ──load, when asked──▶ Run

No tensor is read. What cannot be read stays in the list, with the reason.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import HooklabError, RecordError
from . import saving
from .finding import Traits
from .packing import unpack
from .run import Run

CHEAP = ("spec", "metrics", "provenance")
"""The fields of a record that need no arrays."""


@dataclass(frozen=True)
class Entry:
    """One run of a list.

    Attributes:
        key: Its name in the list.
        path: Its folder; None for a run in memory.
        held: The run itself, where it is in memory.
        spec, metrics, provenance: As in `Run`.
        stored: When it was stored, in seconds since 1970; for a run in memory when it was made.
        size: Bytes.
        error: Why it cannot be read; empty when it can.
        prompts: The texts that it ran on, as far as they are stored as text.
    """

    key: str
    path: Path | None = None
    held: Run | None = None
    spec: str = ""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stored: float | None = None
    size: int = 0
    error: str = ""
    prompts: tuple[str, ...] = ()

    @property
    def first_line(self) -> str:
        """The first line of the spec that says something."""
        lines = (line.strip() for line in self.spec.split("\n"))
        return next((line for line in lines if line and not line.startswith("#")), "")

    @property
    def model(self) -> tuple[str, str]:
        """Name and fingerprint of the model."""
        about = self.provenance.get("model")
        about = about if isinstance(about, Mapping) else {}
        return str(about.get("name") or about.get("family") or ""), str(about.get("fingerprint") or "")

    @property
    def made(self) -> float | None:
        """When the run was made, in seconds since 1970; when it was stored, where it does not say."""
        told = made(self.provenance)
        return self.stored if told is None else told

    @property
    def flat(self) -> dict[str, float]:
        """`run.metric` -> number."""
        return {f"{run}.{name}": float(value) for run, row in self.metrics.items() for name, value in row.items()}

    def traits(self) -> Traits:
        """What it is found by. A metric goes by its own name too, and then stands for that of every run."""
        numbers: dict[str, list[float]] = {name: [value] for name, value in self.flat.items()}
        for row in self.metrics.values():
            for name, value in row.items():
                numbers.setdefault(name, []).append(float(value))
        prompts = {str(i): text for i, text in enumerate(self.prompts)}
        return Traits({}, [self.model], {"spec": {"spec": self.spec}, "prompt": prompts}, self.made, numbers)

    def load(self) -> Run:
        """The run itself. Raises RecordError when it cannot be read."""
        if self.held is not None:
            return self.held
        assert self.path is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is the run from before is part of the entry's name already
            return saving.load(self.path)


@dataclass(frozen=True)
class Places:
    """What lies in a folder.

    Attributes:
        runs: The folders of runs.
        aside: Runs that were being replaced when the power failed, and where they belong: the new one is not there.
        unfinished: How many saves were killed.
    """

    runs: tuple[Path, ...] = ()
    aside: tuple[tuple[Path, Path], ...] = ()
    unfinished: int = 0

    def entries(self) -> Iterator[Entry]:
        """An entry for each run."""
        yield from map(entry, self.runs)
        for place, path in self.aside:
            yield entry(place, path, f"{path.name} (from before; replacing it was interrupted)")


def places(folder: Path) -> Places:
    """What lies in a folder of runs, or in the folder of one.

    Raises:
        RecordError: there is no such folder, or it cannot be read.
    """
    folder = folder.expanduser()
    try:
        if not folder.is_dir():
            raise RecordError(f"{folder} is a file, not a folder of runs" if folder.exists() else
                              f"there is no folder {folder}")
        if _is_run(folder):
            return Places((folder,))
        inside = sorted(one for one in folder.iterdir() if one.is_dir())
    except OSError as error:
        raise RecordError(f"{folder} could not be read: {error.strerror or error}") from error
    aside = [(one, one.with_name(one.name[1:].removesuffix(".old"))) for one in inside
             if one.name.startswith(".") and one.name.endswith(".old") and _is_run(one)]
    return Places(tuple(one for one in inside if _is_run(one) and not one.name.startswith(".")),
                  tuple((one, path) for one, path in aside if not path.exists()),
                  sum(one.name.startswith(".") and one.name.endswith(".part") for one in inside))


def entry(folder: Path, path: Path | None = None, key: str = "") -> Entry:
    """The entry of a stored run.

    Args:
        folder: Where its files are.
        path: Where it belongs, if that is another place.
        key: Its name in the list; that of its folder if it is not given.
    """
    size, stored = 0, None
    key = key or folder.name.encode("utf-8", "backslashreplace").decode()  # a name of bytes that are no text
    try:
        stats = [one.stat() for one in (folder / saving.RECORD, folder / saving.ARRAYS) if one.is_file()]
        size, stored = sum(one.st_size for one in stats), max((one.st_mtime for one in stats), default=None)
        record = saving.read_document(folder)["record"]
        spec, metrics, provenance = (unpack(record.get(name), {}) for name in CHEAP)
        _check(spec, metrics, provenance, folder)
        _check_whole(folder / saving.ARRAYS)
        prompts = tuple(dict.fromkeys(_prompts(record)))
    except (HooklabError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = str(error) if isinstance(error, HooklabError) else f"{folder} cannot be read: {error}"
        return Entry(key, path or folder, stored=stored, size=size, error=text)
    return Entry(key, path or folder, None, spec, metrics, provenance, stored, size, prompts=prompts)


def _prompts(record: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the prompts: of the spec, of the values in its braces, and as the model's tokenizer read them."""
    yield from (line.strip() for line in record["spec"].split("\n") if line.strip().startswith("prompt "))
    yield from _texts(record.get("given"))
    for tokens in (record.get("tokens_of") or {}).values():
        yield from _texts(tokens.get("text"))


def _texts(packed: Any) -> Iterator[str]:
    """Every text in a packed value that is no key and no word of the format."""
    if isinstance(packed, str):
        yield packed
    elif isinstance(packed, list):
        for one in packed:
            yield from _texts(one)
    elif isinstance(packed, dict) and "$tensor" not in packed and "$array" not in packed and "$record" not in packed:
        yield from _texts(list(packed.values()))


def _is_run(folder: Path) -> bool:
    return (folder / saving.RECORD).exists() or (folder / saving.ARRAYS).exists()


def _check(spec: Any, metrics: Any, provenance: Any, folder: Path) -> None:
    numbers = isinstance(metrics, dict) and all(
        isinstance(row, dict) and all(isinstance(value, (int, float)) for value in row.values()) for row in metrics.values())
    if not isinstance(spec, str) or not numbers or not isinstance(provenance, dict):
        raise RecordError(f"{folder} holds something else than a saved run")


def _check_whole(path: Path) -> None:
    """Whether an arrays file is as long as its own head says; its bytes are compared when it is loaded."""
    if not path.is_file():
        raise RecordError(f"{path.parent} is no complete saved run: {path.name} is missing.")
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        size = path.stat().st_size
        if not 0 <= length <= size - 8:
            raise RecordError(f"{path} was cut short.")
        head = json.loads(file.read(length))
    ends = [one["data_offsets"][1] for name, one in head.items() if name != "__metadata__"]
    if size != 8 + length + max(ends, default=0):
        raise RecordError(f"{path} is not the file that was saved: it was changed or cut short.")


def made(provenance: Mapping[str, Any]) -> float | None:
    """When a run was made, in seconds since 1970; None where it does not say."""
    try:
        return datetime.fromisoformat(str(provenance.get("made"))).timestamp()
    except ValueError:
        return None
