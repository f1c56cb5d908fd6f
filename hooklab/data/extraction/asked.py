"""What is asked of an extraction, checked: which values are wanted and what for, metrics by name, sizes in bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...address import Place
from ...errors import RecordError, did_you_mean
from ...runtime.trace import places
from ..inputs.dry_run import _sizes
from ..reducers import aligned, counts, peaks  # noqa: F401  # they put in their kinds
from ..reducers.reducers import KINDS
from ..reducers.reducing import Reducer
from ..store.layout import name_of
from .reading import checked

if TYPE_CHECKING:
    from ...model.model import Model

WORDS = ("mean", "variance", "covariance", "extent", "max_k", "mean_pattern", "variance_pattern")
"""Reducers that can be asked for by a word."""
ENTIRE = ("max_k", "mean_pattern", "variance_pattern")
"""Reducers that are given all positions."""


class Wanted:
    """Which values are wanted, and what for."""

    def __init__(self, model: Model, sites: str | Iterable[str] | None, reduce: Any, keep: Any, dtype: Any,
                 strongest: Mapping[str, int] | None = None) -> None:
        given = places(model, [] if sites is None else [sites] if isinstance(sites, str) else list(sites))
        self.sparse = _sparse(model, strongest)
        self.sites = [place for place in given if place not in self.sparse]
        self.keep = bool(keep) and bool(self.sites or self.sparse)
        if self.sparse and not self.keep:
            raise RecordError("strongest= says how patterns are stored: say where, out=…")
        self.dtype = None if dtype is None else name_of(dtype)
        self.reducers = _reducers(model, reduce, given)
        own = places(model, [site for one in self.reducers.values() for site in (one.site, *one.further)])
        wanted = {*((*self.sites, *self.sparse) if self.keep else ()), *own}
        self.wanted = sorted(wanted, key=lambda place: place.order)
        self.entire = frozenset(name for name, one in self.reducers.items() if one.at is not None or one.kind in ENTIRE)
        self.sizes = {place: _sizes(model, place) for place in self.wanted}

    def whole(self, at: Any) -> frozenset[Place]:
        """What is wanted at all positions."""
        if at is None:
            return frozenset(self.wanted)
        some = {site for name in self.entire for site in (self.reducers[name].site, *self.reducers[name].further)}
        return frozenset(place for place in self.wanted if str(place) in some)


def _sparse(model: Model, given: Mapping[str, int] | None) -> dict[Place, int]:
    """Pattern -> how many keys of each query are stored."""
    found: dict[Place, int] = {}
    if not isinstance(given, Mapping | None):
        raise RecordError(f'strongest={given!r}: it is {{address: how many}}, such as {{"L*.pattern": 8}}')
    for address, k in (given or {}).items():
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise RecordError(f"strongest={{{address!r}: {k!r}}}: how many keys of each query is a whole number from 1")
        for place in places(model, [address]):
            if place.site != "pattern":
                raise RecordError(f"strongest= is for patterns, and {place} is none")
            if place in found:
                raise RecordError(f"strongest= names {place} twice")
            found[place] = k
    return found


def metrics_of(given: Any) -> dict[str, Any]:
    """Name -> metric of the language, or function."""
    if given is None:
        return {}
    if isinstance(given, str):
        return {given: given}
    found = dict(given) if isinstance(given, Mapping) else {one if isinstance(one, str) else getattr(
        one, "__name__", type(one).__name__): one for one in given}
    for name, one in found.items():
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name) and (callable(one) or isinstance(one, str))):
            raise RecordError(f"metric {name!r}: a metric is a name of the hook language, or name: expression or function")
    if not isinstance(given, Mapping) and len(found) < len(list(given)):
        raise RecordError("two metrics have the same name: give {name: metric}")
    return found


def _reducers(model: Model, given: Any, sites: Sequence[Place]) -> dict[str, Reducer]:
    """Name -> reducer, empty as yet."""
    if given is None:
        return {}
    found: dict[str, Reducer] = {}
    pairs: list[tuple[str | None, Any]] = (list(given.items()) if isinstance(given, Mapping) else
                                           [(None, one) for one in ([given] if isinstance(given, str | Reducer) else given)])
    for name, one in pairs:
        if isinstance(one, Reducer):
            place = places(model, [one.site])
            if len(place) != 1:
                raise RecordError(f"a reducer has one site, and {one.site} is {len(place)}")
            made = type(one)(str(place[0]), **{key: value for key, value in one.options().items() if value is not None})
            _put(found, name or f"{one.kind} {place[0]}", made.of(model))
            continue
        if name is not None and not isinstance(one, Iterable):
            raise RecordError(f"reduce={{{name!r}: {one!r}}}: it is a reducer, or the address of what is reduced")
        word, over = (one, sites) if name is None else (name, places(model, [one] if isinstance(one, str) else list(one)))
        if word not in WORDS:
            raise RecordError(f"there is no reducer {word!r} by its name alone.{did_you_mean(str(word), WORDS)} There are "
                              f"{', '.join(WORDS)}; others are given as such")
        if not over:
            raise RecordError(f"{word} of what? Give sites, or {{{word!r}: address}}")
        for one_place in over:
            _put(found, str(name) if name is not None and len(over) == 1 else f"{word} {one_place}",
                 KINDS[word](str(one_place)))
    return found


def _put(found: dict[str, Reducer], name: str, one: Reducer) -> None:
    if name in found or "/" in name:
        raise RecordError(f"two reducers are called {name!r}" if name in found else
                          f"a reducer's name has no slash: {name!r}")
    found[name] = one


def ram(given: int | str | None) -> int | None:
    """Bytes.

    >>> ram("2GB"), ram(5)
    (2000000000, 5)
    """
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?\s*", given)
        if match is None:
            raise RecordError(f'max_ram={given!r}: it is bytes, or text such as "2GB"')
        given = int(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[match[2]])
    found: int | None = checked("max_ram", given, none=True)
    return found
