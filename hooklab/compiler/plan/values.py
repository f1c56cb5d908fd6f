"""Values: what an activation is changed by, as small expressions over what earlier runs will have captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .reaches import Spread
from .spots import Spot


@dataclass(frozen=True)
class Const:
    """A number."""

    value: float


@dataclass(frozen=True)
class Given:
    """What Python between braces evaluated to; `pick` chooses one of several."""

    source: str
    pick: int | None = None


@dataclass(frozen=True)
class Act:
    """An activation of an earlier run."""

    run: str
    spot: Spot
    at: Spread | None = None


@dataclass(frozen=True)
class Op:
    """Arithmetic: + - * / of two values, or `neg` of one."""

    op: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Fn:
    """A function of values: mean, unit, …"""

    name: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Sigma:
    """The standard deviation of a site in an untouched run, over all its real tokens."""

    run: str
    spot: Spot


@dataclass(frozen=True)
class FromFile:
    """A tensor of a safetensors file, under the site's address."""

    path: str


@dataclass(frozen=True)
class Same:
    """The same place in another run."""

    run: str
    at: Spread | None = None


Value = Const | Given | Act | Op | Fn | Sigma | FromFile | Same


def acts(value: Any) -> Iterator[Act | Sigma]:
    """Every activation that a value needs."""
    if isinstance(value, (Act, Sigma)):
        yield value
    elif isinstance(value, (Op, Fn)):
        for arg in value.args:
            yield from acts(arg)


def at_spot(value: Any, spot: Spot) -> Any:
    """A value as it is at one of a line's places: `sigma` is the spread of each place for itself."""
    if isinstance(value, Sigma):
        return Sigma(value.run, Spot(spot.site, spot.layer))
    if isinstance(value, (Op, Fn)):
        return replace(value, args=tuple(at_spot(arg, spot) for arg in value.args))
    return value
