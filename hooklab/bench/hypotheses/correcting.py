"""`correct`: p-values of several tests, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import html
from ...errors import did_you_mean
from .result import HypothesisTest
from .samples import HypothesisError


def _bonferroni(p: np.ndarray) -> np.ndarray:
    return p * len(p)


def _holm(p: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(p * np.arange(len(p), 0, -1))


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    return np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]


METHODS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "holm": (_holm, "the chance of one false rejection or more is at most alpha (Holm 1979)"),
    "benjamini_hochberg": (_benjamini_hochberg, "of the rejections, a share of at most alpha is false on average, for "
                           "independent tests (Benjamini & Hochberg 1995)"),
    "bonferroni": (_bonferroni, "the chance of one false rejection or more is at most alpha"),
}
"""Each from p-values in order, smallest first, to adjusted ones; and what it promises."""


@dataclass(frozen=True, repr=False, eq=False)
class Corrected:
    """Several tests after a correction.

    Attributes:
        names: What the tests are called.
        p: Their p-values [test].
        adjusted: The p-values after the correction [test]; compare these with `alpha`.
        method: Which correction.
        alpha: The level for all of them together.
    """

    names: tuple[str, ...]
    p: np.ndarray
    adjusted: np.ndarray
    method: str
    alpha: float

    @property
    def reject(self) -> np.ndarray:
        """Which null hypotheses are rejected [test]."""
        return self.adjusted <= self.alpha

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        return (f"{int(self.reject.sum())} of {len(self.p)} null hypotheses are rejected at alpha "
                f"{html.number(self.alpha)} by {self.method}: {METHODS[self.method][1]}.")

    def _rows(self) -> list[list[Any]]:
        return [[name, html.number(float(p)), html.number(float(adjusted)), "rejected" if rejected else ""]
                for name, p, adjusted, rejected in zip(self.names, self.p, self.adjusted, self.reject, strict=True)]

    def __repr__(self) -> str:
        rows = [["test", "p", "adjusted", ""], *([html.printable(cell) for cell in row] for row in self._rows())]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join([self.sentence, *("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)])

    def _repr_html_(self) -> str:
        return html.block(html.heading(self.sentence), html.table(["test", "p", "adjusted", ""], self._rows()))


def correct(results: Any, method: str = "holm", *, alpha: float | None = None) -> Corrected:
    """Correct the p-values of several tests for how many there are.

    Args:
        results: Results of `test_hypothesis` or p-values: a list, or a dict of names.
        method: `"holm"` or `"bonferroni"`, for the chance of any false rejection; `"benjamini_hochberg"`, for the share of
            false ones.
        alpha: The level for all tests together; that of the results unless given, and 0.05 for p-values.

    Raises:
        HypothesisError: there are none, one is no p-value or of an undefined test, or there is no such method.

    >>> correct([0.01, 0.04, 0.03], "holm").adjusted.tolist()
    [0.03, 0.06, 0.06]
    """
    if method not in METHODS:
        raise HypothesisError(f"there is no correction {method!r}.{did_you_mean(method, METHODS)} There are "
                              f"{', '.join(METHODS)}.")
    named = _named(results)
    alphas = {one.alpha for one in named.values() if isinstance(one, HypothesisTest)}
    if alpha is None and len(alphas) > 1:
        raise HypothesisError(f"the tests have different levels, {', '.join(map(str, sorted(alphas)))}: say which by alpha=")
    alpha = check_alpha(next(iter(alphas), 0.05) if alpha is None else alpha)
    p = np.array([_p(name, one) for name, one in named.items()])
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, METHODS[method][0](p[order]))
    return Corrected(tuple(map(str, named)), p, adjusted, method, alpha)


def check_alpha(alpha: Any) -> float:
    """A level of significance. Raises HypothesisError where it is none."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.floating)) or not 0 < alpha < 1:
        raise HypothesisError(f"alpha is a level of significance between 0 and 1, such as 0.05, not {alpha!r}")
    return float(alpha)


def _named(results: Any) -> dict[Any, Any]:
    if isinstance(results, (HypothesisTest, str)) or not isinstance(results, Iterable):
        raise HypothesisError("a correction is of several tests: give a list of results or p-values, or a dict of names")
    if isinstance(results, Mapping):
        named = dict(results)
    else:
        given = results.tolist() if hasattr(results, "tolist") else list(results)
        named = {str(i): one for i, one in enumerate(given)}
    if not named:
        raise HypothesisError("there is no p-value to correct")
    return named


def _p(name: Any, given: Any) -> float:
    if isinstance(given, HypothesisTest):
        if given.p is None:
            raise HypothesisError(f"test {name} has no p-value: {given.undefined}")
        return given.p
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = -1.0
    if isinstance(given, (bool, str)) or not 0 <= found <= 1:
        raise HypothesisError(f"test {name}: a p-value lies between 0 and 1, and this is {given!r}")
    return found
