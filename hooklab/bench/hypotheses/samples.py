"""Samples of a hypothesis: an array that is given, or a function that is called once for each of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import HooklabError
from . import randomness


class HypothesisError(HooklabError, ValueError):
    """A hypothesis that cannot be tested as asked."""


@dataclass(frozen=True)
class Samples:
    """Numbers of one side.

    Attributes:
        name: `null` or `alternative`.
        values: The numbers [sample], all finite.
        called: Whether a function returned them.
    """

    name: str
    values: np.ndarray
    called: bool

    @property
    def constant(self) -> bool:
        """Whether all are the same number, but for rounding."""
        return constant(self.values)


def constant(values: np.ndarray, scale: float | None = None) -> bool:
    """Whether numbers differ by no more than rounding errors of numbers as large as `scale`.

    >>> constant(np.array([0.1 + 0.2, 0.3])), constant(np.array([0.3, 0.30001]))
    (True, False)
    """
    size = float(np.abs(values).max()) if scale is None else scale
    return bool(np.ptp(values) <= 8 * np.finfo(np.float64).eps * size)


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


GIVEN: dict[str, Callable[[int], Any]] = {"seed": int, "rng": np.random.default_rng, "generator": _generator}
"""Parameters that a function may have, and what is made of the sample's seed for each."""


def collect(name: str, given: Any, count: int, seeds: np.ndarray) -> Samples:
    """The samples of one side.

    Raises:
        HypothesisError: there are fewer than two, one is no finite number, or a function cannot be called.
    """
    values = _called(name, given, count, seeds) if callable(given) else _array(name, given)
    if len(values) < 2:
        raise HypothesisError(f"the {name} has {len(values)} sample{'s' * (len(values) != 1)}: a test needs two or more")
    odd = np.flatnonzero(~np.isfinite(values))
    if len(odd):
        more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise HypothesisError(f"sample {odd[0]} of the {name} is {values[odd[0]]}{more}: every sample must be a finite "
                              "number. Leave such samples out on purpose, or find out where they come from.")
    return Samples(name, values, callable(given))


def _called(name: str, function: Callable[..., Any], count: int, seeds: np.ndarray) -> np.ndarray:
    words = _words(name, function)
    found = []
    with randomness.kept():
        for i, seed in enumerate(seeds[:count].tolist()):
            randomness.start(seed)
            returned = function(**{word: GIVEN[word](seed) for word in words})
            numbers = _numbers(returned)
            if numbers is None or numbers.size != 1:
                raise HypothesisError(f"call {i} of the {name} returned {_shown(returned)}; a sample is one number. "
                                      "Let the function return it, such as lambda seed: run(seed)['accuracy'].")
            found.append(float(numbers.reshape(-1)[0]))
    return np.array(found)


def _words(name: str, function: Callable[..., Any]) -> list[str]:
    """What a function wants of `GIVEN`. Raises HypothesisError where it wants something else."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not say
        return []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    other = [p.name for p in (*named, *positional) if p.default is p.empty and (p.name not in GIVEN or p in positional)]
    if other:
        raise HypothesisError(f"the {name} takes {other[0]!r}, which is not known here. A function is called with what it "
                              f"has parameters for among {', '.join(GIVEN)}; bind others with functools.partial.")
    return [p.name for p in named if p.name in GIVEN]


def _array(name: str, given: Any) -> np.ndarray:
    numbers = _numbers(given)
    if numbers is None:
        raise HypothesisError(f"the {name} must be numbers [sample] or a function that returns one, not {_shown(given)}")
    if numbers.ndim != 1:
        raise HypothesisError(f"the {name} must be numbers [sample], not of shape {numbers.shape}: one number for each "
                              "sample, such as .mean(-1) of what belongs to it")
    return numbers


def _numbers(given: Any) -> np.ndarray | None:
    """Real numbers as a copy in double precision; None where they are none."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        given = given.resolve_conj().numpy() if given.is_complex() else given.double().numpy()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text}" if len(text) <= 60 else type(value).__name__
