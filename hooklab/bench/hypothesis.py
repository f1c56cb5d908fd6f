"""`test_hypothesis`: whether two sets of samples differ, how much, and how sure that is.

In: samples, or functions that make them. Out: a `HypothesisTest`. `correct` takes several of them, or p-values, and corrects
them for how many there are. Nothing is drawn from the random state of the process, and what functions draw from it is put
back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import HooklabWarning, did_you_mean
from .hypotheses.correcting import Corrected, check_alpha, correct
from .hypotheses.result import HypothesisTest
from .hypotheses.samples import HypothesisError, Samples, collect
from .hypotheses.ways import MIRROR, WAYS, Asked, Found, Way, effect, shift, still

__all__ = ["Corrected", "HypothesisError", "HypothesisTest", "correct", "test_hypothesis"]

FEW = 10
"""Samples of a side below which the tests that are not exact lean on what cannot be checked."""


def test_hypothesis(null: Any, alternative: Any, *, test: str = "permutation", side: str = "both",
                    n_samples: int | None = None, alpha: float = 0.05, seed: int = 0, draws: int = 10_000
                    ) -> HypothesisTest:
    """Test whether an alternative differs from a null.

    | test | samples | assumes |
    |---|---|---|
    | `permutation` | independent | under the null, both have the same distribution |
    | `welch` | independent | means that are about normally distributed |
    | `bootstrap` | independent | enough samples of each, some ten |
    | `mann_whitney` | independent | nothing but order; under the null the same distribution |
    | `paired` | pairs | a mean difference that is about normally distributed |
    | `sign_flip` | pairs | under the null, differences are symmetric about 0 |
    | `wilcoxon` | pairs | the same; looks at their ranks |

    A function is called once for each sample. If it has a parameter `seed` it is given a number, for `rng` a numpy
    generator, for `generator` a torch generator. Python's, numpy's and torch's own random state is also started anew for
    every call, and afterwards put back; so the same `seed` gives the same samples however a function draws. In a test of
    pairs, sample i of both sides has the same seed.

    Args:
        null: Numbers [sample], or a function that returns one.
        alternative: The same.
        test: Which test.
        side: `"both"`, or what the alternative is expected to be: `"greater"` or `"less"`.
        n_samples: How often functions are called; 100 unless given, and for pairs as often as there are numbers on the other
            side.
        alpha: The level of significance; intervals are at level 1 - alpha.
        seed: Where everything random starts.
        draws: The most permutations, sign flips or bootstrap samples.

    Returns:
        The p-value, the difference with its interval, an effect size, and notes on what to be careful about. Where samples
        do not vary, p is 1 for equal ones; for different ones a test that divides by their variance is undefined: p is None
        then, and `.undefined` says why.

    Raises:
        HypothesisError: fewer than two samples, a sample that is no finite number, pairs of different lengths, a function
            with other parameters, or an option that does not exist.

    Warns:
        HooklabWarning: a function returned the same number every time.

    Example:
        >>> null = lambda rng: rng.normal(0.0)
        >>> result = test_hypothesis(null, lambda rng: rng.normal(1.0), n_samples=50)
        >>> result.reject, 0.4 < result.effect < 1.6
        (True, True)
    """
    way, asked = _asked(test, side, alpha, seed, draws)
    sides = _samples(null, alternative, way, n_samples, seed)
    first, second = (one.values for one in sides)
    notes = [*_copies(sides), *_few(way, asked, len(first), len(second))]
    about: dict[str, Any] = dict(test=test, side=side, alpha=asked.alpha, null=first, alternative=second, draws=draws,
                                 seed=seed, difference=shift(way, first, second), effect=effect(way, first, second))
    for values in (first, second):
        values.flags.writeable = False
    if still(way, first, second):
        what = "the differences of pairs" if way.pairs else "samples"
        if abs(first.mean() - second.mean()) <= 1e-14 * max(abs(first.mean()), abs(second.mean())):
            notes.append(f"no variance: {what} do not vary, and there is no difference")
            return HypothesisTest(**{**about, "difference": 0.0, "effect": 0.0}, p=1.0, notes=tuple(notes))
        if way.spread:
            other = "sign_flip" if way.pairs else "permutation"
            return HypothesisTest(**about, p=None, notes=tuple(notes), undefined=(
                f"{way.title} is undefined, because {what} do not vary; test={other!r} is defined"))
        notes.append(f"no variance: {what} do not vary, so there is no interval")
    found: Found = way.run(first, second, asked)
    if still(way, first, second):
        found = replace(found, low=None, high=None)
    return HypothesisTest(**about, p=found.p, low=found.low, high=found.high, statistic=found.statistic, df=found.df,
                          exact=found.exact, notes=tuple(notes))


test_hypothesis.__test__ = False  # type: ignore[attr-defined]  # no test of whoever imports it, whatever pytest thinks


def _asked(test: str, side: str, alpha: float, seed: int, draws: int) -> tuple[Way, Asked]:
    for what, given, known in (("test", test, WAYS), ("side", side, MIRROR)):
        if given not in known:
            raise HypothesisError(f"there is no {what} {given!r}.{did_you_mean(given, known)} There are {', '.join(known)}.")
    alpha = check_alpha(alpha)
    for what, number, least in (("seed", seed, 0), ("draws", draws, 1)):
        _count(what, number, least)
    if 1 / (draws + 1) > alpha:
        raise HypothesisError(f"{draws} draws cannot give a p-value as small as alpha {alpha}: at least "
                              f"{int(np.ceil(1 / alpha))} are needed")
    return WAYS[test], Asked(side, alpha, draws, seed)


def _count(what: str, given: Any, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < least:
        raise HypothesisError(f"{what} is a whole number from {least}, not {given!r}")
    return int(given)


def _samples(null: Any, alternative: Any, way: Way, n_samples: int | None, seed: int) -> tuple[Samples, Samples]:
    called = callable(null), callable(alternative)
    if n_samples is not None and not any(called):
        raise HypothesisError("n_samples says how often functions are called; here both sides are numbers already")
    count = 100 if n_samples is None else _count("n_samples", n_samples, 2)
    if way.pairs and n_samples is None and called[0] != called[1]:
        count = len(collect("alternative" if called[0] else "null", alternative if called[0] else null, 0,
                            np.zeros(0)).values)
    seeds = np.random.SeedSequence(seed).generate_state(2 * count)
    other = seeds[:count] if way.pairs else seeds[count:]
    sides = collect("null", null, count, seeds[:count]), collect("alternative", alternative, count, other)
    first, second = (len(one.values) for one in sides)
    if way.pairs and first != second:
        raise HypothesisError(f"{way.title} takes as many samples of both, and there are {first} and {second}: sample i of "
                              "one belongs to sample i of the other. For independent samples: test='permutation'.")
    return sides


def _copies(sides: tuple[Samples, Samples]) -> list[str]:
    """What there is to say of functions that return one number only; also a warning."""
    same = [one for one in sides if one.called and one.constant]
    if not same:
        return []
    names = " and ".join(f"the {one.name}" for one in same)
    text = (f"{names} returned the same number at every call ({', '.join(f'{one.values[0]:.6g}' for one in same)}). If "
            f"{'they do' if len(same) > 1 else 'it does'} so whatever the seed, these are copies of one sample, and a "
            "p-value that counts each of them says nothing: let the samples differ, by seed, prompt or data")
    warnings.warn(text[0].upper() + text[1:] + ".", HooklabWarning, stacklevel=4)
    return [text]


def _few(way: Way, asked: Asked, n: int, m: int) -> list[str]:
    """What there is to say of too few samples."""
    least: Callable[[int, int], float] | None = way.least
    if least is not None:
        smallest = least(n, m) * (2 if asked.side == "both" else 1)
        return [f"too few samples: with {n} and {m}, p is at least {smallest:.3g}, so that no difference could be below "
                f"alpha {asked.alpha:g}"] if smallest > asked.alpha else []
    if min(n, m) < FEW:
        return [f"few samples: with {n} and {m}, {way.title} relies on samples that are about normally distributed"]
    return []
