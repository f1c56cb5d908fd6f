"""The axes of a view: what each entry is called, and the key under which a selection names it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ViewError, did_you_mean
from .text import shown
from .wire import plain

if TYPE_CHECKING:
    from ..records import Scores

POSITIONS = ("pos", "query_pos", "key_pos")
_COUNTED = re.compile(r"^(-?\d+): (.*)$", re.DOTALL)


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: Its axis word, such as `layer`.
        keys: What a selection says for each entry: a number for layers, heads and positions, else the label.
        labels: What stands beside each entry.
    """

    name: str
    keys: tuple[Any, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.labels):
            raise ViewError(f"{self.name} has {len(self.keys)} keys and {len(self.labels)} labels")
        if len(self._places) < len(self.keys):
            raise ViewError(f"the keys of {self.name} must differ, so that one of them names one entry")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def facts(self) -> dict[str, Any]:
        """The same for the view."""
        return {"name": self.name, "keys": list(self.keys), "labels": list(self.labels)}

    @cached_property
    def _places(self) -> dict[Any, int]:
        return {(isinstance(key, bool), key): i for i, key in enumerate(self.keys)}  # 1 and True are two keys

    def has(self, key: Any) -> bool:
        """Whether a key names an entry, as it stands."""
        try:
            return (isinstance(key, bool), key) in self._places
        except TypeError:
            return False

    def index(self, key: Any) -> int:
        """Which entry a key names; positions also count from the end, as -1.

        Raises:
            ViewError: there is none.
        """
        key = plain(key) if isinstance(key, np.generic) else key
        if self.has(key):
            return self._places[isinstance(key, bool), key]
        if isinstance(key, int) and not isinstance(key, bool) and self.name in POSITIONS and -len(self) <= key < 0:
            return len(self) + key
        some = ", ".join(map(str, self.keys[:6])) + (f" … {self.keys[-1]}" if len(self) > 6 else "")
        raise ViewError(f"there is no {self.name} {key!r} in this view; it has {some or 'none'}."
                        + did_you_mean(str(key), map(str, self.keys) if isinstance(key, str) else ()))


def axis(name: str, labels: Iterable[Any]) -> Axis:
    """An axis of labels as Scores have them; `"3: Mary"` has the key 3. Labels that stand there twice are numbered as keys.

    >>> axis("pos", ["0: When", "1: Mary"])
    Axis(name='pos', keys=(0, 1), labels=('When', 'Mary'))
    >>> axis("batch", ["the", "the"])
    Axis(name='batch', keys=('the', 'the (2)'), labels=('the', 'the'))
    """
    labels = list(labels)
    counted = [_COUNTED.match(label) if isinstance(label, str) and name in POSITIONS else None for label in labels]
    keys = [int(match[1]) if match else _key(label) for match, label in zip(counted, labels, strict=True)]
    texts = [shown(match[2]) if match else shown(label) for match, label in zip(counted, labels, strict=True)]
    return Axis(name, tuple(_different(keys)), tuple(texts))


def positions(name: str, pieces: Sequence[str]) -> Axis:
    """An axis of tokens, counted from 0."""
    return Axis(name, tuple(range(len(pieces))), tuple(map(shown, pieces)))


def of(scores: Scores) -> list[Axis]:
    """The axes of Scores, in order."""
    return [axis(name, scores.coords[name]) for name in scores.axes]


def _key(label: Any) -> Any:
    """A label as a selection can say it: a number or text."""
    key = plain(label)
    return key if isinstance(key, (str, int, float)) else str(label)


def _different(keys: list[Any]) -> list[Any]:
    found: dict[tuple[bool, Any], Any] = {}
    for key in keys:
        count, one = 1, key
        while (isinstance(one, bool), one) in found:
            count += 1
            one = f"{key} ({count})"
        found[isinstance(one, bool), one] = one
    return list(found.values())
