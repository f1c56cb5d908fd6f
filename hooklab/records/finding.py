"""Finding runs in a list by what is known of them: the conditions of every `where`.

    list ──a Traits for each run──▶ chosen(…) ──▶ the numbers of those that satisfy every condition

A name that no run of the list has is a mistake and no empty answer, so it is an error that names the nearest one. A list
without any run has no names to compare with, and gives none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from numbers import Real
from typing import Any, Self, TypeVar, overload

from ..errors import RecordError, did_you_mean

Item = TypeVar("Item")
SHORTEST = 4
"""Characters of a fingerprint that are enough to ask for it."""


@dataclass(frozen=True, repr=False)
class Listed(Sequence[Item]):
    """A list that knows the one that it was chosen from.

    Attributes:
        items: What is in it.
        whole: The list that they were chosen from: a name that stands there is no unknown one.
    """

    items: tuple[Item, ...] = ()
    whole: tuple[Item, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """A list that was chosen from none is whole itself."""
        object.__setattr__(self, "whole", self.whole or self.items)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Item | Self:
        return type(self)(self.items[at], self.whole) if isinstance(at, slice) else self.items[at]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


@dataclass(frozen=True)
class Traits:
    """What one run is found by.

    Attributes:
        words: Kind -> the names of that kind that it has, such as `{"tag": ("good",)}`.
        models: Name and fingerprint of each of its models.
        texts: Kind -> label -> text, such as `{"inputs": {"prompt": "Mary went"}}`.
        made: When it was made, in seconds since 1970; None where that is not known.
        metrics: Name -> its numbers under that name.
    """

    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    models: Sequence[tuple[str, str]] = ()
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    made: float | None = None
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)


Test = Callable[[Traits], bool]


def chosen(some: Sequence[Traits], whole: Sequence[Traits], wanted: Mapping[str, Any], metrics: Mapping[str, Any],
           fixed: Mapping[str, Sequence[str]] | None = None) -> list[int]:
    """The numbers of the runs that satisfy every condition.

    Args:
        some: The runs to choose from.
        whole: All runs of the list that they are from: what these know is no unknown name.
        wanted: Condition -> what was given for it; None asks for nothing.
        metrics: Metric -> range, number, or function of a number.
        fixed: Kind -> all names of it that there can be; those of `whole` where it is not said.

    Raises:
        RecordError: a name that none has, or a value that says no condition.

    >>> runs = [Traits({"tag": ("good",)}, metrics={"loss": (0.5,)}), Traits(metrics={"loss": (0.1,)})]
    >>> chosen(runs, runs, {"tag": "good"}, {}), chosen(runs, runs, {}, {"loss": (None, 0.2)})
    ([0], [1])
    """
    tests = [CONDITIONS.get(name, _named)(name, given, whole, (fixed or {}).get(name))
             for name, given in wanted.items() if given is not None]
    tests += [_measured(name, given, whole, wanted) for name, given in metrics.items()]
    return [i for i, one in enumerate(some) if all(test(one) for test in tests)]


# Names and texts ---------------------------------------------------------------------------------------------------------


def _named(kind: str, given: Any, whole: Sequence[Traits], fixed: Sequence[str] | None) -> Test:
    """Runs that have one of these names."""
    asked = _words(kind, given)
    known = fixed if fixed is not None else list(dict.fromkeys(word for one in whole for word in one.words.get(kind, ())))
    if whole or fixed is not None:
        for word in asked:
            if word not in known:
                raise RecordError(f"there is no {kind} {word!r} among these runs.{did_you_mean(word, known)}"
                                  f"{_listed(known)}")
    return lambda one: any(word in one.words.get(kind, ()) for word in asked)


def _of_model(kind: str, given: Any, whole: Sequence[Traits], fixed: Sequence[str] | None) -> Test:
    """Runs of a model, by its name or the beginning of its fingerprint."""
    asked = _words(kind, given)
    models = [model for one in whole for model in one.models]
    for word in asked:
        if whole and not any(_is_model(word, model) for model in models):
            known = list(dict.fromkeys(name for model in models for name in (*names_of(model[0]), model[1]) if name))
            raise RecordError(f"no run here is of a model {word!r}.{did_you_mean(word, known)}{_listed(known)}")
    return lambda one: any(_is_model(word, model) for word in asked for model in one.models)


def _is_model(word: str, model: tuple[str, str]) -> bool:
    name, mark = model
    return word in names_of(name) or (len(word) >= SHORTEST and mark.startswith(word.removeprefix("#")))


def names_of(name: str) -> tuple[str, ...]:
    """What a model's name may be shortened to: its last part; of a folder `weights`, that of the folder above.

    >>> names_of("openai-community/gpt2"), names_of("/models/lab/weights")
    (('openai-community/gpt2', 'gpt2'), ('/models/lab/weights', 'weights', 'lab'))
    """
    parts = name.replace("\\", "/").rstrip("/").split("/")
    return tuple(dict.fromkeys((name, parts[-1], *(parts[-2:-1] if parts[-1] == "weights" else ()))))


def _said(kind: str, given: Any, whole: Sequence[Traits], fixed: Sequence[str] | None) -> Test:
    """Runs in whose texts of a kind this stands; a mapping asks for it under labels."""
    if not isinstance(given, Mapping):
        asked = _words(kind, given)
        return lambda one: any(word in text for word in asked for text in one.texts.get(kind, {}).values())
    known = list(dict.fromkeys(label for one in whole for label in one.texts.get(kind, {})))
    parts = {label: _words(kind, text) for label, text in given.items()}
    for label in parts:
        if whole and label not in known:
            raise RecordError(f"no run here has {label!r} among its {kind}.{did_you_mean(label, known)}{_listed(known)}")
    return lambda one: all(any(word in one.texts.get(kind, {}).get(label, "") for word in words)
                           for label, words in parts.items())


def _words(kind: str, given: Any) -> tuple[str, ...]:
    """A text, or several of which one is enough. Raises RecordError for anything else."""
    if isinstance(given, str) and given:
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)):
        found = tuple(given)
        if found and all(isinstance(one, str) and one for one in found):
            return found
    raise RecordError(f"{kind} takes a text, or several of which one is enough, not {given!r}")


def _listed(known: Sequence[str]) -> str:
    """The first few that there are, as the end of a message."""
    if not known:
        return " None of them has one"
    return f" There is {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"


# Times ---------------------------------------------------------------------------------------------------------------------


def _after(kind: str, given: Any, whole: Sequence[Traits], fixed: Sequence[str] | None) -> Test:
    edge = seconds(kind, given)
    return lambda one: one.made is not None and one.made >= edge


def _before(kind: str, given: Any, whole: Sequence[Traits], fixed: Sequence[str] | None) -> Test:
    edge = seconds(kind, given)
    return lambda one: one.made is not None and one.made < edge


def seconds(kind: str, given: Any) -> float:
    """A moment in seconds since 1970; without a zone it is meant in UTC, as tables of runs show it.

    >>> seconds("after", "1970-01-02"), seconds("after", "1970-01-01T02:00+02:00")
    (86400.0, 0.0)

    Raises:
        RecordError: it is no moment.
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return float(given)
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        return float((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, AttributeError, TypeError, OverflowError):
        raise RecordError(f"{kind} takes a moment, such as '2025-06-30', '2025-06-30 14:00' (UTC), a datetime, or seconds "
                          f"since 1970, not {given!r}") from None


def moment(seconds: float | None) -> str:
    """A time in the words of a table, in UTC.

    >>> moment(0.0), moment(None)
    ('1970-01-01 00:00:00', '')
    """
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


# Numbers -------------------------------------------------------------------------------------------------------------------


def _measured(name: str, given: Any, whole: Sequence[Traits], conditions: Iterable[str]) -> Test:
    """Runs with a number under a name that lies in a range."""
    known = list(dict.fromkeys(metric for one in whole for metric in one.metrics))
    if whole and name not in known:
        raise RecordError(f"{name!r} is no condition, and no run here has such a number."
                          f"{did_you_mean(name, [*conditions, *known])} Conditions are {', '.join(conditions)}"
                          f"{'; numbers are ' + ', '.join(known[:8]) if known else ''}")
    fits = _range(name, given)
    return lambda one: any(fits(value) for value in one.metrics.get(name, ()))


def _range(name: str, given: Any) -> Callable[[float], bool]:
    """(low, high) with None for an open end, one number, or a function of it. Raises RecordError for anything else."""
    if callable(given):
        return lambda value: bool(given(value))
    low, high = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, given)
    ends = [one for one in (low, high) if one is not None]
    if not ends or any(isinstance(one, bool) or not isinstance(one, Real) or one != one for one in ends):
        raise RecordError(f"{name} takes a number, (low, high) with None for an open end, or a function of the number, not "
                          f"{given!r}")
    if len(ends) == 2 and low > high:
        raise RecordError(f"{name}: no number lies from {low} to {high}")
    return lambda value: (low is None or value >= low) and (high is None or value <= high)


CONDITIONS: dict[str, Callable[[str, Any, Sequence[Traits], Sequence[str] | None], Test]] = {
    "model": _of_model, "after": _after, "before": _before, "inputs": _said, "prompt": _said, "spec": _said}
"""How a condition is read; any other asks for a name of its kind."""
