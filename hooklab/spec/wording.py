"""Python values as text of the language: what a builder's arguments look like in a line.

>>> amount("steer", 2.5), places("zero", ["L0H1", "L1"]), ranged("sweep", range(0, 6, 2))
('2.5', 'L0H1, L1', '0:6:2')
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ..errors import PositionError
from ..positions import positions
from ..problems import Problem, SpecError
from . import ast, printer
from .scan import scan
from .verbs import WORD, Option

REMEDY = 'put it in a variable and name that between braces: py("name")'


def fail(verb: str, message: str, hint: str = "") -> NoReturn:
    raise SpecError([Problem("value", f"{verb}(): {message}", hint=hint)])


def whole(verb: str, piece: Any, name: str = "value") -> None:
    """Refuse a piece that would swallow what comes after it: a comment, or a brace that does not close."""
    if not isinstance(piece, str) or not piece.strip():
        fail(verb, f"{name} is {'empty' if isinstance(piece, str) else f'text, not {type(piece).__name__}'}")
    found = scan(piece)
    if found.problems:
        fail(verb, f"{name}: {found.problems[0].message}", found.problems[0].hint)
    if len(found.text.rstrip()) < len(piece.rstrip()):
        fail(verb, f"{name}: a comment cannot stand here")


def plain(verb: str, value: Any) -> ast.Expr:
    """The node of a plain Python value; text is quoted."""
    if isinstance(value, ast.Node):
        return value  # type: ignore[return-value]
    if isinstance(value, bool):
        return ast.Word(str(value).lower())
    if isinstance(value, str):
        return ast.Str(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return ast.Num(int(value) if isinstance(value, int) else float(value))
    if isinstance(value, (list, tuple)):
        return listed(verb, value)
    fail(verb, f"{value if isinstance(value, float) else type(value).__name__} cannot be written in a spec", REMEDY)


def listed(verb: str, values: Any) -> ast.List:
    return ast.List(tuple(plain(verb, value) for value in values))


def number(verb: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        fail(verb, f"a whole number belongs here, not {value!r}")
    return str(int(value))


def quoted(verb: str, value: Any) -> str | None:
    """A value, text being quoted; None is left out."""
    return None if value is None else printer.text(plain(verb, value))


def amount(verb: str, value: Any) -> str | None:
    """A value, text being an expression of the language."""
    return value if isinstance(value, str) else quoted(verb, value)


def ranged(verb: str, values: Any) -> str | None:
    if isinstance(values, range):
        return f"{values.start}:{values.stop}" + ("" if values.step == 1 else f":{values.step}")
    return amount(verb, values)


def position(verb: str, pos: Any) -> str:
    try:
        return pos if isinstance(pos, str) else printer.position(positions(pos), after_at=False)
    except PositionError as error:
        fail(verb, str(error))


def places(verb: str, sites: Any) -> str | None:
    if isinstance(sites, (list, tuple)):
        return ", ".join(str(places(verb, item)) for item in sites)
    if sites is None or isinstance(sites, (str, ast.Node)):
        return amount(verb, sites)
    fail(verb, f'places are text such as "L9H6 @last", not {type(sites).__name__}', REMEDY)


def option(verb: str, value: Any, option: Option | None) -> str:
    """The value of an option; text is a word where the option takes words."""
    if isinstance(value, str) and option is not None and (option.kind == WORD or value in option.words):
        return value if value.isidentifier() else printer.quote(value)
    return printer.text(plain(verb, value))
