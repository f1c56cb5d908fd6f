"""Options of a line as Python values, checked once the braces among them have been given theirs."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from ..spec import ast
from ..spec.verbs import NUMBER, TEXT, TRUTH, VALUE, VERBS, WHOLE, WORD, Option
from .context import Context

KINDS: dict[str, tuple[type, ...]] = {NUMBER: (int, float), WHOLE: (int,), TRUTH: (bool,), TEXT: (str,), WORD: (str,)}


def options(ctx: Context, opts: ast.Opts, verb: str | None = None, env: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options as Python values: numbers, words, lists; what braces, sweep variables and lets stand for."""
    found = {}
    for opt in opts:
        value = plain(_named(ctx, opt, verb, env or {}))
        if isinstance(opt.value, ast.Py | ast.Word):
            _check(ctx, opt, value, verb)
        found[opt.name] = value
    return found


def _row(opt: ast.Opt, verb: str | None) -> Option | None:
    rows = VERBS[verb].options if verb is not None else ()
    return next((row for row in rows if row.name == opt.name), None)


def _named(ctx: Context, opt: ast.Opt, verb: str | None, env: Mapping[str, Any]) -> Any:
    """An option's value; a word that is a sweep variable or a let is what that stands for."""
    row, node = _row(opt, verb), opt.value
    if isinstance(node, ast.Word) and row is not None and row.kind in (NUMBER, WHOLE, VALUE) and node.id not in row.words:
        if node.id in env:
            return env[node.id]
        if node.id in ctx.lets:
            return _value(ctx, ctx.lets[node.id].value)
    return _value(ctx, node)


def _check(ctx: Context, opt: ast.Opt, value: Any, verb: str | None) -> None:
    """Refuse a value that is not of the option's kind."""
    row = _row(opt, verb)
    kind = row.kind if row is not None else ""
    wanted = KINDS.get(kind)
    if wanted is None:
        return
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ctx.fail("value", f"{opt.name}= takes a {kind}, not {reprlib.repr(value)}", opt,
                       "a sweep variable cannot stand here" if isinstance(opt.value, ast.Word) else "")


def plain(item: Any) -> Any:
    """A number of numpy's or torch's as one of Python's; anything else as it is."""
    return item.item() if hasattr(item, "item") and getattr(item, "ndim", 1) == 0 else item


def in_turn(ctx: Context, node: ast.Py, where: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """Values of Python that are taken one at a time, and a label for each: itself if it is a number or a text."""
    items = ctx.given(node.source, node)
    numbered = hasattr(items, "__len__") and hasattr(items, "__getitem__") and getattr(items, "ndim", 1) > 0
    if not numbered or isinstance(items, str | bytes | Mapping):
        raise ctx.fail("value", f"{{{node.source}}} is no list of values to take in turn", where, "give a list of values")
    found = [plain(items[i]) for i in range(len(items))]
    return found, tuple(item if isinstance(item, (int, float, str)) else i for i, item in enumerate(found))


def _value(ctx: Context, node: Any) -> Any:
    if isinstance(node, ast.Num | ast.Str):
        return node.value
    if isinstance(node, ast.Word):
        return {"true": True, "false": False}.get(node.id, node.id)
    if isinstance(node, ast.Py):
        return ctx.given(node.source, node)
    if isinstance(node, ast.List):
        return [_value(ctx, item) for item in node.items]
    if isinstance(node, ast.Neg):
        return -_value(ctx, node.of)
    if isinstance(node, ast.Range):
        start, stop, *step = (int(part) if part else None for part in node.text.split(":"))
        return range(start or 0, stop if stop is not None else 1 << 30, *(n for n in step if n))
    return node
