"""What code reads from outside itself: global names with the attributes behind them, and modules that it imports."""

from __future__ import annotations

import ast
import dis
import hashlib
import site
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .source import QUIET, inner, parsed


@dataclass(frozen=True)
class Reads:
    """What a code object reads.

    Attributes:
        names: Global names, each with the attributes that are asked of it: `("helpers", "scale")`.
        free: The same for names of the functions around it.
        imports: Modules imported inside, with the level of the dots before them and the names taken from them.
    """

    names: tuple[tuple[str, ...], ...]
    free: tuple[tuple[str, ...], ...]
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]


def reads(code: CodeType) -> Reads:
    """What a code object, and the functions and comprehensions inside it, read.

    >>> reads(compile("helpers.scale(x) + helpers.shift", "", "eval")).names
    (('helpers', 'scale'), ('x',), ('helpers', 'shift'))
    """
    names: dict[tuple[str, ...], None] = {}
    free: dict[tuple[str, ...], None] = {}
    imports: dict[tuple[str, int, tuple[str, ...]], None] = {}
    for part in inner(code):
        steps = [one for one in dis.get_instructions(part) if one.opname not in QUIET]
        for i, step in enumerate(steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                names[_chain(steps, i)] = None
            elif step.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                free[_chain(steps, i)] = None
            elif step.opname == "IMPORT_NAME":
                taken = steps[i - 1].argval
                imports[step.argval, int(steps[i - 2].argval or 0), tuple(taken or ())] = None
    return Reads(tuple(names), tuple(free), tuple(imports))


def _chain(steps: list[dis.Instruction], i: int) -> tuple[str, ...]:
    found = [steps[i].argval]
    for step in steps[i + 1:]:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        found.append(step.argval)
    return tuple(found)


@cache
def _libraries() -> tuple[Path, ...]:
    """Folders whose code belongs to a package that is installed, or to Python."""
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages()] if hasattr(site, "getsitepackages") else []
    return tuple(Path(one).resolve() for one in found)


def is_library(module: str | None) -> bool:
    """Whether a module is Python's, hooklab's or an installed package's: such code counts by its name and version.

    >>> is_library("json"), is_library("hooklab.html"), is_library("__main__")
    (True, True, False)
    """
    if not module or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("hooklab", "builtins"):
        return True
    held = sys.modules.get(module)
    return held is not None and _installed(getattr(held, "__file__", None))


@cache
def _installed(file: str | None) -> bool:
    if file is None:
        return False
    path = Path(file).resolve()
    return bool({"site-packages", "dist-packages"} & {*path.parts}) or any(path.is_relative_to(one) for one in _libraries())


def is_own(value: Any) -> bool:
    """Whether a module is the user's."""
    return isinstance(value, ModuleType) and not is_library(value.__name__)


def file_digest(name: str) -> str | None:
    """The hash of what a module's file says, comments and layout apart; None where there is no such file."""
    try:
        spec = find_spec(name)
        text = Path(spec.origin).read_text("utf-8") if spec and spec.origin and spec.origin.endswith(".py") else None
    except (ImportError, ValueError, OSError, AttributeError):
        return None
    tree = parsed(text) if text is not None else None
    return None if tree is None else hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
