"""Indices: which layers, heads, units or features the numbers of a place mean on this model."""

from __future__ import annotations

from typing import Any

from ..address import check_index
from ..errors import LayerError
from ..spec import ast
from .context import Context, Env, Stop


def index(ctx: Context, given: ast.Index, size: int | None, word: str, env: Env, where: Any) -> tuple[int, ...]:
    """The numbers that an index names among `size` things."""
    with ctx.catch(where):
        if size is None:
            raise LayerError(f"this model has no {word}s")
        found: list[int] = []
        for item in given if isinstance(given, tuple) else (given,):
            found += _item(ctx, item, size, word, env, where)
        return tuple(dict.fromkeys(found))
    raise Stop


def _item(ctx: Context, item: int | str, size: int, word: str, env: Env, where: Any) -> list[int]:
    """The numbers that one item of an index names: a number, a range, all of them, or a sweep variable's value."""
    if isinstance(item, str) and item.startswith("$"):
        if item[1:] not in env:
            raise ctx.fail("name", f"{item[1:]!r} is no sweep variable", where,
                           f"declare it above: sweep {item[1:]} in 0:{size}")
        item = env[item[1:]]
    if isinstance(item, int):
        return [check_index(item, size, word)]
    if item == "*":
        return list(range(size))
    if not isinstance(item, str):
        raise LayerError(f"{item!r} is no {word} number")
    chosen = list(range(size))[slice(*(int(part) if part else None for part in item.split(":")))]
    if not chosen:
        raise LayerError(f"{word} range {item} names none of the {size} {word}s")
    return chosen


def several(given: ast.Index | None) -> bool:
    """Whether an index was written as more than one thing: it makes an axis."""
    return given is not None and not isinstance(given, int) and not (
        isinstance(given, tuple) and len(given) == 1 and (isinstance(given[0], int) or str(given[0]).startswith("$")))
