"""`hl.sweep`: what happens to a metric when one place after another takes its value from another prompt.

In: two prompts (or two lists of them, pair by pair), places, positions, a metric. Out: `Scores`, normalised so that 0 is
the corrupted prompt and 1 the clean one. It writes a spec and runs it, so the spec of the scores is text that does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..model.opened import needs_opened
from ..records import Scores
from .asking import Asking, SweepError, check_word, places
from .controls import CONTROLS, controlled
from .effects import Scale, effects

if TYPE_CHECKING:
    from ..model.model import Model

Progress = Callable[[int, int, str], None]
MODES = {"denoise": Scale("corrupt", "clean", "corrupt", "clean values patched in"),
         "noise": Scale("corrupt", "clean", "clean", "corrupted values patched in")}
ABLATIONS = {"zero": "ablate {} with zero", "mean": "ablate {} with mean over {{over}}",
             "resample": "ablate {} with resample over {{over}}"}


def sweep(model: Model, clean: Any, corrupt: Any = None, sites: str | Sequence[str] = "L*.resid_pre",
          positions: Any = None, metric: str | Callable[[Tensor], Any] = "logit_diff", *, answer: Any = None,
          wrong: Any = None, mode: str = "denoise", method: str = "patch", over: Any = None, window: int | None = None,
          align: str | None = None, to: str | None = None, mlps: str | None = None,
          normalise: bool = True, control: str | None = None, seed: int = 0,
          rows: int | None = None, progress: Progress | None = None) -> Scores:
    """The effect of patching (or ablating) every place of a list, one at a time.

    Args:
        model: An opened model.
        clean: Text, ids or a list of them; the prompt that an ablation runs on.
        corrupt: The same for the corrupted prompt, pair by pair; None for ablations.
        sites: Places, as in the language: `"L*.resid_pre"`, `"L*H*"`, `"L*H*.q"`, `["L*.attn_out", "L*.mlp_out"]`.
        positions: None for all positions together, `"each"` for one at a time, `"each[subject, last]"`, or a position
            (`"last"`, `3`, `'"Mary"'`).
        metric: A name of the language's metrics, or a function of the logits at the answer's position
            [batch d_vocab] that gives a number for each example.
        answer: The right next token: text or ids, one for all pairs or one for each.
        wrong: The wrong one that it is compared with.
        mode: `"denoise"` patches clean values into the corrupted run, `"noise"` corrupted ones into the clean run.
        method: `"patch"`, or an ablation: `"zero"`, `"mean"`, `"resample"`.
        over: Prompts that mean and resample ablation take values from.
        window: Act on this many layers around each.
        align: How positions of the two prompts are matched: `"name"`, `"index"`, `"token"`.
        to: A receiver (`"L9H6.q"`, `"logits"`): only the path from each place to it is patched; see `path_patch`.
        mlps: On the way to a receiver, MLPs are computed anew (`"recompute"`) or held (`"freeze"`).
        normalise: Give (metric − corrupted) / (clean − corrupted). Without it, and for ablations, the metric's change.
        control: `"weights"` repeats the sweep on a model with shuffled weights, `"labels"` with the answers dealt out
            to other pairs; the result is in `.control`, in units of the same difference between clean and corrupted.
        seed: Of resampling, intervals and controls.
        rows: Most whole rows of a pass; by default what fits into a gigabyte.
        progress: Called with (done, total, what).

    Returns:
        Scores over the places' axes. With several pairs: the mean, every pair in `.examples`, a 95 % bootstrap interval in
        `.low` and `.high`, sign-flip p-values in `.p`. `.ends` are the metric's values at 0 and 1; `.raw` undoes the scale.

    Raises:
        SweepError: an unknown mode, method or control; a control that cannot be done; a metric that is the same on both
            prompts, so that there is nothing to normalise by.
        SpecError: places, positions or answers that do not exist.

    Activation patching goes back to Vig et al. 2020 (arXiv:2004.12265) and Meng et al. 2022 (arXiv:2202.05262).

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> scores = hl.sweep(model, "When Mary and John went to the store, John gave a drink to",
        ...                   "When Mary and John went to the store, Mary gave a drink to",
        ...                   "L*.resid_pre", "each", answer=" Mary", wrong=" John")
        >>> scores.axes
        ('layer', 'pos')
    """
    needs_opened(model)
    check_word("mode", mode, tuple(MODES))
    check_word("method", method, ("patch", *ABLATIONS))
    check_word("control", control, (None, *CONTROLS))
    asking = Asking()
    where = places(sites, positions)
    if method == "patch":
        if corrupt is None:
            raise SweepError("patching takes a clean and a corrupted prompt; an ablation takes one: method=\"zero\"")
        asking.prompt("clean", clean).prompt("corrupt", corrupt)
        on, source = ("corrupt", "clean") if mode == "denoise" else ("clean", "corrupt")
        line = f"patch each {where}{'' if to is None else f' -> {to}'} from {source}"
        scale = MODES[mode] if normalise else replace(MODES[mode], zero=None)
    else:
        on, line, scale = _ablation(asking, method, where, clean, corrupt, over)
    extra = {"window": window, "align": align, "mlps": mlps}
    line += "".join(f" {name}={value}" for name, value in extra.items() if value is not None)
    name = asking.line(*([f"seed {seed}"] if seed else [])).answer(answer, wrong).metric(metric)
    asking.line(f"run swept on {on}:", f"    {line}")

    def measured(values: dict[str, Any], whole: float | None = None, *, second: bool = False) -> Scores:
        told = _half(progress, second=second) if progress is not None and control else progress
        run = model.run(model.plan(asking.text, values=values), rows=rows, progress=told)
        return effects(run, "swept", name, scale, seed=seed, whole=whole)

    found = measured(asking.values)
    if control is None:
        return found
    with controlled(model, control, asking.values, seed) as values:
        span = None if found.ends is None else found.ends[1] - found.ends[0]
        return replace(found, control=measured(values, span, second=True))


def _half(progress: Progress, *, second: bool) -> Progress:
    """What tells of one of two runs of the same work as of half of all."""
    return lambda done, total, what: progress(done + total * second, 2 * total, what)


def _ablation(asking: Asking, method: str, where: str, prompt: Any, corrupt: Any, over: Any) -> tuple[str, str, Scale]:
    """The run, the line and the scale of an ablation sweep; its prompt and corpus are declared."""
    if corrupt is not None:
        raise SweepError(f"{method} ablation takes one prompt, or a list of prompts: leave corrupt= out")
    asking.prompt("clean", prompt)
    if method != "zero":
        if over is None:
            raise SweepError(f"{method} ablation takes its values from prompts: over=[…]")
        asking.values["over"] = over
    return "clean", ABLATIONS[method].format("each " + where), Scale(None, "clean", "clean", f"{method} ablation")
