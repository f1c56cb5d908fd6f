"""Values as JSON and arrays: what `saving` writes, and how it is read back. Nothing is executed, nothing is pickled.

Plain values are themselves. Everything that JSON cannot say is an object with one key that begins with `$`:

    {"$float": "nan"}                                   nan, inf, -inf
    {"$tuple": [...]}  {"$dict": [[key, value], ...]}   tuples; mappings whose keys are not plain text
    {"$tensor": name, "dtype": "bfloat16", "shape": []} a torch tensor in the arrays file
    {"$array": name, "dtype": "<f4", "shape": [2, 3]}   a numpy array there
    {"$text": [...], "dtype": "<U4", "shape": [2]}      a numpy array of text
    {"$record": "Scores", ...}                          one of the records of `RECORDS`, field by field
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError
from ..tokens import Tokens, Turn
from .exact import is_tensor, raw
from .parts import Expectation, Text, Unstored, ViewRequest
from .scores import Scores

if TYPE_CHECKING:
    from torch import Tensor

RECORDS: dict[str, Any] = {cls.__name__: cls for cls in (Scores, Text, ViewRequest, Expectation, Unstored, Tokens)}
PLAIN = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Dtypes that every version of the file format knows; others are kept as bytes."""
KINDS = "biufcmM"
FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


@dataclass
class Packer:
    """Turns values into what JSON can say, and collects their arrays on the way.

    >>> Packer().pack((1, float("inf")), "here")
    {'$tuple': [1, {'$float': 'inf'}]}
    """

    arrays: dict[str, Tensor] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def pack(self, value: Any, name: str) -> Any:
        """The JSON form of a value; `name` is where it stands, for the array's name and for messages.

        Raises:
            RecordError: a part of it cannot be stored.
        """
        if isinstance(value, np.generic) and value.dtype.kind in "biufUS":
            value = value.item()
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if isinstance(value, float):
            return float(value) if abs(value) < float("inf") else {"$float": str(float(value))}
        if isinstance(value, Turn):
            return {"$turn": list(value)}
        if type(value) in (list, tuple):
            items = [self.pack(item, f"{name}/{i}") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if type(value) is dict:
            return self._mapping(value, name)
        if is_tensor(value):
            return {"$tensor": self._keep(value, name), "dtype": str(value.dtype)[6:], "shape": list(value.shape)}
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        kind = RECORDS.get(type(value).__name__)
        if kind is not None and type(value) is kind:
            parts = {f.name: self.pack(getattr(value, f.name), f"{name}/{f.name}") for f in fields(kind)}
            return {"$record": kind.__name__, **parts}
        raise RecordError(f"{name} cannot be stored: it is a {type(value).__module__}.{type(value).__qualname__}")

    def _mapping(self, value: dict[Any, Any], name: str) -> Any:
        packed = [(key, self.pack(item, f"{name}/{key}")) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(packed)
        return {"$dict": [[self.pack(key, f"{name}/key"), item] for key, item in packed]}

    def _array(self, value: np.ndarray, name: str) -> Any:
        about = {"dtype": value.dtype.str, "shape": list(value.shape)}
        if value.dtype.kind in "OU":
            return {"$text": [self.pack(item, name) for item in value.reshape(-1).tolist()], **about}
        if value.dtype.kind not in KINDS:
            raise RecordError(f"{name} cannot be stored: it is an array of {value.dtype}")
        import torch

        if value.dtype.name in PLAIN and value.dtype.isnative:
            tensor = torch.from_numpy(np.array(value))
        else:
            tensor = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(
                0, dtype=torch.uint8)
        return {"$array": self._keep(tensor, name), **about}

    def _keep(self, tensor: Tensor, name: str) -> str:
        """Put a tensor among the arrays under a name that is still free, whole, on the CPU and with memory of its own."""
        while name in self.arrays:
            name += "~"
        if str(tensor.layout) != "torch.strided" or tensor.is_quantized or tensor.device.type == "meta":
            raise RecordError(f"{name} cannot be stored: it is a {tensor.layout} tensor on {tensor.device}, {tensor.dtype}")
        if str(tensor.dtype)[6:] in PLAIN:
            plain = tensor.detach().to("cpu").resolve_neg().contiguous()
        else:
            plain = raw(tensor)
        memory = plain.untyped_storage().data_ptr()
        self.arrays[name] = plain.clone() if memory in self.taken else plain
        self.taken.add(memory)
        return name


def unpack(value: Any, arrays: dict[str, Tensor]) -> Any:
    """The value that `Packer.pack` made this of, with the arrays that it collected.

    Raises:
        RecordError: it is nothing that was packed.
    """
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: unpack(item, arrays) for key, item in value.items()}
    if tag not in _READ:
        raise RecordError(f"{tag} is unknown to this version of hooklab")
    return _READ[tag](value, arrays)


def _tensor(value: dict[str, Any], arrays: dict[str, Tensor]) -> Tensor:
    import torch

    stored, dtype = arrays[value["$tensor"]], getattr(torch, value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise RecordError(f"{value['dtype']} is no dtype of torch")
    tensor = stored if stored.dtype == dtype else stored.clone().view(dtype)
    return tensor.reshape(value["shape"])


def _array(value: dict[str, Any], arrays: dict[str, Tensor]) -> np.ndarray:
    stored, dtype, shape = arrays[value["$array"]].numpy(), np.dtype(value["dtype"]), tuple(value["shape"])
    if dtype.kind not in KINDS:
        raise RecordError(f"an array of {dtype} is nothing that was stored")
    if stored.dtype == dtype and dtype.isnative:
        return stored.reshape(shape)
    return np.frombuffer(bytearray(stored.tobytes()), dtype=dtype, count=prod(shape)).reshape(shape)


def _text(value: dict[str, Any], arrays: dict[str, Tensor]) -> np.ndarray:
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in "OU":
        raise RecordError(f"text of {dtype} is nothing that was stored")
    array = np.empty(len(value["$text"]), dtype=dtype)
    for i, item in enumerate(value["$text"]):
        array[i] = unpack(item, arrays)
    return array.reshape(value["shape"])


def _record(value: dict[str, Any], arrays: dict[str, Tensor]) -> Any:
    if value["$record"] not in RECORDS:
        raise RecordError(f"the record {value['$record']} is unknown to this version of hooklab")
    return RECORDS[value["$record"]](**{key: unpack(item, arrays) for key, item in value.items() if key != "$record"})


_READ: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Any]] = {
    "$float": lambda value, arrays: FLOATS[value["$float"]],
    "$tuple": lambda value, arrays: tuple(unpack(item, arrays) for item in value["$tuple"]),
    "$dict": lambda value, arrays: {unpack(key, arrays): unpack(item, arrays) for key, item in value["$dict"]},
    "$turn": lambda value, arrays: Turn(*value["$turn"]),
    "$tensor": _tensor, "$array": _array, "$text": _text, "$record": _record,
}
