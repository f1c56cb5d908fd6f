"""What the JSON of a spec may hold, read off the classes of `ast`: the table `KINDS`, and the published JSON Schema.

`jsonform` reads by the same table, so the schema cannot promise what the reader refuses by kind, field or type. Run
as a module it prints the schema, which is kept in `docs/hookspec-1.schema.json`.

>>> KINDS["generate"].fields["count"]
Field(shape=Plain(types=(<class 'int'>,), pattern=None), optional=False, default=None)
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..positions.select import Selector
from . import ast

NAME = r"[A-Za-z_]\w*"
SLICE = r"(-?\d+)?:(-?\d+)?(:(-?\d+)?)?"
# The texts that are no plain name: what they must look like, or None for any text.
TEXTS: dict[tuple[type, str], str | None] = {
    (ast.Str, "value"): None,
    (ast.Py, "source"): None,
    (ast.PySite, "source"): None,
    (ast.ModelName, "name"): None,
    (ast.Range, "text"): SLICE,
    (ast.Binary, "op"): r"[-+*/]",
    (ast.Expect, "op"): r"<=|>=|<|>|==|!=|~=",
}


@dataclass(frozen=True)
class Plain:
    """True or false, a number, or text that looks like `pattern`."""

    types: tuple[type, ...]
    pattern: str | None = None


@dataclass(frozen=True)
class Indices:
    """What stands behind L, H, N or F: `5`, `"*"`, `"0:3"`, or a list of those and of `"$variable"`."""


@dataclass(frozen=True)
class Positions:
    """A selector, as its text."""


@dataclass(frozen=True)
class Options:
    """An object of values by name; after a verb they are plain, within a call they are arithmetic."""

    plain: bool


@dataclass(frozen=True)
class Nodes:
    """A node of one of these kinds."""

    kinds: frozenset[str]


@dataclass(frozen=True)
class Many:
    """A list of nodes."""

    of: Nodes


Shape = Plain | Indices | Positions | Options | Nodes | Many


@dataclass(frozen=True)
class Field:
    """A field of a node: its shape, and whether it may be left out."""

    shape: Shape
    optional: bool
    default: Any


@dataclass(frozen=True)
class Kind:
    """A class of nodes and its fields by name."""

    make: type[ast.Node]
    fields: dict[str, Field]


def kind_of(make: type[ast.Node]) -> str:
    """The word for a class of nodes: a statement's verb, else its name with underscores."""
    return make.verb if issubclass(make, ast.Statement) else re.sub(r"(?<!^)(?=[A-Z])", "_", make.__name__).lower()


def _shape(make: type[ast.Node], name: str, hint: Any) -> Shape:
    if hint == ast.Index:
        return Indices()
    if hint is Selector:
        return Positions()
    if hint == ast.Opts:
        return Options(plain=name == "opts")
    if get_origin(hint) is tuple:
        return Many(_nodes(get_args(hint)[0]))
    options = get_args(hint) or (hint,)
    if issubclass(options[0], ast.Node):
        return _nodes(hint)
    return Plain(options, TEXTS.get((make, name), NAME) if str in options else None)


def _nodes(hint: Any) -> Nodes:
    """The kinds of a class or a union; of statements, those that may stand in a run."""
    if hint is ast.Statement:
        return Nodes(frozenset(ast.STATEMENTS) - {"run"})
    return Nodes(frozenset(kind_of(make) for make in get_args(hint) or (hint,)))


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    rest = [option for option in get_args(hint) if option is not type(None)]
    return rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007


def _kind(make: type[ast.Node]) -> Kind:
    hints = get_type_hints(make)
    found = {}
    for field in fields(make):
        if field.name != "span":
            hint = hints[field.name]
            may_be_none = type(None) in get_args(hint)
            default = None if field.default is MISSING else field.default
            found[field.name] = Field(_shape(make, field.name, _without_none(hint)),
                                      may_be_none or field.default is not MISSING, default)
    return Kind(make, found)


_NODES = [make for make in ast.Node.__subclasses__() if make not in (ast.Statement, ast.Opt)]
KINDS: dict[str, Kind] = {kind_of(make): _kind(make) for make in (*_NODES, *ast.STATEMENTS.values())}
VALUES: frozenset[str] = _nodes(ast.Expr).kinds


# The schema --------------------------------------------------------------------------------------------------------

_UNIONS = {"statement": ast.Statement, "value": ast.Expr, "place": ast.Place, "where": ast.Where}
_NAMED = {frozenset(ast.STATEMENTS) if name == "statement" else _nodes(hint).kinds: name for name, hint in _UNIONS.items()}
_JSON_TYPES = {bool: "boolean", int: "integer", str: "string"}
_INDEX = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^(\\*|{SLICE})$"},
                    {"type": "array", "items": {"anyOf": [{"type": "integer"}, {
                        "type": "string", "pattern": f"^(\\*|{SLICE}|\\$[A-Za-z_]\\w*)$"}]}}]}


def schema() -> dict[str, Any]:
    """The JSON Schema of a spec (draft 2020-12).

    >>> schema()["$defs"]["generate"]["required"]
    ['kind', 'count']
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"hookspec-{ast.VERSION}.schema.json",
        "title": f"The hook language as data, version {ast.VERSION}",
        "description": "A spec: what to read, edit and measure in a language model, one object for each line.",
        "type": "object",
        "required": ["hookspec", "body"],
        "additionalProperties": False,
        "properties": {"hookspec": {"const": ast.VERSION}, "body": {"type": "array", "items": _ref("statement")}},
        "$defs": {
            **{union: {"anyOf": [_ref(kind) for kind in sorted(kinds)]} for kinds, union in _NAMED.items()},
            "index": {"description": 'Behind L, H, N or F: 5, "*", "0:3", or a list of those and of "$variable".', **_INDEX},
            **{name: _object(name, kind) for name, kind in KINDS.items()},
        },
    }


def _object(name: str, kind: Kind) -> dict[str, Any]:
    properties = {key: _OF_SHAPE[type(field.shape)](field.shape) for key, field in kind.fields.items()}
    return {
        "description": (kind.make.__doc__ or "").split("\n")[0],
        "type": "object",
        "required": ["kind", *(key for key, field in kind.fields.items() if not field.optional)],
        "additionalProperties": False,
        "properties": {"kind": {"const": name}, **properties},
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _one_of(shape: Any) -> dict[str, Any]:
    if shape.kinds in _NAMED:
        return _ref(_NAMED[shape.kinds])
    kinds = [_ref(kind) for kind in sorted(shape.kinds)]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _plain(shape: Any) -> dict[str, Any]:
    kind = "number" if float in shape.types else _JSON_TYPES[shape.types[0]]
    return {"type": kind} | ({"pattern": f"^({shape.pattern})$"} if shape.pattern else {})


_OF_SHAPE: dict[type, Callable[[Any], dict[str, Any]]] = {
    Plain: _plain,
    Indices: lambda shape: _ref("index"),
    Positions: lambda shape: {"type": "string", "minLength": 1},
    Options: lambda shape: {"type": "object", "propertyNames": {"pattern": f"^{NAME}$"},
                            "additionalProperties": _ref("value")},
    Nodes: _one_of,
    Many: lambda shape: {"type": "array", "items": _one_of(shape.of)},
}

if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
