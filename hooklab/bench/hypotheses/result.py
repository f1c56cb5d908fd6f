"""What a test of a hypothesis says: numbers, a sentence, and what to be careful about."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from ... import html
from . import effects
from .ways import WAYS

SIDES = {"both": "differs from", "greater": "is greater than", "less": "is less than"}


@dataclass(frozen=True, repr=False, eq=False)
class HypothesisTest:
    """A null and an alternative, compared.

    Attributes:
        test: Which test, a word of `hooklab.bench.hypotheses.ways.WAYS`.
        side: `"both"`, `"greater"` or `"less"`: what the alternative was tested for.
        alpha: The level of significance.
        null, alternative: The samples [sample].
        p: The p-value; None where the test is undefined, and `undefined` says why.
        difference: Of the alternative from the null: of their means, or for tests of ranks the median of all differences.
        low, high: The interval of the difference at level 1 - alpha, open to one side for a one-sided test; None where
            there is none.
        statistic: The statistic of the test; None where it is undefined.
        df: Degrees of freedom of a t test.
        effect: The difference without a unit, positive where the alternative is larger: Hedges' g, or for tests of ranks
            the rank-biserial correlation; None where nothing varies.
        exact: Whether p was found by counting all ways.
        draws, seed: How the others were drawn.
        undefined: Why there is no p-value.
        notes: What a reader should be careful about.
    """

    test: str
    side: str
    alpha: float
    null: np.ndarray
    alternative: np.ndarray
    p: float | None
    difference: float
    low: float | None = None
    high: float | None = None
    statistic: float | None = None
    df: float | None = None
    effect: float | None = None
    exact: bool = False
    draws: int = 0
    seed: int = 0
    undefined: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def reject(self) -> bool | None:
        """Whether the null hypothesis is rejected at `alpha`; None where the test is undefined."""
        return None if self.p is None else self.p <= self.alpha

    @property
    def effect_name(self) -> str:
        """What `effect` is called."""
        return "rank-biserial correlation" if WAYS[self.test].ranks else "Hedges' g"

    @property
    def detectable(self) -> float:
        """The smallest true difference, in standard deviations, that 80 % of experiments of this size would find.

        Computed for a t test of normally distributed samples; the other tests are close to it.
        """
        sizes = (len(self.null),) if WAYS[self.test].pairs else tuple(sorted((len(self.null), len(self.alternative))))
        return effects.detectable(sizes, self.alpha, self.side)

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        means = f"mean {html.number(self.alternative.mean(), 4)} against {html.number(self.null.mean(), 4)}"
        if self.p is None:
            return f"Not tested: {self.undefined} ({means})."
        verdict = f"The alternative {SIDES[self.side]} the null" if self.reject else \
            f"No evidence that the alternative {SIDES[self.side]} the null"
        found = f"{means}, p = {html.number(self.p)}, alpha {html.number(self.alpha)}"
        size = "" if self.effect is None else f", {self.effect_name} {html.number(self.effect)}"
        return f"{verdict}: {found}{size}, {WAYS[self.test].title}."

    def as_dict(self) -> dict[str, Any]:
        """The result as plain numbers and text, for a record: without the samples, bounds without end as None."""
        words = ("test", "side", "alpha", "p", "reject", "difference", "low", "high", "statistic", "df", "effect",
                 "effect_name", "exact", "draws", "seed", "undefined", "sentence")
        found = {word: getattr(self, word) for word in words}
        for word in ("low", "high"):
            found[word] = None if found[word] is None or not isfinite(found[word]) else found[word]
        return found | {"n_null": len(self.null), "n_alternative": len(self.alternative), "notes": list(self.notes),
                        "mean_null": float(self.null.mean()), "mean_alternative": float(self.alternative.mean())}

    def _rows(self) -> list[tuple[str, str]]:
        way = WAYS[self.test]
        rows = [(side, f"{html.number(x.mean(), 4)} ± {html.number(x.std(ddof=1), 3)}  ({len(x)} samples)")
                for side, x in (("null", self.null), ("alternative", self.alternative))]
        where = "" if self.low is None or self.high is None else \
            f"  {html.number(100 * (1 - self.alpha))} % interval {html.number(self.low, 4)} to {html.number(self.high, 4)}"
        rows.append(("median difference" if way.ranks else "difference", html.number(self.difference, 4) + where))
        if self.effect is not None:
            rows.append((self.effect_name, html.number(self.effect)))
        if self.statistic is not None and way.statistic != "difference":
            rows.append((way.statistic, html.number(self.statistic, 4)
                         + ("" if self.df is None else f"  ({html.number(self.df, 4)} degrees of freedom)")))
        how = "all ways counted" if self.exact else ""
        rows.append(("p", "undefined" if self.p is None else html.number(self.p, 4) + (f"  ({how})" if how else "")))
        rows.append(("detectable", f"{html.number(self.detectable)} standard deviations, by 80 % of such experiments"))
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join([self.sentence, *(f"  {name:<{width}}  {text}" for name, text in rows),
                          *(f"  note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return html.block(html.heading(self.sentence), html.table(["", WAYS[self.test].title], self._rows()),
                          *(html.note(note) for note in self.notes))
