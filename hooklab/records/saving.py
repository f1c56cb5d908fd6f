"""A Run in a folder: `run.json` for what is text and numbers, `arrays.safetensors` for tensors and arrays.

The folder appears whole or not at all. It is written under another name beside its place, brought to the disk, and only
then renamed. To replace an older run, that one is first set aside under `.NAME.old`; should the power fail right then,
`load` finds it there and says so. A folder that is no saved run is never replaced. A hidden `.NAME.….part` beside it is
what a killed save had written; it may be deleted.

`run.json` holds `hookrun` (the version of this format), `sha256` of both contents, and `record`: the fields of the Run as
`packing` writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import HooklabWarning, RecordError
from .packing import Packer, unpack
from .parts import Unstored
from .run import Run

VERSION = 1
RECORD, ARRAYS = "run.json", "arrays.safetensors"
_TAKEN = "{} exists: choose another name, or save(…, overwrite=True) to replace it."


def save(run: Run, path: str | Path, *, overwrite: bool = False) -> Path:
    """Store a run in the folder `path`; one that is there already is kept unless `overwrite`, and then until the new one
    is complete. Values of `given` that no file can hold are left out, with a warning that names them.

    Raises:
        RecordError: the path is taken, cannot be written to, or something in the run cannot be stored.
    """
    path = Path(path).expanduser().absolute()
    packer = Packer()
    record = {f.name: packer.pack(getattr(run, f.name), f.name) for f in fields(run) if f.name != "given"}
    record["given"] = _given(run, packer)
    try:
        _check_free(path, overwrite)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
        part.mkdir()
        try:
            _write(part, record, packer)
            _sync(part)
            _put(part, path, overwrite)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise RecordError(f"{path} could not be written: {error.strerror or error}.") from error
    return path


def load(path: str | Path) -> Run:
    """The run that `save` stored in the folder `path`.

    Raises:
        RecordError: there is no run, it was changed or cut short, or a newer version of hooklab stored it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as read_arrays

    folder = _settled(Path(path).expanduser().absolute())
    document = read_document(folder)
    stored = _bytes(folder / ARRAYS)
    if hashlib.sha256(stored).hexdigest() != document["sha256"].get(ARRAYS):
        raise RecordError(f"{folder / ARRAYS} is not the file that was saved: it was changed or cut short.")
    try:
        arrays = read_arrays(stored)
        record = {key: unpack(value, arrays) for key, value in document["record"].items()}
        return Run(**record)
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError, RuntimeError) as error:
        raise RecordError(f"{folder} holds something else than a saved run: {error}") from error


def _given(run: Run, packer: Packer) -> dict[str, Any]:
    """The values of the braces; what cannot be stored is replaced by a word for what it was."""
    packed, lost = {}, []
    for name, value in run.given.items():
        before = dict(packer.arrays)
        try:
            packed[name] = packer.pack(value, f"given/{name}")
        except (RecordError, RecursionError) as error:
            packer.arrays = before
            packed[name] = packer.pack(Unstored(str(error)), name)
            lost.append(str(error))
    if lost:
        warnings.warn("Saved without some values: " + "; ".join(lost) + ".", HooklabWarning, stacklevel=4)
    return packed


def _write(part: Path, record: dict[str, Any], packer: Packer) -> None:
    """Both files, down to the disk."""
    from safetensors.torch import save_file

    save_file(packer.arrays, part / ARRAYS)
    _sync(part / ARRAYS)
    with (part / ARRAYS).open("rb") as file:
        arrays = hashlib.file_digest(file, "sha256").hexdigest()
    document = {"hookrun": VERSION, "sha256": {ARRAYS: arrays, "record": _digest(record)}, "record": record}
    (part / RECORD).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="ascii")
    _sync(part / RECORD)


def _put(part: Path, path: Path, overwrite: bool) -> None:
    """Give a complete folder its name; an older run steps aside until it has it."""
    old = _aside(path)
    if overwrite and path.exists():
        if old.exists():
            _discard(old)
        os.rename(path, old)  # noqa: PTH104 - the two renames are the one place where a run changes hands
    try:
        os.rename(part, path)  # noqa: PTH104
    except BaseException as error:
        if isinstance(error, OSError) and path.exists():  # somebody else was faster
            raise RecordError(_TAKEN.format(path)) from error
        if old.exists() and not path.exists():
            os.rename(old, path)  # noqa: PTH104
        raise
    if old.exists():
        _discard(old)


def _discard(folder: Path) -> None:
    """Delete a set-aside run; it loses its name first, so that half of it is never taken for a run."""
    gone = folder.with_name(f"{folder.name.removesuffix('.old')}.{uuid.uuid4().hex[:12]}.part")
    os.rename(folder, gone)  # noqa: PTH104
    shutil.rmtree(gone, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _check_free(path: Path, overwrite: bool) -> None:
    """Raise RecordError unless a run may be written there."""
    if not path.name or not path.parent.is_dir():
        raise RecordError(f"There is no folder {path.parent}." if path.name else f"{path} is no name for a run.")
    for taken in (path, _aside(path)):
        if not os.path.lexists(taken):
            continue
        if taken.is_symlink() or not taken.is_dir():
            raise RecordError(f"{taken} exists and is {'a link' if taken.is_symlink() else 'no saved run'}.")
        strangers = sorted({one.name for one in taken.iterdir()} - {RECORD, ARRAYS})
        if strangers or not (taken / RECORD).is_file():
            raise RecordError(f"{taken} exists and is no saved run"
                              + (f": it holds {', '.join(strangers[:3])}." if strangers else "."))
        if not overwrite:
            raise RecordError(_TAKEN.format(taken))


def _settled(path: Path) -> Path:
    """The folder to read: the one named or, where replacing it was interrupted, the run from before."""
    if path.exists() or not _aside(path).is_dir():
        return path
    warnings.warn(f"Replacing {path} was interrupted; this is the run from before.", HooklabWarning, stacklevel=4)
    return _aside(path)


def read_document(folder: Path) -> dict[str, Any]:
    """`run.json`, checked. Raises RecordError."""
    if not folder.is_dir():
        raise RecordError(f"There is no saved run {folder}." if not folder.exists() else
                          f"{folder} is a file; a saved run is a folder with {RECORD} and {ARRAYS}.")
    try:
        document = json.loads(_bytes(folder / RECORD), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{folder / RECORD} was cut short or is no JSON: {error}") from error
    version = document.get("hookrun") if isinstance(document, dict) else None
    if type(version) is not int:
        raise RecordError(f"{folder / RECORD} is no saved run: it does not say which version of the format it has.")
    if version > VERSION:
        raise RecordError(f"{folder} has version {version} of the format; this hooklab reads up to {VERSION}: "
                          "install a newer hooklab.")
    if version < 1:
        raise RecordError(f"{folder} has version {version} of the format, which there never was.")
    sums, record = document.get("sha256"), document.get("record")
    if not isinstance(sums, dict) or not isinstance(record, dict) or sums.get("record") != _digest(record):
        raise RecordError(f"{folder / RECORD} is not the file that was saved: it was changed.")
    return document


def _digest(record: dict[str, Any]) -> str:
    """Of what the record says, however it is laid out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path.parent} is no complete saved run: {path.name} is missing.") from error
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror}.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows neither needs nor allows it
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
