"""What a store says of itself: `manifest.json`, and behind it a journal with a line for every shard committed since.

A shard belongs to the store from the moment its line is on the disk. `close` moves the lines into the manifest, which is
replaced as a whole; a line that is in both counts once. A last line that was cut short belongs to a shard that was not
committed, and is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...files import write_whole
from .checksum import crc32
from .layout import Layout

VERSION = 1
MANIFEST, JOURNAL, SHARDS, INDEX = "manifest.json", "journal.jsonl", "shards", "index"


@dataclass(frozen=True)
class Entry:
    """One committed shard.

    Attributes:
        name: Its number, as the names of its files have it.
        examples, tokens: How many.
        bytes, index_bytes: Sizes of its two files.
        sums: CRC-32 of the head (under "") and of every tensor.
        index_sum: CRC-32 of the index file.
    """

    name: str
    examples: int
    tokens: int
    bytes: int
    index_bytes: int
    sums: dict[str, int]
    index_sum: int


@dataclass(frozen=True)
class Manifest:
    """Everything but the values.

    Attributes:
        sites: Name -> layout.
        about: `model`, `tokenizer` (fingerprints or more), `spec`, `options`: what JSON can say.
        shard_bytes: A shard is committed as soon as its values are as large.
        tags: Words to find it by.
        complete: Whether its writer was closed.
        shards: In order.
    """

    sites: dict[str, Layout]
    about: dict[str, Any]
    shard_bytes: int
    tags: tuple[str, ...] = ()
    complete: bool = False
    shards: tuple[Entry, ...] = field(default=())


def there(folder: Path) -> bool:
    """Whether a manifest is in a folder. Raises RecordError where that cannot be told, as of a name that is too long."""
    try:
        return (folder / MANIFEST).exists()
    except OSError as error:
        raise RecordError(f"{folder} could not be read: {error.strerror or error}") from error


def read(folder: Path) -> tuple[Manifest, int]:
    """The manifest with the journal's shards, and how many bytes of the journal are whole.

    Raises:
        RecordError: there is no store, it was damaged, or a newer version of hooklab wrote it.
    """
    while True:  # a writer may close meanwhile: what the journal had is then in the manifest, and the journal gone
        told, data = _document(folder)
        later, whole = _journal(folder / JOURNAL)
        if _data(folder) == data:
            break
    try:
        shards = [_entry(one) for one in told.pop("shards")]
        sites = {name: Layout(tuple(one["axes"]), None if one["sizes"] is None else tuple(one["sizes"]), one["dtype"],
                              one["chosen"])
                 for name, one in told.pop("sites").items()}
        manifest = Manifest(sites, dict(told["about"]), told["shard_bytes"], tuple(told["tags"]), told["complete"],
                            tuple(shards))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{folder / MANIFEST} lacks a part: {error}") from error
    known = {one.name for one in shards}
    new = [one for one in later if one.name not in known]
    return replace(manifest, shards=(*shards, *new), complete=manifest.complete and not new), whole


def dumped(manifest: Manifest) -> bytes:
    """The manifest as a file's content."""
    told = {"hookstore": VERSION, "sites": {name: layout.told() for name, layout in manifest.sites.items()},
            "about": manifest.about, "shard_bytes": manifest.shard_bytes, "tags": list(manifest.tags),
            "complete": manifest.complete, "shards": [asdict(one) for one in manifest.shards]}
    told["sha256"] = _digest(told)
    return (json.dumps(told, allow_nan=False) + "\n").encode()


def write(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest as a whole. Raises OSError."""
    draft(folder, manifest)
    sync(folder)


def draft(folder: Path, manifest: Manifest) -> None:
    """The same without waiting until its name is on the disk: for a store in which nothing is yet. Raises OSError."""
    write_whole(folder / MANIFEST, dumped(manifest), replace=True)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with all its shards, and drop the journal, whose lines count no more. Raises OSError."""
    write(folder, manifest)
    (folder / JOURNAL).unlink(missing_ok=True)


def enter(folder: Path, entry: Entry) -> None:
    """Commit a shard: one line, brought to the disk. Raises OSError; the journal is then as it was."""
    path = folder / JOURNAL
    new = not path.exists()  # a store that was sealed, and is continued
    text = json.dumps(asdict(entry), separators=(",", ":"), ensure_ascii=True).encode()
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            line = memoryview(b"%08x %s\n" % (crc32(text), text))
            while line:
                line = line[file.write(line) or 0:]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)
            raise
    if new:
        sync(folder)


def cut(folder: Path, whole: int) -> None:
    """Take from the journal a last line that was cut short."""
    path = folder / JOURNAL
    if path.exists() and path.stat().st_size > whole:
        os.truncate(path, whole)


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shard_path(folder: Path, name: str) -> Path:
    """The file of values of a shard."""
    return folder / SHARDS / f"{name}.safetensors"


def index_path(folder: Path, name: str) -> Path:
    """The file of examples and tokens of a shard."""
    return folder / INDEX / f"{name}.parquet"


def told(about: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a file. Raises RecordError for what JSON cannot hold."""
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(about), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RecordError(f"model, tokenizer, spec and options must be what JSON can hold: {error}") from error
    return kept


def _entry(told: Any) -> Entry:
    """A shard, whose name is a number and nothing that leads elsewhere. Raises ValueError, TypeError."""
    found = Entry(**told)
    if not (isinstance(found.name, str) and re.fullmatch(r"[0-9]+", found.name) and isinstance(found.sums, dict)):
        raise ValueError(f"{found.name!r} is no shard")
    if any(type(n) is not int or n < 0 for n in (found.examples, found.tokens, found.bytes, found.index_bytes)):
        raise ValueError(f"shard {found.name} has counts that are none")
    return found


def _data(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        return path.read_bytes()
    except FileNotFoundError:
        from ...records.saving import RECORD

        run = ". It is a saved run: hl.Run.load opens it" if (folder / RECORD).is_file() else ""
        raise RecordError(f"{folder} is no store: it has no {MANIFEST}{run}" if folder.is_dir() else
                          f"there is no store {folder}") from None
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error


def _document(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What the manifest says, and its bytes."""
    path, data = folder / MANIFEST, _data(folder)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    version = found.get("hookstore") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        if isinstance(found, dict) and "evaluation" in found:
            raise RecordError(f"{folder} holds an evaluation; its activations, where it kept any, are the store "
                              f"{folder / 'activations'}")
        raise RecordError(f"{path} does not say which version of the format it has: it is no store")
    if version > VERSION:
        raise RecordError(f"{folder} has version {version} of the format; this hooklab reads up to {VERSION}: install a "
                          "newer hooklab")
    if found.pop("sha256", None) != _digest(found):
        raise RecordError(f"{path} is not the file that was written: it was changed")
    assert isinstance(found, dict)
    return found, data


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _journal(path: Path) -> tuple[list[Entry], int]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
    entries, whole = [], 0
    for number, line in enumerate(lines, 1):
        text = line[9:-1]
        if not line.endswith(b"\n") or line[:8] != b"%08x" % crc32(text):
            if number == len(lines):
                break
            raise RecordError(f"{path}, line {number} was changed: the shard that it commits cannot be told")
        try:
            entries.append(_entry(json.loads(text)))
        except (TypeError, ValueError) as error:
            raise RecordError(f"{path}, line {number} commits no shard: {error}") from error
        whole += len(line)
    return entries, whole
