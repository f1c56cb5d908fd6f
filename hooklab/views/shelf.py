"""Runs as entries of a list: stored ones by what their `run.json` says, those in memory as they are.

    folder ──run.json, and the length of the arrays file──▶ Entry… ──load, when asked──▶ Run

The list itself reads no tensor. What cannot be read stays in the list, with the reason.
"""

from __future__ import annotations

import json
import struct
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import HooklabError, RecordError, ViewError
from ..records import Run, saving
from ..records.packing import unpack

MOST_RUNS = 5000
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
    def flat(self) -> dict[str, float]:
        """`run.metric` -> number."""
        return {f"{run}.{name}": float(value) for run, row in self.metrics.items() for name, value in row.items()}

    def load(self) -> Run:
        """The run itself. Raises RecordError when it cannot be read."""
        if self.held is not None:
            return self.held
        assert self.path is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is the run from before is part of the entry's name already
            return saving.load(self.path)


def found(source: Any) -> tuple[list[Entry], str]:
    """The entries of a source, and a word about it. Raises ViewError."""
    if isinstance(source, (str, Path)):
        return in_folder(Path(source))
    if isinstance(source, Run):
        return in_memory({"run": source}), ""
    if source is None:
        source = _history()
    if isinstance(source, Mapping):
        return in_memory({str(name): run for name, run in source.items()}), ""
    try:
        listed = list(source)
    except TypeError:
        raise ViewError(f"runs takes a folder, Runs, or nothing for the cells of this notebook; this is of type "
                        f"{type(source).__name__}") from None
    return in_memory({str(getattr(one, "number", i)): getattr(one, "run", one) if not isinstance(one, Run) else one
                            for i, one in enumerate(listed, 1)})[::-1], ""


def _history() -> list[Any]:
    """The cells that this notebook has run with the hook magic. Raises ViewError where there are none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    magics = getattr(getattr(shell, "magics_manager", None), "registry", {}).get("HookMagics")
    if magics is None:
        raise ViewError('there is no notebook with %load_ext hooklab here: name a folder, as in hl.view.runs("runs"), or '
                        "give Runs: hl.view.runs({\"first\": run})")
    return list(magics.session.entries)


def in_folder(folder: Path) -> tuple[list[Entry], str]:
    """The runs in a folder (or the one that it is), newest first, and a word about what else lies there.

    Raises:
        ViewError: there is no such folder, no run in it, or more of them than a list can hold.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ViewError(f"{folder} is a file, not a folder of runs" if folder.exists() else f"there is no folder {folder}")
    places = [folder] if _is_run(folder) else sorted(one for one in folder.iterdir() if one.is_dir())
    found = [place for place in places if _is_run(place) and not place.name.startswith(".")] or (
        places if places == [folder] else [])
    if len(found) > MOST_RUNS:
        raise ViewError(f"{folder} holds {len(found):,} runs; a list holds {MOST_RUNS:,}: name a folder with fewer")
    entries = [_entry(place) for place in found] + list(_set_aside(places))
    parts = sum(place.name.startswith(".") and place.name.endswith(".part") for place in places)
    note = f"Unfinished saves, which may be deleted: {parts} (hidden folders that end in .part)." if parts else ""
    return sorted(entries, key=lambda entry: -(entry.stored or 0)), note


def in_memory(runs: Mapping[str, Any]) -> list[Entry]:
    """Runs by name as entries. Raises ViewError for what is no run."""
    found = []
    for name, run in runs.items():
        if not isinstance(run, Run):
            raise ViewError(f"{name} is no Run but of type {type(run).__name__}")
        made = run.provenance.get("made")
        size = sum(tensor.numel() * tensor.element_size() for tensor in run.data.values())
        found.append(Entry(name, None, run, run.spec, run.metrics, run.provenance, _seconds(made), size))
    return found


def _is_run(folder: Path) -> bool:
    return (folder / saving.RECORD).exists() or (folder / saving.ARRAYS).exists()


def _set_aside(places: list[Path]) -> Iterator[Entry]:
    """Runs that were being replaced when the power failed: the new one is not there, the old one still is."""
    for place in places:
        if place.name.startswith(".") and place.name.endswith(".old") and _is_run(place):
            path = place.with_name(place.name[1:].removesuffix(".old"))
            if not path.exists():
                yield _entry(place, path, f"{path.name} (from before; replacing it was interrupted)")


def _entry(folder: Path, path: Path | None = None, key: str = "") -> Entry:
    size, stored = 0, None
    key = key or folder.name.encode("utf-8", "backslashreplace").decode()  # a name of bytes that are no text
    try:
        stats = [one.stat() for one in (folder / saving.RECORD, folder / saving.ARRAYS) if one.is_file()]
        size, stored = sum(one.st_size for one in stats), max((one.st_mtime for one in stats), default=None)
        record = saving.read_document(folder)["record"]
        spec, metrics, provenance = (unpack(record.get(name), {}) for name in CHEAP)
        _check(spec, metrics, provenance, folder)
        _check_whole(folder / saving.ARRAYS)
    except (HooklabError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = str(error) if isinstance(error, HooklabError) else f"{folder} cannot be read: {error}"
        return Entry(key, path or folder, stored=stored, size=size, error=text)
    return Entry(key, path or folder, None, spec, metrics, provenance, stored, size)


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


def _seconds(made: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(made)).timestamp()
    except ValueError:
        return None


def moment(seconds: float | None) -> str:
    """A time in the words of a table, in UTC.

    >>> moment(0.0), moment(None)
    ('1970-01-01 00:00:00', '')
    """
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
