"""`hl.causal_trace`: noise on a subject, and what brings the answer back (ROME's causal tracing)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..model.opened import needs_opened
from ..positions import Selector
from ..records import Scores
from .asking import Asking, SweepError, places
from .effects import Scale, effects
from .sweep import Progress

if TYPE_CHECKING:
    from ..model.model import Model


def causal_trace(model: Model, prompt: Any, subject: str | Selector, sites: str | Sequence[str] = "L*.resid_post",
                 positions: Any = "each", metric: str | Callable[[Tensor], Any] = "prob", *, answer: Any = None,
                 wrong: Any = None, noise: float = 3.0, samples: int = 10, window: int | None = None, normalise: bool = True,
                 seed: int = 0, rows: int | None = None, progress: Progress | None = None) -> Scores:
    """The indirect effect of every state: how much of the answer it restores when the subject is drowned in noise.

    The embeddings of the subject's tokens get Gaussian noise of `noise` times the standard deviation of the prompt's
    embeddings. Then one state after another (or a window of layers around it) takes back its clean value, the noise being
    the same, and the metric is read; numbers are means over `samples` draws.

    Args:
        model: An opened model.
        prompt: Text, ids or a list of them.
        subject: What is corrupted: text that occurs in the prompt, or a position (`"@1:4"`).
        sites: States to restore: `"L*.resid_post"`, `"L*.mlp_out"`, `"L*.attn_out"`.
        positions: Where, as in `sweep`.
        metric: A name, or a function of the last logits.
        answer: The right next token.
        wrong: The wrong one, where the metric compares.
        noise: Standard deviation, in units of that of the embeddings; 0 leaves the subject as it is.
        samples: Draws of the noise.
        window: Restore this many layers around each (10 in the paper, for MLP and attention).
        normalise: On the scale from the noised run (0) to the clean one (1). Without it the indirect effect itself: the
            metric with the state restored, less that of the noised run.
        seed: Of the noise.
        rows: Most whole rows of a pass.
        progress: Called with (done, total, what).

    Returns:
        Scores over layer and position; `.raw` of normalised ones has the metric itself.

    Raises:
        SweepError: noise below 0, no draws, or noise that changes nothing, so that there is nothing to normalise by.
        SpecError: a subject that the prompt does not have, an answer of several tokens.

    Source: Meng et al. 2022 (arXiv:2202.05262).

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> scores = hl.causal_trace(model, "The capital of France is", " France", answer=" Paris", samples=3)
        >>> scores.axes
        ('layer', 'pos')
    """
    needs_opened(model)
    if not 0 <= noise < float("inf") or samples < 1:
        raise SweepError(f"noise={noise}, samples={samples}: noise is drawn once or more, with a standard deviation of 0 or "
                         "more; noise=3 is three times that of the embeddings")
    asking = Asking().prompt("clean", prompt).line(f"mark subject = {_position(subject)}")
    asking.line(*([f"seed {seed}"] if seed else []))
    name = asking.answer(answer, wrong).metric(metric)
    extra = f" window={window}" if window else ""
    asking.line("run noised on clean:", f"    noise embed @subject by {float(noise)!r} * sigma samples={int(samples)}",
                "run swept on noised:", f"    patch each {places(sites, positions)} from clean{extra}")
    run = model.run(model.plan(asking.text, values=asking.values), rows=rows, progress=progress)
    words = f"clean states restored, {samples} draws of noise at {noise:g} sigma"
    return effects(run, "swept", name, Scale("noised" if normalise else None, "clean", "noised", words), seed=seed)


def _position(subject: Any) -> str:
    if isinstance(subject, str) and not subject.startswith("@"):
        from ..spec.printer import quote

        return quote(subject)
    return str(subject).removeprefix("@")
