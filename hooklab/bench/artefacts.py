"""What a run is given and gives, as files: JSON beside safetensors, tables as parquet, figures as pictures. No pickle.

    value ──keep──▶ NAME.json, NAME.safetensors (and NAME.0.parquet, NAME.1.png …) ──fetch──▶ the same value

Tensors, arrays, numbers, text, containers and hooklab's records come back bit for bit. Anything else is kept as its text,
and is called "not kept as data": `fetch` gives an `Unstored` in its place, which says what it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import RecordError
from ..files import write_whole
from ..records import Activations, Run, Unstored
from ..records.packing import RECORDS, Packer, unpack
from ..tokens import Turn
from .digest import fingerprint, is_model
from .drawing import is_figure, pictures

VERSION = 1
MOST_TEXT = 20_000
MOST_BITS = 4096
"""Of a whole number that is written in decimal digits."""
RUN_FIELDS = tuple(field.name for field in fields(Run))


class Keeper(Packer):
    """A packer that knows more kinds of values, and keeps as text what it does not know.

    Attributes:
        lost: What could not be kept as data: where it stood, and what it was.
        files: What is written beside, under a number: ending -> a function that gives the bytes.
        figures: Where figures stood -> the number and the ending of their file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.files: list[dict[str, Callable[[], bytes]]] = []
        self.figures: dict[str, str] = {}
        self._open: set[int] = set()

    def pack(self, value: Any, name: str) -> Any:
        """The JSON form of any value."""
        if id(value) in self._open:
            return self._text(value, name, "holds itself")
        self._open.add(id(value))
        try:
            for fits, how in _KEEP:
                if fits(value):
                    return how(self, value, name)
            before = dict(self.arrays)
            try:
                return super().pack(value, name)
            except (RecordError, RecursionError):
                self.arrays = before
                return self._text(value, name)
        finally:
            self._open.discard(id(value))

    def _text(self, value: Any, name: str, why: str = "") -> dict[str, Any]:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        self.lost.append(f"{name} ({kind})")
        try:
            text = repr(value)
        except Exception as error:  # a repr that fails must not lose the run
            text = f"<{kind} whose repr fails: {type(error).__name__}>"
        return {"$kept": "text", "type": kind, "text": text[:MOST_TEXT], "why": why}

    def plainer(self, value: Any, name: str, what: str) -> str:
        """Note that a value is kept without its class."""
        self.lost.append(f"{name} ({type(value).__module__}.{type(value).__qualname__}, kept as a plain {what})")
        return name

    def file(self, **data: Callable[[], bytes]) -> int:
        """The number of files that are written beside, one for each ending."""
        self.files.append(data)
        return len(self.files) - 1


def _frame(keeper: Keeper, value: Any, name: str) -> Any:
    """A table as parquet, or as CSV where it would not come back the same."""
    import pandas

    try:
        held = io.BytesIO()
        value.to_parquet(held)
        data, kind = held.getvalue(), "parquet"
        pandas.testing.assert_frame_equal(pandas.read_parquet(io.BytesIO(data)), value, check_exact=True, check_freq=False)
    except Exception:  # no pyarrow, columns that it cannot hold, or cells that it turns into others
        keeper.lost.append(f"{name} (a table, kept as CSV: its types may come back otherwise)")
        data, kind = value.to_csv().encode("utf-8", "surrogatepass"), "csv"
    return {"$kept": kind, "file": keeper.file(**{kind: lambda: data})}


def _figure(keeper: Keeper, value: Any, name: str) -> Any:
    try:
        made = {ending: data() for ending, data in pictures(value).items()}
    except Exception as error:  # a picture that cannot be drawn must not lose what stands beside it
        return keeper._text(value, name, f"{type(error).__name__}: {error}")
    number = keeper.file(**{ending: (lambda data=data: data) for ending, data in made.items()})
    ending = next(iter(made))
    keeper.figures[name] = f"{number}.{ending}"
    return {"$kept": "figure", "file": number, "ending": ending}


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame" and type(value).__module__.partition(".")[0] == "pandas"


@dataclass(frozen=True)
class Needed:
    """Stands for a model among values that were kept: weights are not kept, only their fingerprint."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Picture:
    """A figure among values that were kept: the path of its PNG, or of its page where it was a view."""

    path: Path


_KEEP: tuple[tuple[Callable[[Any], bool], Callable[[Keeper, Any, str], Any]], ...] = (
    (lambda v: type(v) is Run, lambda k, v, name: {"$kept": "run", "fields": {
        one: k.pack(getattr(v, one), f"{name}/{one}") for one in RUN_FIELDS}}),
    (lambda v: type(v) is Activations, lambda k, v, name: {"$kept": "activations", "fields": {
        one: k.pack(getattr(v, one), f"{name}/{one}") for one in ("data", "tokens", "grads")}}),
    (is_model, lambda k, v, name: {"$kept": "model", "name": name, "fingerprint": fingerprint(v)}),
    (_is_frame, _frame),
    (is_figure, _figure),
    (lambda v: isinstance(v, PurePath), lambda k, v, name: {"$kept": "path", "text": str(v)}),
    (lambda v: type(v) is bytes, lambda k, v, name: {"$kept": "bytes", "text": v.hex()}),
    (lambda v: type(v) is complex, lambda k, v, name: {"$kept": "complex", "parts": [
        k.pack(v.real, name), k.pack(v.imag, name)]}),
    (lambda v: type(v) in (set, frozenset), lambda k, v, name: {"$kept": type(v).__name__, "items": [
        k.pack(one, f"{name}/{i}") for i, one in enumerate(sorted(v, key=repr))]}),
    (lambda v: isinstance(v, np.generic) and v.dtype.kind in "biufcmM", lambda k, v, name: {
        "$kept": "scalar", "dtype": v.dtype.str, "bytes": v.tobytes().hex()}),
    (lambda v: type(v) is int and v.bit_length() > MOST_BITS, lambda k, v, name: {"$kept": "int", "text": hex(v)}),
    (lambda v: isinstance(v, dict) and type(v) is not dict, lambda k, v, name: {"$kept": "dict", "items": k.pack(
        dict(v), k.plainer(v, name, "dictionary"))}),
    (lambda v: isinstance(v, (tuple, list)) and type(v) not in (tuple, list, Turn), lambda k, v, name: k.pack(
        (tuple if isinstance(v, tuple) else list)(v), k.plainer(v, name, "sequence"))),
    (lambda v: isinstance(v, str) and type(v) not in (str, np.str_), lambda k, v, name: k.pack(
        str.__str__(v), k.plainer(v, name, "text"))),
    (lambda v: isinstance(v, float) and type(v) is not float, lambda k, v, name: k.pack(
        float.__float__(v), k.plainer(v, name, "number"))),
    (lambda v: is_dataclass(v) and not isinstance(v, type) and type(v).__name__ not in RECORDS, lambda k, v, name: k.pack(
        {one.name: getattr(v, one.name, None) for one in fields(v)}, k.plainer(v, name, "dictionary"))),
)

_FETCH: dict[str, Callable[[dict[str, Any], Fetcher], Any]] = {
    "run": lambda v, of: Run(**{name: of(item) for name, item in v["fields"].items()}),
    "activations": lambda v, of: Activations(**{name: of(item) for name, item in v["fields"].items()}),
    "model": lambda v, of: Needed(v["name"], v["fingerprint"]),
    "parquet": lambda v, of: of.table(v), "csv": lambda v, of: of.table(v),
    "figure": lambda v, of: Picture(of.beside(v["file"], v.get("ending", "png"))),
    "path": lambda v, of: Path(v["text"]),
    "bytes": lambda v, of: bytes.fromhex(v["text"]),
    "complex": lambda v, of: complex(*map(of, v["parts"])),
    "set": lambda v, of: {of(one) for one in v["items"]},
    "frozenset": lambda v, of: frozenset(of(one) for one in v["items"]),
    "dict": lambda v, of: of(v["items"]),
    "scalar": lambda v, of: np.frombuffer(bytes.fromhex(v["bytes"]), np.dtype(v["dtype"]))[0],
    "int": lambda v, of: int(v["text"], 16),
    "text": lambda v, of: Unstored(f"{v['type']}: {v['text']}"),
}


class Fetcher:
    """Turns back into values what a `Keeper` made."""

    def __init__(self, path: Path, arrays: Mapping[str, Any]) -> None:
        self.path, self.arrays = path, dict(arrays)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self(one) for one in value]
        if not isinstance(value, dict):
            return value
        tag = next((key for key in value if key.startswith("$")), None)
        if tag is None:
            return {key: self(item) for key, item in value.items()}
        if tag == "$kept":
            return _FETCH[value["$kept"]](value, self)
        if tag == "$tuple":
            return tuple(self(one) for one in value["$tuple"])
        if tag == "$dict":
            return {self(key): self(item) for key, item in value["$dict"]}
        if tag == "$record":
            return RECORDS[value["$record"]](**{key: self(item) for key, item in value.items() if key != "$record"})
        return unpack(value, self.arrays)

    def beside(self, number: int, ending: str) -> Path:
        """The path of a file that was written beside."""
        return self.path.with_name(f"{self.path.name}.{number}.{ending}")

    def table(self, value: dict[str, Any]) -> Any:
        """A table that was written beside."""
        import pandas

        if value["$kept"] == "parquet":
            return pandas.read_parquet(self.beside(value["file"], "parquet"))
        return pandas.read_csv(self.beside(value["file"], "csv"), index_col=0)


def keep(value: Any, path: Path, most: int | None = None) -> Keeper:
    """Write a value under a name: `path` with an ending for each file. The JSON comes last: without it there is nothing.

    Args:
        value: Anything.
        path: Folder and name.
        most: Bytes of tensors above which nothing is written, which `lost` then says.

    Raises:
        OSError: it could not be written, or is there already.
    """
    keeper = Keeper()
    document: dict[str, Any] = {"hookbench": VERSION, "value": keeper.pack(value, path.name)}
    size = sum(tensor.nbytes for tensor in keeper.arrays.values())
    if most is not None and size > most:
        keeper.lost.append(f"{path.name} ({size:,} bytes, more than the {most:,} that are kept)")
        return keeper
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, files in enumerate(keeper.files):
        for ending, data in files.items():
            write_whole(path.with_name(f"{path.name}.{number}.{ending}"), data())
    document["lost"] = keeper.lost
    document["sha256"] = _arrays(keeper, path.with_name(f"{path.name}.safetensors")) if keeper.arrays else ""
    text = json.dumps(document, allow_nan=False, ensure_ascii=True)
    write_whole(path.with_name(f"{path.name}.json"), text.encode("ascii"))
    return keeper


def _arrays(keeper: Keeper, path: Path) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.part")
    try:
        save_file(keeper.arrays, part)
        with part.open("r+b") as file:
            os.fsync(file.fileno())
            found = hashlib.file_digest(file, "sha256").hexdigest()
        part.chmod(path.parent.stat().st_mode & 0o666)  # who may read the folder may read it
        part.replace(path)
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return found


def fetch(path: Path) -> Any:
    """The value that was kept under a name.

    Raises:
        RecordError: there is none, it was changed, or a newer hooklab wrote it.
    """
    document = read(path)
    arrays: dict[str, Any] = {}
    if document["sha256"]:
        from safetensors.torch import load

        file = path.with_name(f"{path.name}.safetensors")
        try:
            stored = file.read_bytes()
        except OSError as error:
            raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(stored).hexdigest() != document["sha256"]:
            raise RecordError(f"{file} is not the file that was written: it was changed or cut short")
        arrays = load(stored)
    try:
        return Fetcher(path, arrays)(document["value"])
    except (LookupError, TypeError, ValueError, AttributeError, OSError, RuntimeError, ImportError) as error:
        raise RecordError(f"{path} holds something else than a kept value: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """The JSON of a kept value. Raises RecordError."""
    file = path.with_name(f"{path.name}.json")
    try:
        document = json.loads(file.read_text("ascii"))
    except FileNotFoundError as error:
        raise RecordError(f"nothing is kept under {path}") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{file} cannot be read: {error}") from error
    if not isinstance(document, dict) or type(document.get("hookbench")) is not int:
        raise RecordError(f"{file} is no kept value")
    if document["hookbench"] > VERSION:
        raise RecordError(f"{file} has version {document['hookbench']} of the format; this hooklab reads up to {VERSION}: "
                          "install a newer hooklab")
    return document
