"""Which examples are meant: by number, by id, or by what their metadata says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RecordError, did_you_mean
from .wanted import accepting

if TYPE_CHECKING:
    from .store import Store


def numbers(store: Store, examples: Any) -> list[int]:
    """The numbers of the examples that an int, an id, a slice, or several of them mean; all for None.

    Raises:
        RecordError: there is no such example.
    """
    if examples is None:
        return list(range(len(store)))
    if isinstance(examples, slice):
        return list(range(len(store)))[examples]
    if isinstance(examples, str | int | np.integer):
        return [number(store, examples)]
    return [number(store, one) for one in examples]


def number(store: Store, example: Any) -> int:
    """The number of one example, counted from 0; a negative one counts from the end, text is an id."""
    if isinstance(example, str):
        found = store.number_of.get(example)
        if found is None:
            near = did_you_mean(example, list(store.number_of)[:10000])
            raise RecordError(f"{store.path} has no example {example!r}.{near}")
        return found
    n = len(store)
    if isinstance(example, bool) or not isinstance(example, int | np.integer) or not -n <= example < n:
        raise RecordError(f"{store.path} has no example {example!r}: it has {n}, counted from 0, or named by text")
    return int(example) % n


def matching(store: Store, test: Callable[[Mapping[str, Any]], bool] | None, wanted: Mapping[str, Any]) -> np.ndarray:
    """The numbers of the examples that pass every test.

    Raises:
        RecordError: no example has a key, what is wanted of one is of a type that none of its values has, or the test is no
            function.
    """
    if test is not None and not callable(test):
        example = f"where(**{test!r})" if isinstance(test, Mapping) else "where(giver='John'), or where(lambda row: …)"
        raise RecordError(f"where() takes a function of the metadata of an example, or key=value, not {test!r}: {example}")
    columns: dict[str, list[Any]] = {"id": list(store.ids), "n_tokens": list(store.n_tokens), **store.metadata}
    for key in wanted:
        if key not in columns:
            raise RecordError(f"no example has {key!r}.{did_you_mean(key, columns)} There are {', '.join(columns)}")
    passed = np.ones(len(store), bool)
    for key, what in wanted.items():
        accepts = accepting(key, what, columns[key])
        passed &= np.array([bool(accepts(value)) for value in columns[key]], bool)
    if test is not None:
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        passed &= np.array([bool(test(row)) for row in rows], bool)
    return np.flatnonzero(passed)


def joined(columns: Iterable[tuple[int, Mapping[str, list[Any]]]]) -> dict[str, list[Any]]:
    """The columns of several shards as one, None where a shard lacks one."""
    made: dict[str, list[Any]] = {}
    before = 0
    for n, some in columns:
        for key in some:
            made.setdefault(key, [None] * before)
        for key, values in made.items():
            values.extend(some.get(key, [None] * n))
        before += n
    return made
