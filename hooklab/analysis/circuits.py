"""`hl.analysis.circuit`: the fewest components that still do the task, found by taking others out one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .. import html
from ..records import Run, Scores
from ..records.drawn import Viewed
from .asking import Asking, SweepError, check_word, places
from .sweep import Progress

if TYPE_CHECKING:
    from ..model.model import Model

METHODS = ("greedy", "threshold")


@dataclass(frozen=True)
class Circuit(Viewed):
    """Components that do a task, all others carrying the values of corrupted prompts.

    Attributes:
        nodes: What is left, in the order of a forward pass.
        removed: What was taken out, in that order.
        steps: How much of the metric was left after each removal, on the scale from corrupted (0) to clean (1).
        faithfulness: The same for the circuit as it is.
        spec: A cell that runs the circuit, and expects what was found.
    """

    nodes: tuple[str, ...]
    removed: tuple[str, ...]
    steps: Scores
    faithfulness: float
    spec: str

    def __str__(self) -> str:
        return (f"Circuit of {len(self.nodes)} of {len(self.nodes) + len(self.removed)} components, "
                f"{self.faithfulness:.0%} of the metric: {', '.join(self.nodes) or 'none'}")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = html.bars([f"without {name}" for name in self.removed], [float(v) for v in self.steps.values],
                         caption="what is left of the metric, one component after another taken out", unit="fraction")
        return html.block(html.heading(str(self)), left if self.removed else "", html.folded("spec", self.spec))


def circuit(model: Model, clean: Any, corrupt: Any, metric: str | Callable[[Tensor], Any] = "logit_diff", *,
            nodes: str | Sequence[str] = ("L*H*", "L*.mlp_out"), answer: Any = None, wrong: Any = None,
            method: str = "greedy", keep: float = 0.9, threshold: float = 0.01, rows: int | None = None,
            progress: Progress | None = None) -> Circuit:
    """Take components out (their value that of the corrupted run) for as long as the metric stands it.

    `"greedy"` measures in every round what each component that is left would cost, together with those already out, and
    takes the cheapest, until the metric would fall below `keep` of the way from corrupted to clean. `"threshold"` goes
    through the components once, from the last layer to the first, and takes each out that changes the metric by less than
    `threshold` of that way, as ACDC does with edges.

    Args:
        model: An opened model.
        clean: Text, ids or a list of them.
        corrupt: The same for the corrupted prompt, pair by pair.
        metric: A name, or a function of the last logits.
        nodes: Components to choose among: heads, MLPs.
        answer: The right next token.
        wrong: The wrong one.
        method: `"greedy"` or `"threshold"`.
        keep: With `"greedy"`: the share of the metric that must be left, 0 to 1.
        threshold: With `"threshold"`: the share that a single component may cost.
        rows: Most whole rows of a pass.
        progress: Called with (done, total, what).

    Returns:
        The circuit; `hl.analysis.Circuit.spec` is a cell that checks it.

    Raises:
        SweepError: an unknown method; `keep` out of range; components at some positions only; a metric that is the same
            on both prompts.
        SpecError: components that do not exist, prompts of different length.

    Sources: Wang et al. 2022 (arXiv:2211.00593) for the knock-out of complements; Conmy et al. 2023 (arXiv:2304.14997) for
    the threshold rule.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> found = hl.analysis.circuit(model, "When Mary and John went to the store, John gave a drink to",
        ...                    "When Mary and John went to the store, Mary gave a drink to", answer=" Mary", wrong=" John")
        >>> found.faithfulness >= 0.9
        True
    """
    check_word("method", method, METHODS)
    if not 0 <= keep <= 1:
        raise SweepError(f"keep={keep:g}: it is a share of the metric, from 0 to 1")
    search = _Search(model, clean, corrupt, metric, answer, wrong, rows)
    left = search.names(nodes)
    rule = search.greedy if method == "greedy" else search.by_threshold
    removed, shares = rule(left, keep if method == "greedy" else threshold, progress)
    if progress is not None:
        progress(len(left), len(left), "")
    stay = tuple(name for name in left if name not in removed)
    share = shares[-1] if shares else 1.0
    steps = Scores(np.array(shares), ("step",), {"step": tuple(removed)}, "fraction", search.metric,
                   note="what is left of the metric after each removal: 0 is the corrupted prompt, 1 the clean one")
    return Circuit(stay, tuple(removed), steps, share, search.spec(removed, share))


class _Search:
    """The runs that a search takes."""

    def __init__(self, model: Model, clean: Any, corrupt: Any, metric: Any, answer: Any, wrong: Any,
                 rows: int | None) -> None:
        self.model, self.rows = model, rows
        self.asking = Asking().prompt("clean", clean).prompt("corrupt", corrupt).answer(answer, wrong)
        self.metric = self.asking.metric(metric)
        run = self.run([])
        self.ends = run.metrics["corrupt"][self.metric], run.metrics["clean"][self.metric]
        if not abs(self.ends[1] - self.ends[0]) > 1e-6 * max(1.0, abs(self.ends[1])):
            raise SweepError(f"{self.metric} is {self.ends[1]:.6g} on both prompts, so nothing can be said to do the task")

    def run(self, lines: Sequence[str]) -> Run:
        """A run of the prompts with some lines more."""
        text = "\n".join([*self.asking.lines, *lines])
        return self.model.run(self.model.plan(text, values=self.asking.values), rows=self.rows)

    def share(self, value: Any) -> Any:
        """A metric on the scale from corrupted to clean."""
        return (value - self.ends[0]) / (self.ends[1] - self.ends[0])

    def names(self, nodes: str | Sequence[str]) -> list[str]:
        """Every component by its own address, in the order of a forward pass."""
        lines = [*self.asking.lines, "run chosen on clean:", f"    patch {places(nodes)} from corrupt"]
        plan = self.model.plan("\n".join(lines), values=self.asking.values)
        edits = plan.run("chosen").cells[0].edits
        if any(edit.reach.at is not None for edit in edits):
            raise SweepError("components are taken out at all positions: leave @ out of nodes=")
        spots = [spot for edit in edits for spot in edit.spots]
        found = []
        for spot in sorted(spots, key=lambda spot: spot.order):
            heads = [None] if spot.heads is None else [(head,) for head in spot.heads]
            units = [None] if spot.units is None else [(unit,) for unit in spot.units]
            features = [None] if spot.features is None else [(feature,) for feature in spot.features]
            found += [str(replace(spot, heads=h, units=u, features=f)) for h in heads for u in units for f in features]
        return list(dict.fromkeys(name.removesuffix(".result") if "H" in name else name for name in found))

    def after(self, removed: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """What is left of the metric when each candidate goes too, [candidate]."""
        base = ["run base on clean:", f"    patch {', '.join(removed)} from corrupt"] if removed else []
        on = "base" if removed else "clean"
        run = self.run([*base, f"run swept on {on}:", f"    patch each {', '.join(candidates)} from corrupt"])
        if f"swept.{self.metric}" in run.scores:
            return np.asarray(self.share(run.scores[f"swept.{self.metric}"].values)).reshape(-1)
        return np.asarray([self.share(run.metrics["swept"][self.metric])])

    def greedy(self, left: list[str], keep: float, progress: Progress | None) -> tuple[list[str], list[float]]:
        """The cheapest of all, round by round."""
        removed: list[str] = []
        shares: list[float] = []
        stay = list(left)
        while stay:
            if progress is not None:
                progress(len(removed), len(left), "circuit")
            costs = self.after(removed, stay)
            best = int(np.argmax(costs))
            if not costs[best] >= keep:
                break
            removed.append(stay.pop(best))
            shares.append(float(costs[best]))
        return removed, shares

    def by_threshold(self, left: list[str], threshold: float, progress: Progress | None) -> tuple[list[str], list[float]]:
        """Each in turn, from the last to the first."""
        removed: list[str] = []
        shares: list[float] = []
        now = 1.0
        for number, name in enumerate(reversed(left)):
            if progress is not None:
                progress(number, len(left), "circuit")
            share = float(self.after(removed, [name])[0])
            if abs(share - now) < threshold:
                removed.append(name)
                shares.append(share)
                now = share
        return removed, shares

    def spec(self, removed: Sequence[str], share: float) -> str:
        """A cell that runs the circuit."""
        if not removed:
            return "\n".join(self.asking.lines)
        metric = self.metric
        value = self.ends[0] + share * (self.ends[1] - self.ends[0])
        return "\n".join([*self.asking.lines, "run circuit on clean:", f"    patch {', '.join(removed)} from corrupt",
                          f"expect circuit.{metric} ~= {value!r}"])
