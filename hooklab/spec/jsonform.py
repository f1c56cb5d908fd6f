"""`Spec` to plain data for `json.dumps`, and back with everything checked on the way.

    Spec ──to_json──▶ {"hookspec": 1, "body": […]} ──from_json──▶ Spec

A node is an object whose `kind` says what it is; fields at their default are left out; options are an object; a
position is its canonical text. What each field may hold is in `schema.KINDS`; that the whole can be said in the
language is made sure of by writing it as text and reading that.

>>> to_json(ast.Spec((ast.Zero(ast.Target((ast.Site(None, 9, 6),))),)))["body"][0]["target"]["sites"]
[{'kind': 'site', 'layer': 9, 'head': 6}]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NoReturn

from ..errors import did_you_mean
from ..jsontext import json_of
from ..positions.select import All, Selector
from ..problems import Problem, SpecError
from . import ast, printer
from .check import check
from .parser import read
from .schema import KINDS, NAME, SLICE, VALUES, Indices, Many, Nodes, Options, Plain, Positions
from .tree import ALIASES

LARGEST = 10**18  # a whole number of the language has at most 18 digits
_FIELDS = {kind.make: (name, tuple((key, field.default, field.optional) for key, field in kind.fields.items()))
           for name, kind in KINDS.items()}


def to_json(spec: ast.Spec) -> dict[str, Any]:
    """A spec as plain data. Comments and places in the text are left out.

    Raises:
        SpecError: an option is given twice, which an object cannot hold.
    """
    return {"hookspec": ast.VERSION, "body": [_data(statement) for statement in spec.body]}


def from_json(data: Any) -> ast.Spec:
    """Read what `to_json` made, or the same as JSON text.

    Raises:
        SpecError: it is no spec, with the path of what is wrong; or it is of a newer version.

    >>> print(from_json('{"hookspec": 1, "body": [{"kind": "prompt", "value": {"kind": "str", "value": "Hi"}}]}'))
    prompt "Hi"
    """
    try:
        body = _read_top(_loaded(data) if isinstance(data, str) else data)
        written = _as_written(body)
        problems = check(written)
    except RecursionError:
        raise SpecError([Problem("value", "body: this spec is nested too deeply", hint="name its parts with let lines")]
                        ) from None
    if problems:
        newer = [problem for problem in problems if problem.kind == "version"]
        raise SpecError(_with_paths(newer or problems, written))
    return ast.Spec(body)


# Writing -----------------------------------------------------------------------------------------------------------


def _data(node: Any) -> dict[str, Any]:
    name, known = _FIELDS[type(node)]
    out: dict[str, Any] = {"kind": name}
    for key, default, optional in known:
        value = getattr(node, key)
        if not (optional and value == default):
            out[key] = _value(value)
    return out


def _value(value: Any) -> Any:
    if isinstance(value, ast.Node):
        return _data(value)
    if isinstance(value, tuple):
        return _named(value) if value and isinstance(value[0], ast.Opt) else [_value(item) for item in value]
    return str(value) if isinstance(value, Selector) else value


def _named(opts: tuple[ast.Opt, ...]) -> dict[str, Any]:
    out = {opt.name: _data(opt.value) for opt in opts}
    if len(out) < len(opts):
        raise SpecError([Problem("value", f"an option is given twice: {' '.join(map(printer.text, opts))}")])
    return out


# Reading -----------------------------------------------------------------------------------------------------------


def _fail(path: str, message: str, hint: str = "", kind: str = "value") -> NoReturn:
    raise SpecError([Problem(kind, f"{path}: {message}" if path else message, hint=hint)])


def _show(value: Any) -> str:
    """A value, short enough for a message."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "a number of many digits"
    shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _loaded(text: str) -> Any:
    try:
        return json_of(text)
    except ValueError as error:
        what = "is no JSON" if isinstance(error, json.JSONDecodeError) else "cannot be read as JSON"
        _fail("", f"this {what}: {error}")


def _read_top(data: Any) -> tuple[ast.Statement, ...]:
    if not isinstance(data, dict):
        _fail("", f"a spec is an object with hookspec and body, not {_show(data)}")
    version = data.get("hookspec")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        _fail("hookspec", f"the version of the language is a whole number such as {ast.VERSION}, not {_show(version)}")
    if version > ast.VERSION:
        _fail("hookspec", f"this spec is of version {_show(version)}; versions up to {ast.VERSION} can be read",
              "a newer hooklab reads it", "version")
    for key in data:
        if key not in ("hookspec", "body"):
            _fail(_show(key), "a spec has only hookspec and body")
    listed = data.get("body")
    if not isinstance(listed, list):
        _fail("body", f"the statements are a list, not {_show(listed)}")
    body: list[ast.Statement] = []
    problems: list[Problem] = []
    for i, item in enumerate(listed):
        try:
            body.append(_node(item, frozenset(ast.STATEMENTS), f"body[{i}]"))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return tuple(body)


def _node(data: Any, allowed: frozenset[str], path: str) -> Any:
    if not isinstance(data, dict):
        _fail(path, f"an object with a kind belongs here, not {_show(data)}")
    name = data.get("kind")
    if not isinstance(name, str) or name not in allowed:
        hint = did_you_mean(name, allowed).strip() if isinstance(name, str) else ""
        _fail(f"{path}.kind", f"{_show(name)} cannot stand here", hint or f"possible are {', '.join(sorted(allowed))}")
    kind = KINDS[name]
    for key in data:
        if key != "kind" and key not in kind.fields:
            where = f"{path}.{key}" if isinstance(key, str) and re.fullmatch(NAME, key) else path
            _fail(where, f"{name} has no field {_show(key)}", f"its fields are {', '.join(kind.fields)}")
    given = {}
    for key, field in kind.fields.items():
        if key in data:
            given[key] = _READERS[type(field.shape)](data[key], field.shape, f"{path}.{key}")
        elif not field.optional:
            _fail(f"{path}.{key}", f"{name} needs this field")
        else:
            given[key] = field.default
    return _canonical(kind.make(**given))


def _canonical(node: Any) -> Any:
    """The node that the text of this one would be read as."""
    if isinstance(node, ast.Num) and node.value < 0:
        return ast.Neg(ast.Num(-node.value))
    if isinstance(node, ast.AtEach) and node.pos == All():
        return ast.AtEach()
    if isinstance(node, (ast.Py, ast.PySite)):
        return replace(node, source=node.source.strip())
    if isinstance(node, ast.Site):
        dims = node.dims if node.dims is None or isinstance(node.dims, tuple) else (node.dims,)
        return replace(node, comp=ALIASES.get(node.comp or "", node.comp), dims=dims)
    return node


def _plain(value: Any, shape: Any, path: str) -> Any:
    if type(value) not in shape.types or (isinstance(value, float) and not math.isfinite(value)):
        _fail(path, f"{' or '.join(_TYPES[t] for t in shape.types)} belongs here, not {_show(value)}")
    if type(value) is int and abs(value) >= LARGEST:
        _fail(path, "this number is too large", "a whole number has at most 18 digits")
    if shape.pattern is not None and not re.fullmatch(shape.pattern, value):
        _fail(path, f"{_show(value)} is no {'name' if shape.pattern == NAME else 'value of this field'}")
    return value


def _indices(value: Any, shape: Any, path: str) -> ast.Index:
    if isinstance(value, list):
        return tuple(_one_index(item, f"{path}[{i}]", "|\\$" + NAME) for i, item in enumerate(value))
    return _one_index(value, path)


def _one_index(value: Any, path: str, more: str = "") -> int | str:
    small = type(value) is int and abs(value) < LARGEST
    if not small and not (isinstance(value, str) and re.fullmatch(rf"\*|{SLICE}{more}", value)):
        _fail(path, f"{_show(value)} is no index", 'an index is 5, "*", "0:3", or a list of those and of "$variable"')
    return value


def _positions(value: Any, shape: Any, path: str) -> Selector:
    if not isinstance(value, str):
        _fail(path, f"the text of a position belongs here, not {_show(value)}")
    found, problems = read(f"mark x = ({value.strip().removeprefix('@')})")
    if problems or len(found) != 1 or not isinstance(found[0], ast.Mark):
        _fail(path, f"{_show(value)} cannot be read as positions", problems[0].message if problems else "")
    return found[0].pos


def _options(value: Any, shape: Any, path: str) -> ast.Opts:
    if not isinstance(value, dict):
        _fail(path, f"an object of options belongs here, not {_show(value)}")
    out = []
    for name, item in value.items():
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            _fail(path, f"{_show(name)} is no name of an option")
        node = _node(item, VALUES, f"{path}.{name}")
        if shape.plain and isinstance(node, ast.Neg) and isinstance(node.of, ast.Num):
            node = ast.Num(-node.of.value)
        out.append(ast.Opt(name, node))
    return tuple(out)


def _many(value: Any, shape: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _fail(path, f"a list belongs here, not {_show(value)}")
    return tuple(_node(item, shape.of.kinds, f"{path}[{i}]") for i, item in enumerate(value))


_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_READERS: dict[type, Callable[[Any, Any, str], Any]] = {
    Plain: _plain, Indices: _indices, Positions: _positions, Options: _options, Many: _many,
    Nodes: lambda value, shape, path: _node(value, shape.kinds, path),
}


# The language has the last word -------------------------------------------------------------------------------------


def _as_written(body: tuple[ast.Statement, ...]) -> ast.Spec:
    """The same spec read from its text. Refuses what has none: a name that reads as a layer, a list within arithmetic,
    Python that is none."""
    text = "\n".join(map(printer.line, body))
    statements, problems = read(text)
    if problems or statements != body:
        for i, statement in enumerate(body):
            _check_line(statement, f"body[{i}]")
        _fail("body", problems[0].message if problems else "its lines cannot stand together in one text")
    return ast.Spec(statements, text)


def _with_paths(problems: list[Problem], spec: ast.Spec) -> list[Problem]:
    """Problems of a spec's text, with the path of their statement in place of a line."""
    starts = [(statement.span.line, path) for path, statement in _paths(spec.body, "body") if statement.span is not None]
    paths = {problem: next((path for line, path in reversed(starts) if line <= problem.line), "body")
             for problem in problems}
    return [replace(problem, message=f"{paths[problem]}: {problem.message}", line=0, column=0) for problem in problems]


def _paths(body: tuple[ast.Statement, ...], path: str) -> Iterator[tuple[str, ast.Statement]]:
    for i, statement in enumerate(body):
        yield f"{path}[{i}]", statement
        yield from _paths(getattr(statement, "body", ()), f"{path}[{i}].body")


def _check_line(statement: ast.Statement, path: str) -> None:
    for i, inner in enumerate(getattr(statement, "body", ())):
        _check_line(inner, f"{path}.body[{i}]")
    text = printer.line(statement)
    found, problems = read(text)
    if problems:
        first = problems[0]
        raise SpecError([replace(first, kind="value", message=f"{path}: {first.message}")], text)
    if found != (statement,):
        where, node = _difference(statement, found[0] if len(found) == 1 else None, path)
        written = printer.text(node) if isinstance(node, ast.Node) and not isinstance(node, ast.Statement) else text
        _fail(where, f"as text this is `{written}`, which means something else")


def _difference(ours: Any, theirs: Any, path: str) -> tuple[str, Any]:
    """The path of the innermost node in which two specs differ, and ours."""
    if type(ours) is type(theirs) and isinstance(ours, ast.Node):
        for field in fields(ours):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            pairs = list(zip(a, b, strict=False)) if isinstance(a, tuple) and isinstance(b, tuple) else [(a, b)]
            for i, (x, y) in enumerate(pairs):
                if field.name != "span" and x != y and isinstance(x, ast.Node):
                    return _difference(x, y, f"{path}.{field.name}" + (f"[{i}]" if isinstance(a, tuple) else ""))
    return path, ours
