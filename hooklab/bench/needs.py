"""What a function is handed besides its arguments: tools, empty figures, and ready-made plots of its arguments.

    @bench.uses("lens") / @bench.plots("losses") ──▶ Prepared(function, tools, plots) ──handed──▶ keyword arguments
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RecordError, did_you_mean
from . import toolbox as known
from .drawing import asked, drawn, plain


@dataclass(frozen=True)
class Needs:
    """What a function asks for.

    Attributes:
        tools: Parameter -> name of a tool.
        plots: Parameter -> what is drawn on: "axes", "figure", or the rows and columns of a grid of axes; or a ready-made
            `Plot`.
    """

    tools: dict[str, str] = field(default_factory=dict)
    plots: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"tools": dict(self.tools), "plots": plain(self.plots)}


class Prepared:
    """A function that is handed what it asks for; arguments that the caller gives are left as they are."""

    def __init__(self, function: Callable[..., Any], needs: Needs, bench: Any) -> None:
        self.function, self.needs, self.bench = function, needs, bench
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        handed = hand(self.function, self.needs, self.bench, args, kwargs)
        return self.function(*args, **kwargs, **handed.tools, **handed.drawn)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)


@dataclass(frozen=True)
class Handed:
    """What one call is handed.

    Attributes:
        tools, drawn: Parameter -> value.
        origins: Parameter -> where the tool comes from.
        figures: Parameter -> the figure behind what is drawn on.
    """

    tools: dict[str, Any]
    drawn: dict[str, Any]
    origins: dict[str, str]
    figures: dict[str, Any]


def prepared(function: Any, bench: Any) -> Prepared:
    """A function with what it asks for so far. Raises RecordError for what is no function."""
    if isinstance(function, Prepared):
        return function
    if not callable(function) or inspect.isclass(function):
        raise RecordError(f"this decorates a function, not {function!r}")
    return Prepared(function, Needs(), bench)


def with_tools(function: Any, bench: Any, names: tuple[str, ...]) -> Prepared:
    """The function, asking for these tools; without names, for those that its parameters name.

    Raises:
        RecordError: a tool is unknown, or the function has no parameter for it.
    """
    made = prepared(function, bench)
    parameters = inspect.signature(made.function).parameters
    if names:
        for name in names:
            known.find(name, bench.own_tools)
            if name not in parameters and not _takes_any(parameters):
                raise RecordError(f"{_called(made)} has no parameter {name}, by which it would get the tool."
                                  f"{did_you_mean(name, parameters)}")
        found = {name: name for name in names}
    else:
        every = known.tools(bench.own_tools)
        found = {}
        for name, parameter in parameters.items():
            hinted = known.by_hint(parameter.annotation, bench.own_tools)
            if hinted or (name in every and parameter.default is parameter.empty):
                found[name] = hinted or name
        if not found:
            raise RecordError(f"no parameter of {_called(made)} is named like a tool or has a tool's class as its type")
    return Prepared(made.function, replace(made.needs, tools={**made.needs.tools, **found}), bench)


def with_plots(function: Any, bench: Any, names: tuple[str, ...], more: Mapping[str, Any]) -> Prepared:
    """The function, asking for empty axes, figures or ready-made plots.

    Raises:
        RecordError: it has no such parameter, or something else is asked for.
    """
    made = prepared(function, bench)
    parameters = inspect.signature(made.function).parameters
    found = asked(names, more, parameters, _called(made), _takes_any(parameters))
    return Prepared(made.function, replace(made.needs, plots={**made.needs.plots, **found}), bench)


def hand(function: Any, needs: Needs, bench: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handed:
    """What a call is handed; a parameter that the caller gives is not. Raises RecordError."""
    given: dict[str, Any] = {}
    if needs.tools or needs.plots:
        bound = inspect.signature(function).bind_partial(*args, **kwargs)
        said = {*bound.arguments, *kwargs}
        bound.apply_defaults()
        given = {name: value for name, value in {**bound.arguments, **kwargs}.items()
                 if name in said or name not in {*needs.tools, *needs.plots}}
    values, origins, made, figures = {}, {}, {}, {}
    for parameter, name in needs.tools.items():
        if parameter not in given:
            tool = known.find(name, bench.own_tools)
            values[parameter], origins[parameter] = tool.handed(bench.model), tool.origin
    for parameter, what in needs.plots.items():
        if parameter not in given:
            figures[parameter], made[parameter] = drawn(what, given, bench.model)
    return Handed(values, made, origins, figures)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _called(made: Prepared) -> str:
    return str(getattr(made.function, "__name__", made.function))
