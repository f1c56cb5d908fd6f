"""What a function does, as a short text: the same for the same code wherever it was defined, another for another's.

    function ──code, constants, defaults, closure, globals──▶ sha256 ──▶ "double 3f0c8a51be22"

What belongs to an installed package counts by its name. Where a function reads something that cannot be seen through, an
object of the user's or a module, the text ends in `?`: the rest is compared, and a run that goes on warns. Bytecode differs
between versions of Python, and so do these texts.
"""

from __future__ import annotations

import dis
import enum
import hashlib
import re
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from ...runtime.provenance import fingerprint

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, torch.dtype, torch.device)
LENGTH = 12


def text_of(value: Any) -> str:
    """The name of a function or value, and what tells it from others.

    >>> text_of(lambda x: x * 2) == text_of(lambda x: x * 2), text_of(lambda x: x * 2) == text_of(lambda x: x * 3)
    (True, False)
    """
    told = _Telling()
    name = getattr(value, "__name__", None) or type(value).__name__
    try:
        told.add(value, first=True)
    except Exception:  # objects of the user's that fail when they are looked into, or are nested without end
        return f"{name} {'0' * LENGTH}?"
    return f"{name} {told.hash.hexdigest()[:LENGTH]}{'' if told.whole else '?'}"


def unseen(texts: Mapping[str, Any]) -> list[str]:
    """Names of the texts of which a part could not be told; what is no text is a number, which stands for itself."""
    return [name for name, text in texts.items() if isinstance(text, str) and re.search(rf" [0-9a-f]{{{LENGTH}}}\?$", text)]


class _Telling:
    """A hash of values added one after the other.

    Attributes:
        hash: So far.
        whole: Whether all could be told.
    """

    def __init__(self) -> None:
        self.hash, self.whole = hashlib.sha256(), True
        self._open: dict[int, int] = {}

    def say(self, *words: Any) -> None:
        """Add words."""
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.hash.update(b"%d:" % len(data))
            self.hash.update(data)

    def add(self, value: Any, first: bool = False) -> None:
        """Add a value; the first is told by its code, even where it belongs to an installed package."""
        if isinstance(value, PLAIN):
            self.say(type(value).__qualname__, repr(value))
        elif id(value) in self._open:  # a function that calls itself
            self.say("again", self._open[id(value)])
        else:
            self._open[id(value)] = len(self._open)
            self._function(value) if first and isinstance(value, FunctionType) else self._add(value)
            del self._open[id(value)]

    def _add(self, value: Any) -> None:
        self.say(type(value).__qualname__)
        if isinstance(value, list | tuple):
            self.say(len(value))
            self._each(value)
        elif isinstance(value, Mapping):
            self.say(len(value))
            self._each(part for pair in value.items() for part in pair)
        elif isinstance(value, set | frozenset):  # whose order is another in every process
            texts = sorted(text_of(one) for one in value)
            self.say(*texts)
            self.whole &= not unseen({one: one for one in texts})
        elif isinstance(value, torch.Tensor | np.ndarray | np.generic):
            self._numbers(value)
        elif isinstance(value, FunctionType) and not _library(value.__module__):
            self._function(value)
        elif isinstance(value, MethodType):
            self._each([value.__func__, value.__self__])
        elif isinstance(value, partial):
            self._each([value.func, value.args, value.keywords])
        elif isinstance(value, CodeType):
            self._code(value)
        else:
            self._object(value)

    def _each(self, values: Any) -> None:
        for one in values:
            self.add(one)

    def _numbers(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self.say(value.dtype, tuple(value.shape))
            if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
                self.whole = False
            else:
                whole = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
                self.say(whole.reshape(-1).view(torch.uint8).numpy().tobytes())
            return
        self.say(value.dtype.str, value.shape)
        if value.dtype.hasobject:
            self.whole = False
        else:
            self.say(value.tobytes())

    def _function(self, value: FunctionType) -> None:
        """Its code, and what it reads: defaults, names of the functions around it, and global names."""
        read, written = _names(value.__code__)
        self.add(value.__code__)
        self._each([value.__defaults__, value.__kwdefaults__])
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            self.say(name)
            if name not in written:  # a counter of its own is another after every call
                with suppress(ValueError):  # a name that has no value yet
                    self.add(cell.cell_contents)
        for name in sorted((read - written) & value.__globals__.keys()):
            self.say(name)
            self.add(value.__globals__[name])

    def _code(self, code: CodeType) -> None:
        """What it does, without where it stands."""
        self.say(code.co_code, code.co_names, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
                 code.co_flags & (1 << 2 | 1 << 3))  # *args and **kwargs
        self._each(code.co_consts)

    def _object(self, value: Any) -> None:
        """Anything else: a thing of an installed package by its name, others as far as they can be looked into."""
        module = str(getattr(value, "__module__", ""))
        if isinstance(value, ModuleType):
            self.say(value.__name__)
            self.whole &= _library(value.__name__)
        elif isinstance(value, BuiltinFunctionType):
            self.say(module, value.__qualname__)
            if not isinstance(value.__self__, ModuleType | type | None):  # the append of a list
                self.add(value.__self__)
        elif isinstance(value, FunctionType | type):
            self.say(module, value.__qualname__)
            self.whole &= _library(module)
        elif hasattr(type(value), "facts"):  # an opened model
            self.say(fingerprint(value))
        elif isinstance(value, enum.Enum | PurePath):
            self.say(repr(value))
        elif isinstance(value, re.Pattern):
            self.say(value.pattern, value.flags)
        elif is_dataclass(value):
            self._kind(value)
            self._each((one.name, getattr(value, one.name, None)) for one in fields(value))
        elif isinstance(value, torch.nn.Module):
            self._kind(value)
            self._each(value.state_dict().items())
        elif _library(type(value).__module__) and callable(value):  # np.exp, an operator
            self.say(getattr(value, "__name__", ""))
            self.whole &= hasattr(value, "__name__")
        else:
            self._kind(value)
            self.whole = False

    def _kind(self, value: Any) -> None:
        """The class of an object, and the code that runs when it is called."""
        self.say(type(value).__module__)
        call = vars(type(value)).get("__call__")
        if not _library(type(value).__module__):
            self.whole = False  # what its other methods do is not followed
            if isinstance(call, FunctionType):
                self.add(call)


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Global names that code and the functions inside it read, and names outside it that they write."""
    read, written = set[str](), set[str]()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(step.argval)
        elif step.opname in ("STORE_GLOBAL", "STORE_DEREF"):
            written.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = _names(inner)
            read, written = read | more[0], written | more[1]
    return read, written


@cache
def _library(module: str | None) -> bool:
    """Whether a module is Python's, hooklab's or an installed package's.

    >>> _library("json"), _library("torch.nn"), _library("__main__")
    (True, True, False)
    """
    top = (module or "").partition(".")[0]
    if top in ("", "__main__"):
        return False
    if top == "hooklab" or top in sys.stdlib_module_names:
        return True
    try:
        found = find_spec(top)
    except (ImportError, ValueError):  # a module that was made in memory
        return False
    places = [found.origin, *(found.submodule_search_locations or ())] if found is not None else []
    installed = [Path(sysconfig.get_paths()[key]).resolve() for key in ("purelib", "platlib")]
    return any(Path(one).resolve().is_relative_to(folder) for one in places if one for folder in installed)
