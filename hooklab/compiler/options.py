"""Options of a line as Python values, checked once the braces among them have been given theirs."""

from __future__ import annotations

import reprlib
from typing import Any

from ..spec import ast
from ..spec.verbs import NUMBER, TEXT, TRUTH, VERBS, WHOLE, WORD
from .context import Context

KINDS: dict[str, tuple[type, ...]] = {NUMBER: (int, float), WHOLE: (int,), TRUTH: (bool,), TEXT: (str,), WORD: (str,)}


def options(ctx: Context, opts: ast.Opts, verb: str | None = None) -> dict[str, Any]:
    """Options as Python values: numbers, words, lists; what braces stand for."""
    found = {}
    for opt in opts:
        value = _value(ctx, opt.value)
        if isinstance(opt.value, ast.Py):
            value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
            _check(ctx, opt, value, verb)
        found[opt.name] = value
    return found


def _check(ctx: Context, opt: ast.Opt, value: Any, verb: str | None) -> None:
    """Refuse a Python value that is not of the option's kind."""
    rows = VERBS[verb].options if verb is not None else ()
    kind = next((row.kind for row in rows if row.name == opt.name), None)
    wanted = KINDS.get(kind or "")
    if wanted is None:
        return
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ctx.fail("value", f"{opt.name}= takes a {kind}, not {reprlib.repr(value)}", opt)


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
