"""`hl.analysis.patching_metrics`: what patching each place does to the answer, in every number that papers report.

In: prompts that values come from (`base`) and prompts that they are put into (`clean`), pair by pair. Out: `Scores` with an
axis for the metric; `to_pandas()` makes one tidy table of them, with intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..metrics import kl
from ..records import Run, Scores
from ..statistics import interval
from .asking import Asking, SweepError, places, whole
from .sweep import Progress

if TYPE_CHECKING:
    from ..model.model import Model

DIVERGENCES = {"kl_clean|base": ("base", "clean"), "kl_patched|base": ("base", "patched"),
               "kl_patched|clean": ("clean", "patched")}
"""Name -> (reference, this) of KL(reference ‖ this)."""


def patching_metrics(model: Model, base: Any, clean: Any, sites: str | Sequence[str] = "L*.resid_pre",
                     positions: Any = None, *, answer: Any = None, wrong: Any = None, window: int | None = None,
                     align: str | None = None, seed: int = 0, rows: int | None = None,
                     progress: Progress | None = None) -> Scores:
    """Patch every place of the clean run with its value in the base run, and compare the next tokens of the three runs.

    | metric | what it is |
    |---|---|
    | `kl_clean\\|base` | KL(base ‖ clean) of the next token, in nats; the same for every place |
    | `kl_patched\\|base` | KL(base ‖ patched): 0 where patching makes the prompt the other one |
    | `kl_patched\\|clean` | KL(clean ‖ patched): 0 where patching does nothing |
    | `kl_difference` | the second less the first: below 0 where patching brings the base prompt nearer |
    | `similarity` | Σ min(p_patched, p_base) over the vocabulary: 1 for equal distributions, 0 for disjoint ones |
    | `logit_diff_clean`, `logit_diff_patched` | the right answer's logit less the wrong one's, where both are given |
    | `flip` | 1 where their signs differ: the mean over pairs is the flip rate |

    Args:
        model: An opened model.
        base: Text, ids or a list of them: where values come from.
        clean: The same for the prompts that are patched, pair by pair.
        sites: Places, as in `sweep`.
        positions: Where, as in `sweep`.
        answer: The right next token of the clean prompt: one for all pairs or one for each.
        wrong: The one it is compared with.
        window: Patch this many layers around each.
        align: How positions of the two prompts are matched: `"name"`, `"index"`, `"token"`.
        seed: Of intervals.
        rows: Most whole rows of a pass.
        progress: Called with (done, total, what).

    Returns:
        Scores [metric, places …]: means over pairs, each pair in `.examples`, bootstrap intervals in `.low` and `.high`
        where there are several. The last logits of every place and pair are held until they are measured.

    Raises:
        SweepError: one answer without the other.
        SpecError: places, positions or answers that do not exist, or prompts that do not pair up.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> mary, john = (f"When Mary and John went to the store, {one} gave a drink to" for one in ("John", "Mary"))
        >>> found = patching_metrics(model, mary, john, positions="last", answer=" John", wrong=" Mary")
        >>> found.axes, float(found.sel(metric="flip", layer=4)), len(found.to_pandas()) == found.values.size
        (('metric', 'layer'), 1.0, True)
    """
    whole("seed", seed, 0)
    if (answer is None) != (wrong is None):
        raise SweepError("logit differences and flips compare two tokens: give answer= and wrong=, or neither.")
    asking = Asking().prompt("base", base).prompt("clean", clean).answer(answer, wrong)
    asking.metric("top" if answer is None else "logit_diff")
    extra = {"window": window, "align": align}
    patch = f"patch each {places(sites, positions)} from base" + "".join(
        f" {name}={value}" for name, value in extra.items() if value is not None)
    for name, on, lines in (("origin", "base", []), ("untouched", "clean", []), ("patched", "clean", [patch])):
        asking.line(f"run {name} on {on}:", *(f"    {line}" for line in (*lines, "save logits @last")))
    run = model.run(model.plan(asking.text, values=asking.values), rows=rows, progress=progress)
    first, second = (run[f"{name}.logits"][..., 0, :].double() for name in ("origin", "untouched"))  # [batch d_vocab]
    patched = run["patched.logits"][..., 0, :]
    cells = patched.shape[:-2]
    each = [_compared(one.double(), first, second) for one in patched.reshape(-1, *patched.shape[-2:])]
    found = {name: torch.stack([one[name] for one in each], 1) for name in each[0]}  # [batch cell]
    if answer is not None:
        found |= _flips(run, len(second))
    return _gathered(found, run, cells, seed)


def _compared(patched: Tensor, base: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Divergences and similarity of last logits [batch d_vocab], [batch] each."""
    given = {"base": base, "clean": clean, "patched": patched}
    found = {name: kl(given[this][:, None], given[of][:, None]) for name, (of, this) in DIVERGENCES.items()}
    found["kl_difference"] = found["kl_patched|base"] - found["kl_clean|base"]
    found["similarity"] = torch.minimum(patched.softmax(-1), base.softmax(-1)).sum(-1)
    return found


def _flips(run: Run, pairs: int) -> dict[str, Tensor]:
    """Logit differences and whether their signs differ, [batch cell]."""
    swept = run.scores.get("patched.logit_diff")
    if swept is None:  # a sweep of one cell, which the language takes for none
        each = run.examples["patched"]["logit_diff"]
    else:
        each = swept.values if swept.examples is None else swept.examples
    after = torch.as_tensor(np.array(each, dtype=np.float64)).reshape(pairs, -1)
    before = torch.as_tensor(np.array(run.examples["untouched"]["logit_diff"], dtype=np.float64)).reshape(pairs, 1)
    before = before.expand_as(after)
    return {"logit_diff_clean": before, "logit_diff_patched": after, "flip": (after.sign() != before.sign()).double()}


def _gathered(found: dict[str, Tensor], run: Run, cells: Sequence[int], seed: int) -> Scores:
    examples = torch.stack([value.cpu() for value in found.values()], 1).numpy()  # [batch metric cell]
    examples = examples.reshape(*examples.shape[:2], *cells)
    swept = next((scores for name, scores in run.scores.items() if name.startswith("patched.")), None)
    axes = ("metric", *(swept.axes if swept is not None and cells else ()))
    coords = {"metric": tuple(found), **(swept.coords if swept is not None and cells else {})}
    scores = Scores(examples.mean(0), axes, coords, name="patching metrics", spec=run.spec,
                    note="base values patched into the clean prompts; divergences in nats")
    if len(examples) < 2:
        return scores
    low, high = interval(examples, seed=seed)
    return replace(scores, examples=examples, low=low, high=high)
