"""What is wanted of one column of metadata: a value, one of several, a pattern, or what a function says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...errors import RecordError
from .index import same

_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((str,), "text"), ((bool, int, float), "numbers"), ((list,), "lists"), ((dict,), "dictionaries"))
"""Types that are never equal to those of another row, and the word for them."""


def accepting(key: str, what: Any, column: Sequence[Any]) -> Callable[[Any], Any]:
    """Whether a value of a column is what is wanted.

    Args:
        key: Of the column.
        what: A value; several of them (a list, set, range, array or Series), which in a column of lists is one value; a
            compiled pattern; or a function.
        column: Its values.

    Raises:
        RecordError: what is wanted has a type that no value of the column has, so that it could never be found.
    """
    if callable(what):
        return lambda value: what(value)
    if isinstance(what, re.Pattern):
        _may_occur(key, what, [what.pattern], column)
        return lambda value: isinstance(value, str) and what.search(value) is not None
    what = _plain(what)
    if isinstance(what, list) and any(isinstance(value, list) for value in column):
        return lambda value: same(value, what)
    if isinstance(what, range):
        return _within(key, what, column)
    several = [_plain(one) for one in what] if isinstance(what, list | set | frozenset) else [what]
    several = [_as_id(one) for one in several] if key == "id" else several
    _may_occur(key, what, several, column)
    return _one_of(several)


def _plain(what: Any) -> Any:
    """Arrays, Series and tuples as lists, and what holds one number as that."""
    if isinstance(what, tuple):
        return list(what)
    return what.tolist() if hasattr(what, "tolist") else what


def _as_id(one: Any) -> Any:
    """Ids are text, whatever an example was put in by."""
    return str(one) if isinstance(one, int) and not isinstance(one, bool) else one


def _within(key: str, what: range, column: Sequence[Any]) -> Callable[[Any], bool]:
    """By its ends: a range may be too long for a list, and Python looks through all of it for what is no whole number."""
    if key == "id":
        return lambda value: value.lstrip("-").isdecimal() and str(int(value)) == value and int(value) in what
    _may_occur(key, what, what[:1], column)
    return lambda value: isinstance(value, int | float) and value == value // 1 and int(value) in what


def _one_of(several: Iterable[Any]) -> Callable[[Any], bool]:
    """Whether a value is one of these; those that can be looked up are, since there may be many."""
    found, rest = set(), []
    for one in several:
        if one is None or (isinstance(one, str | int | float) and one == one):
            found.add(one)
        else:
            rest.append(one)
    return lambda value: (not isinstance(value, list | dict) and value in found) or any(same(value, one) for one in rest)


def _may_occur(key: str, what: Any, several: Sequence[Any], column: Sequence[Any]) -> None:
    held = {kind for value in column if (kind := _kind(value))}
    asked = {_kind(one) for one in several}
    if not held or not asked or not held.isdisjoint(asked) or None in asked:
        return
    example = next(value for value in column if value is not None)
    raise RecordError(f"{key}={what!r} finds nothing: {key} holds {' and '.join(sorted(held))}, such as {example!r}; ask "
                      "for those, or give a function of the value")


def _kind(value: Any) -> str | None:
    """The word for the type of a value; None for what is missing, and for what metadata cannot hold."""
    return next((word for types, word in _KINDS if isinstance(value, types)), None)
