"""JSON that people write: a key that stands twice in an object is a mistake, not the last of two values."""

from __future__ import annotations

import json
from typing import Any


def json_of(text: str | bytes) -> Any:
    """What a text says as JSON.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ValueError: the same, or an object has a key twice, or a number has too many digits.
        RecursionError: it is nested too deep.

    >>> json_of('{"a": [1]}')
    {'a': [1]}
    """
    return json.loads(text, object_pairs_hook=_unique)


def encodable(text: str) -> bool:
    """Whether UTF-8 can write a text, which it cannot where half a character stands by itself.

    >>> encodable("é"), encodable("\\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in found if names.count(key) > 1)
        raise ValueError(f"{json.dumps(twice if len(twice) <= 60 else twice[:59] + '…')} is there twice in one object")
    return found
