"""A shard: one safetensors file with the values of some examples, written piece by piece and read through a memory map.

For a site `S` it holds `S` (the values of all its examples, one behind the other), and as the layout needs `S@offsets`
(int64 [example + 1], in rows of `S`), `S@shapes` (int64 [example, axis]) and `S@positions` (int32: the token of each row,
where those are not simply all of them). Any reader of safetensors reads it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...errors import RecordError
from .checksum import crc32
from .gathered import Gathered
from .layout import DTYPES, Layout

_CODES = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "float16": "F16", "bfloat16": "BF16",
          "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
_WRITE = 1 << 20  # one write of many megabytes costs Linux several times as much
_VIEWS = 512  # Linux takes up to 1024 in a write
_NAMES = {code: name for name, code in _CODES.items()}


@dataclass(frozen=True)
class Part:
    """One tensor of a shard: its bytes, in pieces that follow each other in the file, and their CRC-32."""

    dtype: str
    shape: tuple[int, ...]
    views: Sequence[memoryview] = ()
    crc: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes on the disk."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def parts(site: str, layout: Layout, found: Gathered, n_tokens: Sequence[int | None]) -> dict[str, Part]:
    """The tensors that a shard holds for one site."""
    assert layout.dtype is not None
    pieces = found.pieces
    rows = [len(one.values) for one in pieces]
    made = {site: Part(layout.dtype, (sum(rows), *layout.row), found.views(), found.crc)}
    if layout.kind != "single":
        made[f"{site}@offsets"] = _numbers("int64", np.array([0, *accumulate(rows)]))
    if layout.kind == "flat":
        made[f"{site}@shapes"] = _numbers("int64", np.array([one.shape for one in pieces]).reshape(len(rows), -1))
    if layout.pos_axis is not None and any(one.positions is not None for one in pieces):
        at = [one.positions if one.positions is not None else range(one.shape[layout.pos_axis]) for one in pieces]
        made[f"{site}@positions"] = _numbers("int32", np.array([p for some in at for p in some]))
    return made


def _numbers(dtype: str, array: np.ndarray) -> Part:
    view = memoryview(array.astype(dtype).tobytes())
    return Part(dtype, array.shape, [view], crc32(view))


def header(tensors: Mapping[str, Part]) -> tuple[bytes, list[str]]:
    """The head of the file, and the order in which the tensors follow: wide types first, so that each is aligned."""
    order = sorted(tensors, key=lambda name: (-DTYPES[tensors[name].dtype].itemsize, name))
    told, at = {}, 0
    for name in order:
        told[name] = {"dtype": _CODES[tensors[name].dtype], "shape": list(tensors[name].shape),
                      "data_offsets": [at, at + tensors[name].nbytes]}
        at += tensors[name].nbytes
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 64)
    return len(text).to_bytes(8, "little") + text, order


def size(tensors: Mapping[str, Part]) -> int:
    """Bytes of the file that `write` would make."""
    return len(header(tensors)[0]) + sum(part.nbytes for part in tensors.values())


def write(path: Path, tensors: Mapping[str, Part]) -> dict[str, int]:
    """Write a shard, which appears whole or not at all; the CRC-32 of its head (under "") and of every tensor.

    Raises:
        OSError: it could not be written; what had been is gone again.
    """
    head, order = header(tensors)
    with _appearing(path) as file:
        _put(file, [memoryview(head)])
        for name in order:
            _put(file, tensors[name].views)
    return {"": crc32(head), **{name: tensors[name].crc for name in order}}


def write_bytes(path: Path, data: bytes) -> None:
    """The same for a file of any bytes."""
    with _appearing(path) as file:
        _put(file, [memoryview(data)])


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is written. It is not on the disk by then: that takes an fsync."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb", buffering=0) as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _put(file: BinaryIO, views: Iterable[memoryview]) -> None:
    """All of it, in writes of a size that suits the system."""
    some: list[memoryview] = []
    held = 0
    for view in views:
        for start in range(0, len(view), _WRITE):
            part = view[start : start + _WRITE]
            if some and (held + len(part) > _WRITE or len(some) == _VIEWS):
                _write(file, some)
                some, held = [], 0
            some.append(part)
            held += len(part)
    if some:
        _write(file, some)


def _write(file: BinaryIO, views: Sequence[memoryview]) -> None:
    """In one write, or as many as it takes where the system takes less at a time."""
    done = os.writev(file.fileno(), views) if len(views) > 1 and hasattr(os, "writev") else 0
    for view in views:
        rest, done = view[done:], max(0, done - len(view))
        while rest:
            rest = rest[file.write(rest) or 0:]


class Shard:
    """A shard that is read through a memory map: only what is asked for comes from the disk.

    Raises:
        RecordError: the file is missing, cut short, or its head is not the one that was written.
    """

    def __init__(self, path: Path, n_bytes: int, head_sum: int) -> None:
        self.path = path
        try:
            if path.stat().st_size != n_bytes:
                raise RecordError(f"{path} has {path.stat().st_size} bytes of {n_bytes}: it was cut short or changed. "
                                  "`store.verify()` says what is lost")
            self._map = np.memmap(path, np.uint8, "c")
        except FileNotFoundError:
            raise RecordError(f"{path} is gone: if the store was compacted meanwhile, open it again") from None
        except OSError as error:
            raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
        self._start = 8 + int.from_bytes(self._map[:8].tobytes(), "little")
        head = self._map[: self._start].tobytes()
        if crc32(head) != head_sum:
            raise RecordError(f"{path} has a damaged head: `store.verify()` checks the rest")
        self.told: dict[str, Any] = json.loads(head[8:])
        self._mapped: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """A tensor that is a window on the file: clone what is to be kept or changed."""
        found = self._mapped.get(name)
        if found is None:
            told = self.told[name]
            dtype, (start, stop) = DTYPES[_NAMES[told["dtype"]]], told["data_offsets"]
            count = (stop - start) // dtype.itemsize
            flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._start + start) if count else \
                torch.empty(0, dtype=dtype)
            found = self._mapped[name] = flat.reshape(told["shape"])
        return found

    @cached_property
    def _bounds(self) -> dict[str, np.ndarray]:
        return {}

    def bounds(self, site: str, layout: Layout) -> np.ndarray:
        """int64 [example + 1]: where each example's rows begin and end."""
        if site not in self._bounds:
            self._bounds[site] = np.arange(len(self.tensor(site)) + 1) if layout.kind == "single" else \
                self.tensor(f"{site}@offsets").numpy()
        return self._bounds[site]

    def example(self, site: str, layout: Layout, i: int) -> Tensor:
        """The value of the shard's i-th example, as a window on the file, with the axes of the layout."""
        start, stop = self.bounds(site, layout)[i : i + 2]
        values = self.tensor(site)[start:stop]
        if layout.kind == "rows":
            return values
        return values[0] if layout.kind == "single" else values.reshape(self.tensor(f"{site}@shapes")[i].tolist())

    def has_positions(self, site: str) -> bool:
        """Whether some example of the shard has selected positions only."""
        return f"{site}@positions" in self.told

    def positions(self, site: str, layout: Layout, i: int) -> np.ndarray | None:
        """The tokens of the i-th example's rows; None where they are all of its tokens, in order."""
        if not self.has_positions(site):
            return None
        if layout.kind == "flat":
            sizes = self.tensor(f"{site}@shapes")[:, layout.pos_axis].numpy()
            start, stop = int(sizes[:i].sum()), int(sizes[: i + 1].sum())
        else:
            start, stop = self.bounds(site, layout)[i : i + 2]
        return self.tensor(f"{site}@positions").numpy()[start:stop]


def damage(path: Path, n_bytes: int, sums: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """What of a shard is not as it was written: (tensor, or "" for the file; what is wrong)."""
    try:
        found = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            head = first + file.read(min(int.from_bytes(first, "little"), n_bytes))
            if crc32(head) != sums[""]:
                yield "", "the head was changed: no tensor can be told apart"
                return
            if found != n_bytes:
                yield "", f"has {found} bytes of {n_bytes}"
            for name, told in json.loads(head[8:]).items():
                start, stop = told["data_offsets"]
                file.seek(len(head) + start)
                if len(head) + stop > found:
                    yield name, f"is cut short by {min(len(head) + stop - found, stop - start)} of its {stop - start} bytes"
                elif _sum(file, stop - start) != sums[name]:
                    yield name, "was changed: its checksum is another"
    except OSError as error:
        yield "", "is missing" if isinstance(error, FileNotFoundError) else f"could not be read: {error.strerror}"


def _sum(file: BinaryIO, n: int) -> int:
    total = 0
    while n and (block := file.read(min(n, 1 << 20))):
        total, n = crc32(block, total), n - len(block)
    return total
