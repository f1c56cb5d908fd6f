"""What a value is, as a short hash: the same for what is the same, in every process.

    value ──Digest.add──▶ bytes ──sha256──▶ 16 characters

Numbers, text, containers, tensors and arrays count by their content, models by their fingerprint, functions by their code.
An object that hides its content counts by its kind only, and is named in `by_kind`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..records.exact import is_tensor, raw

LENGTH = 16
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice)


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class, told by its name, so that the module need not be loaded."""
    return any(base.__module__ == module and base.__name__ == name for base in type(value).__mro__)


def is_model(value: Any) -> bool:
    """Whether a value has weights: a model of hooklab, or a module of torch."""
    return is_a(value, "hooklab.model.model", "Model") or is_a(value, "torch.nn.modules.module", "Module")


def fingerprint(model: Any) -> str:
    """The fingerprint of a model's weights; see `hooklab.runtime.provenance`."""
    from ..runtime.provenance import fingerprint as of

    return of(model if is_a(model, "hooklab.model.model", "Model") else _Held(model))  # type: ignore[arg-type]


def model_name(module: Any) -> str:
    """The name of a module of torch; see `hooklab.runtime.provenance`."""
    from ..runtime.provenance import name_of

    return name_of(module)


class _Held:
    """A module of torch where the fingerprint expects a model."""

    def __init__(self, module: Any) -> None:
        self.hf = module


class Digest:
    """The hash of values added one after the other.

    >>> digest({"a": [1, 2.0]}) == digest({"a": [1, 2.0]}), digest(1) == digest(True)
    (True, False)

    Attributes:
        by_kind: Where values stood that could only be told by their kind.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._open: dict[int, int] = {}
        self.by_kind: list[str] = []

    def text(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()[:LENGTH]

    def say(self, *words: Any) -> None:
        """Add words."""
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self._hash.update(f"{len(data)}:".encode())
            self._hash.update(data)

    def add(self, value: Any, where: str = "value") -> None:
        """Add a value that stands at `where`."""
        if id(value) in self._open:  # a container that holds itself
            self.say("again", self._open[id(value)])
            return
        if type(value) in PLAIN:
            self.say(type(value).__name__, value if isinstance(value, bytes) else _digits(value))
            return
        self._open[id(value)] = len(self._open)
        try:
            next(add for fits, add in _KINDS if fits(value))(self, value, where)
        except RecursionError:
            if len(self._open) > 1:
                raise
            _kind(self, value, f"{where[:80]}, nested too deeply")
        finally:
            del self._open[id(value)]

    def items(self, values: Any, where: str) -> None:
        """Add the items of a sequence."""
        for i, value in enumerate(values):
            self.add(value, f"{where}[{i}]")


def digest(value: Any) -> str:
    """The hash of one value."""
    made = Digest()
    made.add(value)
    return made.text()


def _digits(value: Any) -> str:
    """A plain value as text; Python writes no whole number of several thousand digits in decimal."""
    return hex(value) if type(value) is int and value.bit_length() > 4096 else repr(value)


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _sequence(to: Digest, value: Any, where: str) -> None:
    to.say(_name(type(value)), len(value))
    to.items(value, where)


def _mapping(to: Digest, value: Any, where: str) -> None:
    to.say(_name(type(value)), len(value))
    for key, item in value.items():
        to.add(key, f"{where} key")
        to.add(item, f"{where}[{key!r}]")


def _set(to: Digest, value: Any, where: str) -> None:
    to.say(_name(type(value)), *sorted(map(digest, value)))


def _tensor(to: Digest, value: Any, where: str) -> None:
    to.say("tensor", value.dtype, tuple(value.shape), value.device.type)
    if str(value.layout) != "torch.strided" or value.is_quantized or value.device.type == "meta":
        _kind(to, value, where)
    else:
        to.say(raw(value).numpy().tobytes())


def _array(to: Digest, value: np.ndarray, where: str) -> None:
    to.say("array", value.dtype.str, value.shape)
    if value.dtype.hasobject:
        to.items(value.reshape(-1).tolist(), where)
    else:
        to.say(value.tobytes())


def _frame(to: Digest, value: Any, where: str) -> None:
    from pandas.util import hash_pandas_object

    to.say(_name(type(value)), list(getattr(value, "columns", [value.name if hasattr(value, "name") else ""])),
           getattr(value, "dtypes", ""), value.shape)
    try:
        to.say(hash_pandas_object(value).to_numpy().tobytes())
    except TypeError:  # cells that are lists, say
        to.items(value.to_numpy().reshape(-1).tolist(), where)


def _function(to: Digest, value: Any, where: str) -> None:
    from .code import code_of

    code = code_of(value)
    to.say("function", code.version)
    to.by_kind += [f"{where}: {one}" for one in code.by_kind]


def _state(to: Digest, value: Any, where: str) -> None:
    to.say(_name(type(value)))
    for name, item in sorted(vars(value).items()):
        to.say(name)
        to.add(item, f"{where}.{name}")


def _is_known(module: str) -> bool:
    from .reads import is_library

    return module.startswith("hooklab.") or not is_library(module)


def _record(to: Digest, value: Any, where: str) -> None:
    to.say(_name(type(value)))
    for field in fields(value):
        to.say(field.name)
        to.add(getattr(value, field.name, None), f"{where}.{field.name}")


def _kind(to: Digest, value: Any, where: str) -> None:
    to.say("kind", _name(type(value)))
    to.by_kind.append(f"{where} ({_name(type(value))})")


def _random(value: Any) -> Any:
    """The state of a source of random numbers; None for anything else."""
    for module, name, state in (("random", "Random", lambda one: one.getstate()),
                                ("torch._C", "Generator", lambda one: one.get_state()),
                                ("numpy.random._generator", "Generator", lambda one: one.bit_generator.state),
                                ("numpy.random.mtrand", "RandomState", lambda one: one.get_state())):
        if is_a(value, module, name):
            return state(value)
    return None


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Digest, Any, str], None]], ...] = (
    (is_tensor, _tensor),
    (lambda v: isinstance(v, np.ndarray), _array),
    (lambda v: isinstance(v, np.generic), lambda to, v, where: to.say("scalar", v.dtype.str, v.tobytes())),
    (is_model, lambda to, v, where: to.say("model", fingerprint(v))),
    (lambda v: isinstance(v, enum.Enum), lambda to, v, where: to.say(_name(type(v)), v.name)),
    (lambda v: isinstance(v, dict), _mapping),
    (lambda v: isinstance(v, (list, tuple)), _sequence),
    (lambda v: isinstance(v, (set, frozenset)), _set),
    (lambda v: isinstance(v, (str, bytes, int, float, complex, bytearray)),
     lambda to, v, where: to.say(_name(type(v)), repr(v))),
    (lambda v: isinstance(v, PurePath), lambda to, v, where: to.say("path", v)),
    (lambda v: type(v).__module__ == "datetime", lambda to, v, where: to.say(_name(type(v)), repr(v))),
    (lambda v: type(v).__module__ == "torch" and type(v).__name__ in ("dtype", "device", "Size"),
     lambda to, v, where: to.say("torch", v)),
    (lambda v: is_a(v, "pandas", "DataFrame") or is_a(v, "pandas", "Series") or is_a(v, "pandas.core.frame", "DataFrame")
     or is_a(v, "pandas.core.series", "Series"), _frame),
    (lambda v: isinstance(v, (FunctionType, MethodType, BuiltinFunctionType, functools.partial, type)), _function),
    (lambda v: isinstance(v, ModuleType), lambda to, v, where: to.say("module", v.__name__)),
    (lambda v: _random(v) is not None, lambda to, v, where: to.add(_random(v), where)),
    (lambda v: is_a(v, "hooklab.bench.workbench", "Bench"), lambda to, v, where: to.say("bench")),
    (lambda v: is_a(v, "traitlets.traitlets", "HasTraits"), _kind),  # a widget hangs together with all that is shown
    (is_dataclass, _record),
    (lambda v: hasattr(v, "__dict__") and not hasattr(v, "__next__") and _is_known(type(v).__module__), _state),
    (lambda v: True, _kind),
)
