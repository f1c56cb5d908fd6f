"""Tools by name: hooklab's own analyses, those of installed packages, those that a notebook adds.

    name ──find──▶ Tool(value, origin): of the bench, added with `tool`, of an entry point, or a public name of hooklab

A package offers tools by the entry-point group `hooklab.tools`:

    [project.entry-points."hooklab.tools"]
    my_lens = "my_package.lenses:my_lens"
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import hooklab

from ..errors import RecordError, did_you_mean

GROUP = "hooklab.tools"
ROOMS = ("analysis", "bench", "check", "data", "errors", "sae", "view")
"""Names of hooklab that are no tools, but places where things stand."""
_added: dict[str, Any] = {}


@dataclass(frozen=True)
class Tool:
    """Something that a function can ask for by name.

    Attributes:
        name: How it is asked for.
        value: A function, handed over as it is; or a class, of which each run gets an instance of its own.
        origin: Where it comes from.
        own: Whether its code belongs to the version of what uses it.
    """

    name: str
    value: Any
    origin: str
    own: bool = False

    def handed(self, model: Any) -> Any:
        """What the function gets. Raises RecordError when a class wants a model and there is none."""
        if not inspect.isclass(self.value) or not self.own:
            return self.value
        wants = "model" in inspect.signature(self.value).parameters
        if wants and model is None:
            raise RecordError(f"the tool {self.name} is made with a model: open the bench with one, Bench(folder, "
                              "model=model)")
        made: Any = self.value
        return made(model) if wants else made()


def tool(value: Any = None, *, name: str | None = None) -> Any:
    """Add a tool for every bench of this process: a decorator for a function or a class.

    Args:
        value: The function or class.
        name: How it is asked for; its own name unless given.

    Raises:
        RecordError: it is no function or class, or the name is one of hooklab's own.

    >>> @tool
    ... def halves(x): return x / 2
    >>> find("halves", {}).value(3)
    1.5
    """
    return add(_added, value, name)


def add(to: dict[str, Any], value: Any, name: str | None) -> Any:
    """Add a tool to a table; without a value, a decorator that does."""
    if value is None:
        return lambda given: add(to, given, name)
    if not callable(value):
        raise RecordError(f"a tool is a function or a class, not {value!r}")
    named = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", getattr(value, "__name__", "")).lower() if name is None else name
    if not named.isidentifier():
        raise RecordError(f"{named!r} cannot name a tool: give it a name of letters, digits and _, as in tool(name='mine')")
    if named in _public():
        raise RecordError(f"{named} is a name of hooklab's own: give the tool another one, as in tool(name='my_{named}')")
    to[named] = value
    return value


def tools(own: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The names of all tools, and where each comes from.

    >>> tools()["lens"]
    'hooklab'
    """
    plugged = {name: entry.value for name, entry in _plugged().items()}
    return {**dict.fromkeys(_public(), "hooklab"), **plugged, **dict.fromkeys(_added, "tool"),
            **dict.fromkeys(own or {}, "bench")}


def find(name: str, own: Mapping[str, Any]) -> Tool:
    """A tool by its name.

    Raises:
        RecordError: there is none, or several packages offer it.
    """
    for table in (own, _added):
        if name in table:
            value = table[name]
            return Tool(name, value, f"{value.__module__}.{getattr(value, '__qualname__', name)}", own=True)
    if room := _public().get(name):
        return Tool(name, getattr(room, name), f"hooklab {hooklab.__version__}")
    plugged = _plugged()
    if name not in plugged:
        raise RecordError(f"there is no tool {name!r}.{did_you_mean(name, tools(own))}")
    entry = plugged[name]
    try:
        value = entry.load()
    except Exception as error:
        raise RecordError(f"the tool {name} could not be loaded from {entry.value}: {error}") from error
    dist = entry.dist
    return Tool(name, value, f"{entry.value}{f' of {dist.name} {dist.version}' if dist else ''}", own=inspect.isclass(value))


def by_hint(hint: Any, own: Mapping[str, Any]) -> str | None:
    """The name of the tool that a type hint means: a class that is a tool."""
    wanted = hint if isinstance(hint, str) else getattr(hint, "__name__", "")
    for table in (own, _added):
        for name, value in table.items():
            if inspect.isclass(value) and (value is hint or (isinstance(hint, str) and value.__name__ == wanted)):
                return name
    return None


def _public() -> dict[str, ModuleType]:
    """hooklab's own: each name, and where it is."""
    return {name: room for room in (hooklab.sae, hooklab.analysis, hooklab) for name in room.__all__
            if name != "__version__" and name not in ROOMS}



def _plugged() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in found and found[entry.name].value != entry.value:
            raise RecordError(f"two packages offer the tool {entry.name}: {found[entry.name].value} and {entry.value}; "
                              "uninstall one")
        found[entry.name] = entry
    return found


