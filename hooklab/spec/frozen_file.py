"""A frozen spec as a file: one .npz with its arrays, a manifest in JSON, and the sha256 of both. Nothing is pickled.

The manifest is the array `manifest` of the file, bytes of UTF-8:

    {"hookfreeze": 1, "sha256": "…", "text": "…", "values": {source: value}, "arrays": {"a0": sha256}}

Plain values are themselves. What JSON cannot say is an object with one key that begins with `$`:

    {"$float": "nan"}  {"$tuple": […]}  {"$dict": [[key, value], …]}  {"$range": [0, 12, 1]}  {"$slice": [1, null, null]}
    {"$array": "a0"}  {"$tensor": "a0", "dtype": "bfloat16"}
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..problems import Problem, SpecError
from .parser import parse

if TYPE_CHECKING:
    from .freeze import Frozen

VERSION = 1
MANIFEST = "manifest"
KINDS = "biufcU"  # kinds of numpy arrays that need no pickle
LONGEST = 50_000_000  # characters of a manifest
PLAIN = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")


class Packer:
    """Turns values into what JSON can say; `arrays` collects the rest.

    >>> Packer().pack((1, float("inf")))
    {'$tuple': [1, {'$float': 'inf'}]}
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def pack(self, value: Any) -> Any:
        """The JSON form of a value.

        Raises:
            TypeError: it, or a part of it, cannot be stored.
        """
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return str(value) if isinstance(value, str) else value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, (list, tuple)):
            items = [self.pack(item) for item in value]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, dict):
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: self.pack(item) for key, item in value.items()}
            return {"$dict": [[self.pack(key), self.pack(item)] for key, item in value.items()]}
        if isinstance(value, (range, slice)):
            return {f"${type(value).__name__}": [self.pack(part) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in KINDS:
            return {"$array": self._keep(np.asarray(value))}
        if type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach"):
            return self._tensor(value)
        raise TypeError(f"it is a {type(value).__module__}.{type(value).__qualname__}")

    def _tensor(self, value: Any) -> dict[str, str]:
        """A tensor as an array; of a type that numpy lacks, as its bytes."""
        import torch

        dtype = str(value.dtype).removeprefix("torch.")
        plain = value.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        if dtype not in PLAIN:
            plain = plain.view(torch.uint8) if plain.ndim else plain.reshape(1).view(torch.uint8)[None]
        return {"$tensor": self._keep(plain.numpy()), "dtype": dtype}

    def _keep(self, array: np.ndarray) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = array
        return name


def unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value that `Packer.pack` made this of. Raises KeyError, TypeError or ValueError for anything else."""
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: unpack(item, arrays) for key, item in value.items()}
    return _READ[tag](value, arrays)


def _tensor(value: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    import torch

    stored = torch.from_numpy(np.array(arrays[value["$tensor"]]))
    if value["dtype"] in PLAIN:
        return stored
    dtype = getattr(torch, value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{value['dtype']} is no dtype of torch")
    return stored[0].view(dtype)[0] if stored.ndim == 2 and stored.shape == (1, dtype.itemsize) else stored.view(dtype)


_READ: dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], Any]] = {
    "$float": lambda value, arrays: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["$float"]],
    "$tuple": lambda value, arrays: tuple(unpack(item, arrays) for item in value["$tuple"]),
    "$dict": lambda value, arrays: {unpack(key, arrays): unpack(item, arrays) for key, item in value["$dict"]},
    "$range": lambda value, arrays: range(*value["$range"]),
    "$slice": lambda value, arrays: slice(*value["$slice"]),
    "$array": lambda value, arrays: arrays[value["$array"]],
    "$tensor": _tensor,
}


def packed(frozen: Frozen) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest of a frozen spec, and its arrays."""
    packer = Packer()
    manifest = {"hookfreeze": VERSION, "text": str(frozen.spec),
                "values": {source: packer.pack(value) for source, value in frozen.values.items()}}
    manifest["arrays"] = {name: _sum(array) for name, array in packer.arrays.items()}
    return {**manifest, "sha256": _digest(manifest)}, packer.arrays


def _sum(array: np.ndarray) -> str:
    about = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _fail(path: Path, message: str, hint: str = "", kind: str = "value") -> SpecError:
    return SpecError([Problem(kind, f"{path}: {message}", hint=hint)])


def save(frozen: Frozen, path: Path, overwrite: bool) -> Path:
    """Write a frozen spec; the file appears whole or not at all.

    Raises:
        SpecError: there is a file of that name, or it cannot be written.
    """
    path = path if path.suffix else path.with_suffix(".npz")
    if path.exists() and not overwrite:
        raise _fail(path, "there is such a file already", "give another name, or overwrite=True")
    manifest, arrays = packed(frozen)
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **{MANIFEST: text}, **arrays)
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise _fail(path, f"cannot be written: {error.strerror or error}") from None
    return path


def load(path: Path) -> Frozen:
    """Read a frozen spec.

    Raises:
        SpecError: there is none, it was changed or cut short, or it is of a newer version.
    """
    from .freeze import Frozen

    try:
        with np.load(path, allow_pickle=False) as file:
            manifest = json.loads(bytes(file[MANIFEST][:LONGEST]).decode())
            version = manifest.get("hookfreeze")
            if isinstance(version, int) and version > VERSION:
                raise _fail(path, f"this is version {version} of frozen specs; versions up to {VERSION} can be read",
                            "upgrade: pip install --upgrade hooklab", "version")
            arrays = {name: file[name] for name in manifest["arrays"]}
        if _digest(manifest) != manifest["sha256"] or {n: _sum(a) for n, a in arrays.items()} != manifest["arrays"]:
            raise _fail(path, "this file was changed after it was stored", "freeze the spec anew")
        values = {source: unpack(value, arrays) for source, value in manifest["values"].items()}
        return Frozen(parse(manifest["text"]), values)
    except OSError as error:
        raise _fail(path, f"cannot be read: {error.strerror or error}") from None
    except SpecError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, zipfile.BadZipFile) as error:
        raise _fail(path, f"this is no frozen spec: {type(error).__name__}", "Frozen.save makes one") from None
