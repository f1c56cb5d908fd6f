"""Whether stores can be merged: made in the same way, as far as that decides what a value is, and with the same sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import RecordError

if TYPE_CHECKING:
    from .store import Store

BOOKKEEPING = frozenset({"options.source", "options.limit", "options.batch_size", "options.batch_tokens", "options.hold",
                         "options.metadata", "options.id", "options.skip", "options.reduce", "model.name"})
"""What changes no value of an example: which examples there are, what is known of them, and how they were put through."""
MERGED = "merged"
"""Under this key stands what stores had that differed in bookkeeping."""
_SHOWN, _LONGEST = 6, 60


def alike(first: Store, other: Store) -> None:
    """Raises RecordError that names what differs, where two stores were made otherwise or have other sites."""
    odd = [f"{path}: {_short(mine)} and {_short(theirs)}"
           for path, mine, theirs in _differences(first.manifest.about, other.manifest.about)]
    mine, theirs = ({site: (one.axes, one.sizes, one.dtype) for site, one in store.sites.items()}
                    for store in (first, other))
    odd += [f"{site}: {_layout(mine.get(site))} and {_layout(theirs.get(site))}"
            for site in sorted(mine.keys() | theirs.keys())
            if site not in mine or site not in theirs or not _fits(mine[site], theirs[site])]
    if odd:
        more = f"; and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise RecordError(f"{first.path} and {other.path} differ in {'; '.join(odd[:_SHOWN])}{more}")


def together(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several stores say of themselves, as one: what differs in bookkeeping stands as `{"merged": [of each]}`."""
    return {key: _joined([one.get(key) for one in abouts], key) for key in abouts[0]}


def _joined(values: Sequence[Any], path: str) -> Any:
    first = values[0]
    if all(one == first for one in values):
        return first
    if path not in BOOKKEEPING and all(isinstance(one, dict) for one in values):
        keys = dict.fromkeys(key for one in values for key in one)
        return {key: _joined([one.get(key) for one in values], f"{path}.{key}") for key in keys}
    each: list[Any] = []
    for one in values:
        own = one[MERGED] if isinstance(one, dict) and list(one) == [MERGED] else [one]
        each += [value for value in own if value not in each]
    return {MERGED: each}


def _differences(mine: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, and the value of both, of all that differs and is not bookkeeping."""
    if path in BOOKKEEPING or mine == theirs:
        return
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*mine, *theirs)):
            yield from _differences(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    else:
        yield path, mine, theirs


def _fits(mine: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether layouts are the same, as far as both are known: a store without examples may not know sizes and types."""
    return all(a == b for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None)


def _layout(found: tuple[tuple[str, ...], tuple[int | None, ...] | None, str | None] | None) -> str:
    if found is None:
        return "not there"
    axes, sizes, dtype = found
    each = (axis if n is None else f"{axis} {n}" for axis, n in zip(axes, sizes or (None,) * len(axes), strict=True))
    return f"{' · '.join(each) or 'one number'} {dtype or ''}".strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST - 1]}…"
