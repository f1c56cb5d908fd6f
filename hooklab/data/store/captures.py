"""Captures that other programs left as `.pt` or `.pkl`: read without running anything that is in them, and put into a store.

Such a file is a program for a small machine that can call any function by its name. Here it may name the few that put a
tensor together, and these are carried out by functions of this file; for any other name, reading ends before the call.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import HooklabError, RecordError
from .layout import layouts
from .store import Store
from .writer import Writer

_MAGIC = 0x1950A86A20F9469CFC6C  # what files of torch.save began with before they were archives
_ADVICE = ("If you trust it, open it in the program that wrote it, and save what is in it as a plain dictionary of tensors: "
           "torch.save({name: tensor}, path)")


def read_capture(path: str | Path) -> Any:
    """What is in a `.pt`, `.pth` or `.pkl` file: tensors, numbers, text, and lists and dictionaries of them.

    Raises:
        RecordError: it holds anything else, which is named and was not run; or it cannot be read.
    """
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            return _checked(_loaded(data), path)
        found = _Reader(io.BytesIO(data)).load()
        return _checked(_loaded(data) if found == _MAGIC else found, path)
    except HooklabError:
        raise
    except Exception as error:
        # Whatever a broken or hostile file makes of the reader is an error of the file.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        hidden = "Weights only" in str(error)  # goes on to advise what must not be done
        why = f"it names {named[1]}" if named else "it cannot be read without running it" if hidden else error
        raise RecordError(f"{path} holds more than tensors and plain containers, or is damaged: {why}. It was not opened, "
                          f"and nothing in it was run. {_ADVICE}") from None


def import_captures(paths: Iterable[str | Path], out: str | Path, *, names: Mapping[str, str] | None = None,
                    axes: Mapping[str, tuple[str, ...]] | None = None, resume: bool = False) -> Store:
    """Put old captures into a store.

    Each file holds a dictionary of tensors [batch, pos, …], or one with such a dictionary under "activations", beside
    "input_ids" [batch, pos] and whatever else, which becomes metadata. `layer_3` is taken for L3.resid_post,
    `embeddings` for embed. An example is named after its file and, where the batch is larger than one, its place in it.

    Args:
        paths: The files.
        out: The store.
        names: Name in the files -> site.
        axes: Site -> axis words, without batch, of what is no site.
        resume: Continue after an interruption.

    Raises:
        RecordError: as `read_capture` and `Writer`, or a file has no activations or others than the first.
    """
    writer: Writer | None = None
    with ExitStack() as stack:  # whatever ends it, others may write afterwards
        for path in map(Path, paths):
            for example, values, tokens, metadata in _examples(path, names or {}):
                if writer is None:
                    sites = {site: (axes or {}).get(site) for site in values}
                    writer = stack.enter_context(Writer(out, layouts(sites), options={"imported": True}, resume=resume))
                try:
                    writer.add(example, values, tokens, metadata)
                except RecordError as error:
                    raise RecordError(f"{path}: {error}") from error
    if writer is None:
        raise RecordError("there are no captures to import")
    return Store(out)


def _examples(path: Path, names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Tensor], Any, dict[str, Any]]]:
    found = read_capture(path)
    if not isinstance(found, Mapping):
        raise RecordError(f"{path} holds a {type(found).__name__}; a capture is a dictionary of tensors")
    plain = {key: one for key, one in found.items() if isinstance(one, Tensor) and key != "input_ids"}
    held = found.get("activations", plain)
    if not isinstance(held, Mapping) or not held or not all(isinstance(one, Tensor) and one.ndim for one in held.values()):
        raise RecordError(f"{path} holds no dictionary of tensors [batch, pos, …]")
    ids = found.get("input_ids")
    batches = {len(one) for one in [*held.values(), *([ids] if isinstance(ids, Tensor) else [])]}
    if len(batches) > 1:
        raise RecordError(f"{path} has tensors of {' and '.join(map(str, sorted(batches)))} examples")
    metadata = {str(key): one for key, one in found.items() if key not in ("activations", "input_ids", *held)}
    for i in range(n := batches.pop()):
        values = {names.get(str(key), _site(str(key))): one[i] for key, one in held.items()}
        yield path.stem + (f"/{i}" if n > 1 else ""), values, ids[i] if isinstance(ids, Tensor) else None, metadata


def _site(name: str) -> str:
    layer = name.removeprefix("layer_")
    return f"L{layer}.resid_post" if layer != name and layer.isdigit() else "embed" if name == "embeddings" else name


def _loaded(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _Reader(pickle.Unpickler):
    """Knows the functions of `_KNOWN` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside of itself")


class _Storage:
    """The numbers of a tensor, before it has a shape."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


def _storage(data: bytes) -> _Storage:
    stored = _loaded(data)
    if not isinstance(stored, torch.TypedStorage):
        raise RecordError(f"a tensor in it has a {type(stored).__name__} for a storage")
    return _Storage(torch.empty(0, dtype=stored.dtype).set_(stored))


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RecordError(f"it holds bytes as text in {encoding!r}")
    return text.encode("latin1")


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset < 0 or min((*size, *stride), default=0) < 0 or (0 not in size and last >= len(storage.flat)):
        raise RecordError("a tensor in it reaches beyond its own numbers")
    return storage.flat.as_strided(size, stride, offset).clone()


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_KNOWN = {("torch._utils", "_rebuild_tensor_v2"): _tensor, ("torch._utils", "_rebuild_parameter"): _parameter,
          ("torch.storage", "_load_from_bytes"): _storage, ("_codecs", "encode"): _encoded,
          ("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): torch.Size, ("builtins", "set"): set,
          ("builtins", "frozenset"): frozenset}


def _checked(found: Any, path: Path) -> Any:
    """The same, once it is known to hold nothing but what it may. Raises RecordError."""
    waiting, seen = [found], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += list(one)
        elif not (one is None or isinstance(one, Tensor | str | bytes | bool | int | float | complex)):
            raise RecordError(f"{path} holds a {type(one).__name__}, neither a tensor nor a plain container. {_ADVICE}")
    return found
