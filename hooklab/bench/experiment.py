"""A function whose every call is kept.

    call ──arguments, code, environment──▶ a run begins ──the function──▶ the run ends, the caller has the value
"""

from __future__ import annotations

import functools
import inspect
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from ..errors import HooklabWarning, RecordError
from ..html import number
from . import interrupts
from .code import Code, code_of
from .digest import Digest, digest, fingerprint, is_model
from .environment import checked_seed, environment, random_hashes, seeded
from .needs import Handed, Needs, Prepared, hand
from .running import Running, around, going, new_id

if TYPE_CHECKING:
    from .listing import Records, Versions
    from .record import Record
    from .workbench import Bench

LINE = 200
MOST_WORDS = 20_000
"""Characters of the texts in one argument that are kept to be searched."""


class Experiment:
    """A function of a bench. A call returns what the function returns, and raises what it raises.

    Attributes:
        function: The function itself; calling it keeps nothing.
        name: Under which its runs are kept.
        seed: That each of its runs draws from; None to leave random numbers alone.
        last: The name of the last run that this process made of it; "" before the first.
    """

    def __init__(self, function: Any, bench: Bench, name: str | None = None, seed: int | None = None) -> None:
        self.needs = function.needs if isinstance(function, Prepared) else Needs()
        self.function: Callable[..., Any] = _checked(function.function if isinstance(function, Prepared) else function)
        self.bench, self.seed, self.last = bench, checked_seed(seed), ""
        self.name = _named(name if name is not None else getattr(self.function, "__name__", ""))
        functools.update_wrapper(self, self.function)
        inspected = inspect.unwrap(self.function)
        if isinstance(inspected, FunctionType):
            import linecache

            linecache.getlines(inspected.__code__.co_filename, inspected.__globals__)  # as it is now, before it is edited

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def code(self) -> Code:
        """The function's code as it is now."""
        from .toolbox import find

        own = {name: tool.value for name, wanted in self.needs.tools.items()
               if (tool := find(wanted, self.bench.own_tools)).own}
        return code_of(self.function, own)

    def runs(self) -> Records:
        """The runs that are kept under this name."""
        return self.bench.runs(self.name)

    def versions(self) -> Versions:
        """The versions that are kept under this name."""
        return self.bench.versions(self.name)

    def record(self) -> Record:
        """The last run that this process made. Raises RecordError before the first."""
        if not self.last:
            raise RecordError(f"{self.name} was not called yet")
        return self.bench.get(self.last)

    def __repr__(self) -> str:
        return f"Experiment {self.name} of {self.bench.folder}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function and keep the call.

        Raises:
            RecordError: nothing can be kept; the function was not called.
            Exception: what the function raises; the run is kept with its traceback.
        """
        interrupts.now()
        handed = hand(self.function, self.needs, self.bench, args, kwargs)
        bound = _bound(self.function, args, {**kwargs, **handed.tools, **handed.drawn})
        run = self._begin(bound, handed)
        started, error = time.perf_counter(), None
        try:
            with going(run), seeded(self.seed):
                value = self.function(*bound.args, **bound.kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = time.perf_counter() - started
            if error is not None:
                self._ended(run, seconds, None, error)
        self._ended(run, seconds, value, None)
        return value

    def _begin(self, bound: inspect.BoundArguments, handed: Handed) -> Running:
        code = self.code()
        inputs = {name: value for name, value in bound.arguments.items()
                  if name not in handed.tools and name not in handed.drawn}
        for parameter in bound.signature.parameters.values():  # what **kwargs caught of the tools is no input
            if parameter.kind is parameter.VAR_KEYWORD and parameter.name in inputs:
                inputs[parameter.name] = {name: value for name, value in inputs[parameter.name].items()
                                          if name not in handed.tools and name not in handed.drawn}
        told, by_kind = arguments(inputs)
        about = {"arguments": told, "by_kind": [*by_kind, *(f"code: {one}" for one in code.by_kind)],
                 "models": {**self.bench.known(inputs, code), **code.models}, "seed": self.seed,
                 "model_names": self.bench.model_names(inputs, code), "random": random_hashes(),
                 "tools": handed.origins, "needs": self.needs.plain(),
                 "environment": environment(_folder(self.function), code.packages)}
        run = Running(new_id(), self.bench, around(), handed.figures)
        self.bench.begin(run, self.name, code, about, inputs)
        self.last = run.id
        return run

    def _ended(self, run: Running, seconds: float, value: Any, error: BaseException | None) -> None:
        """Keep how it ended; what goes wrong with that must not take the value from the caller."""
        status = "finished" if error is None else "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        about: dict[str, Any] = {}
        if error is not None:
            own = error.__traceback__.tb_next if error.__traceback__ is not None else None
            about["error"] = {"type": type(error).__qualname__, "message": _text(error), "traceback": "".join(
                traceback.format_exception(type(error), error, own or error.__traceback__))}
        try:
            with interrupts.later():
                self.bench.end(run, status, seconds, about, value)
        except Exception as trouble:
            warnings.warn(f"{self.name} has run, and its {'value is' if error is None else 'error is'} yours, but the run "
                          f"{run.id} could not be kept whole: {type(trouble).__name__}: {trouble}", HooklabWarning,
                          stacklevel=3)


def _checked(function: Any) -> Callable[..., Any]:
    if isinstance(function, Experiment):
        raise RecordError(f"{function.name} is an experiment already")
    if inspect.isclass(function) or not callable(function):
        raise RecordError(f"an experiment is a function, not {function!r}")
    for fits, what in ((inspect.iscoroutinefunction, "async"), (inspect.isasyncgenfunction, "an async generator"),
                       (inspect.isgeneratorfunction, "a generator")):
        if fits(inspect.unwrap(function)):
            raise RecordError(f"{getattr(function, '__name__', function)} is {what}: its work would be done after the call, "
                              "and not be kept; make it a function that returns its result")
    return function


def _named(name: str) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > LINE or not name.isprintable():
        raise RecordError(f"{name!r} cannot name an experiment")
    return "function" if name == "<lambda>" else name


def _bound(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound


def _folder(function: Any) -> Path:
    code = getattr(inspect.unwrap(function), "__code__", None)
    path = Path(code.co_filename) if code is not None else Path()
    return path.parent if path.is_file() else Path.cwd()


def arguments(inputs: dict[str, Any]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Arguments as text and hash, and where a value could be told by its kind only."""
    told, by_kind = {}, []
    for name, value in inputs.items():
        made = Digest()
        made.add(value, name)
        told[name] = {"text": in_words(value), "digest": made.text()}
        if (said := _texts(value)) and said not in told[name]["text"]:  # cut off, or spelt with escapes
            told[name]["words"] = said
        by_kind += made.by_kind
    return told, by_kind


def _texts(value: Any) -> str:
    """The texts in a value, a line each, as far as they are kept."""
    found: list[str] = []
    room, left = MOST_WORDS, [value]
    for _ in range(MOST_WORDS):
        if not left or room <= 0:
            break
        one = left.pop(0)
        if isinstance(one, str):
            found.append(one[:room])
            room -= len(found[-1]) + 1
        elif type(one) in (list, tuple, dict):
            left[:0] = [*(one.values() if isinstance(one, dict) else one)][:MOST_WORDS]
    return "\n".join(found)


def in_words(value: Any) -> str:
    """A value in a line: tensors by shape and hash, models by fingerprint.

    >>> in_words({"a": 1}), in_words(0.25)
    ("{'a': 1}", '0.25')
    """
    try:
        return _in_words(value)
    except RecursionError:
        return f"<{type(value).__qualname__}, nested too deeply>"


def _in_words(value: Any) -> str:
    if is_model(value):
        return f"{type(value).__name__} #{fingerprint(value)}"
    if (shape := _shape(value)) is not None:
        if not shape:
            return _text(value)
        return f"{type(value).__name__} {str(value.dtype).removeprefix('torch.')} {list(shape)} #{digest(value)}"
    if isinstance(value, float):
        return number(value, 8)
    if isinstance(value, (list, tuple)) and len(value) <= 8:
        inside = ", ".join(map(_in_words, value)) if not all(map(_plain, value)) else None
        text = repr(value) if inside is None else f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    else:
        text = _text(value)
    return text if len(text) <= LINE else f"{text[:LINE - 20]}… #{digest(value)}"


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor or array; None for anything else, whatever its attributes do."""
    try:
        return tuple(value.shape) if hasattr(value, "dtype") else None
    except Exception:
        return None


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, type(None)))


def _text(value: Any) -> str:
    try:
        return str(value) if isinstance(value, BaseException) else repr(value)
    except Exception:  # a repr that fails is no reason not to run
        return f"<{type(value).__qualname__}>"
