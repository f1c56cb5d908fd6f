"""Packages whose names are loaded on first use, so that importing one costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from .errors import nearest


def lazily(package: str, home: Mapping[str, str], *, unknown: str = "", whole: tuple[str, ...] = (),
           rooms: Mapping[str, str] | None = None) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that loads a name from its module when it is first asked for.

    Args:
        package: The package's `__name__`.
        home: Where each name lives: a module, relative to the package.
        unknown: How the error about an unknown name begins, the name itself in `{}`.
        whole: The names that are modules themselves.
        rooms: Where an unknown name is looked for, so that the error can say where it is: what is written before the
            name there -> the package.

    A module called as a name is would take the function's place once it is imported; give such modules other names.
    """
    unknown = unknown or f"{package} has no {{}}"

    def hint(name: str) -> str:
        if find_spec(f"{package}.{name}") is not None:  # `from package import module` asks here first
            return ""
        places = {one: "" for one in home}
        for before, room in ({} if rooms is None or name.startswith("_") else rooms).items():
            for one in importlib.import_module(room).__all__:
                places.setdefault(one, f"{before}.{one}")
        if name in places:
            return f" It is {places[name]}"
        close = nearest(name, places)
        return f' Did you mean {places[close] or repr(close)}?' if close else ""

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"{unknown.format(repr(name))}.{hint(name)}")
        module = importlib.import_module(f".{home[name]}", package)
        value = module if name in whole else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted({*home, *getattr(sys.modules[package], "__all__", ())})
