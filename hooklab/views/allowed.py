"""What the traits of a view take. In: what a notebook or a page says. Out: the same in the view's words, or `Refused`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from traitlets import TraitError

from ..errors import ViewError, did_you_mean
from .axes import Axis


class Refused(ViewError, TraitError):
    """A value that a trait does not take; being a TraitError, it leaves the former value in place."""


def selection(given: Mapping[str, Any], axes: Mapping[str, Axis]) -> dict[str, Any]:
    """A selection by the keys of the axes: -1 becomes the last position.

    >>> selection({"pos": -1}, {"pos": Axis("pos", (0, 1), ("When", "Mary"))})
    {'pos': 1}

    Raises:
        Refused: there is no such axis or entry.
    """
    chosen = {}
    for name, key in given.items():
        if name not in axes:
            raise Refused(f"this view has no axis {name!r}.{did_you_mean(str(name), axes)} "
                          f"It has {', '.join(axes) or 'none'}.")
        try:
            chosen[name] = axes[name].keys[axes[name].index(key)]
        except ViewError as error:
            raise Refused(str(error)) from None
    return chosen


def together(chosen: Mapping[str, Any], before: Mapping[str, Any], word: str, said: Mapping[Any, Mapping[str, Any]]
             ) -> dict[str, Any]:
    """A choice in which an entry of the axis `word` brings its layer, head and the like along, and these bring the entry.

    >>> said = {"L1H2": {"layer": 1, "head": 2}, "L1.mlp": {"layer": 1}}
    >>> together({"node": "L1H2"}, {}, "node", said)
    {'node': 'L1H2', 'layer': 1, 'head': 2}
    >>> together({"layer": 1, "head": 2}, {}, "node", said)
    {'layer': 1, 'head': 2, 'node': 'L1H2'}

    Args:
        chosen: What is asked for.
        before: What was chosen.
        word: The axis of the entries.
        said: Entry -> what it says on other axes.
    """
    entry = chosen.get(word)
    rest = {name: key for name, key in chosen.items() if name != word}
    if entry is not None and (not rest or entry != before.get(word)):
        return {word: entry, **said[entry]}
    if entry is not None and rest == dict(said[entry]):
        return dict(chosen)
    found = [one for one, words in said.items() if rest and rest == dict(words)]
    return {**rest, word: found[0]} if len(found) == 1 else rest


def options(given: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Options with the values that they may have; an empty tuple stands for any number.

    >>> options({"size": 2, "mode": "pattern"}, {"mode": ("pattern", "value"), "size": ()})
    {'size': 2, 'mode': 'pattern'}

    Raises:
        Refused: there is no such option, or it has no such value.
    """
    return {name: _option(name, value, known) for name, value in given.items()}


def _option(name: str, value: Any, known: Mapping[str, tuple[Any, ...]]) -> Any:
    if name not in known:
        raise Refused(f"this view has no option {name!r}.{did_you_mean(str(name), known)}")
    if isinstance(value, np.generic):
        value = value.item()
    for one in known[name]:
        if isinstance(one, bool) == isinstance(value, bool) and one == value:
            return one
    if known[name]:
        raise Refused(f"{name} is one of {', '.join(map(repr, known[name]))}, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refused(f"{name} is a number, not {value!r}")
    return value
