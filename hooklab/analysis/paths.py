"""`hl.path_patch`: how much of a component's effect goes straight to another component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..records import Scores
from .sweep import Progress, sweep

if TYPE_CHECKING:
    from ..model.model import Model


def path_patch(model: Model, clean: Any, corrupt: Any, receiver: str, senders: str | Sequence[str] = "L*H*",
               positions: Any = None, metric: str | Callable[[Tensor], Any] = "logit_diff", *, answer: Any = None,
               wrong: Any = None, mode: str = "noise", mlps: str = "recompute", normalise: bool = True,
               control: str | None = None, seed: int = 0, rows: int | None = None,
               progress: Progress | None = None) -> Scores:
    """The effect of every sender through the paths to one receiver, all heads in between held still.

    A sender takes its value from the other prompt while every other head keeps the value that it has untouched; the value
    that the receiver then has is put into a second, otherwise untouched pass, and the metric is read there.

    Args:
        model: An opened model.
        clean: Text, ids or a list of them.
        corrupt: The same for the corrupted prompt, pair by pair.
        receiver: Where paths end: `"L9H6.q"`, `"L9.v"`, `"L5.mlp_pre"`, `"logits"`; with a position: `"L9H6.q @last"`.
        senders: Where they begin, one at a time.
        positions: Of the senders, as in `sweep`.
        metric: A name, or a function of the last logits.
        answer: The right next token.
        wrong: The wrong one.
        mode: `"noise"`: senders carry corrupted values into the clean run (Wang et al.); `"denoise"`: the other way round.
        mlps: MLPs on the way are computed anew (`"recompute"`: paths through them count), or held (`"freeze"`).
        normalise: On the scale from corrupted (0) to clean (1); otherwise the metric's change.
        control: As in `sweep`.
        seed: Of intervals and controls.
        rows: Most whole rows of a pass.
        progress: Called with (done, total, what).

    Returns:
        Scores over the senders' axes. Where a sender comes after the receiver there is no path, and no effect.

    Raises:
        SweepError: as in `sweep`.
        SpecError: places that do not exist.

    Source: Wang et al. 2022 (arXiv:2211.00593); Goldowsky-Dill et al. 2023 (arXiv:2304.05969).

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> scores = hl.path_patch(model, "When Mary and John went to the store, John gave a drink to",
        ...                        "When Mary and John went to the store, Mary gave a drink to", "logits",
        ...                        answer=" Mary", wrong=" John")
        >>> scores.axes
        ('layer', 'head')
    """
    return sweep(model, clean, corrupt, senders, positions, metric, answer=answer, wrong=wrong, mode=mode, to=receiver,
                 mlps=mlps, normalise=normalise, control=control, seed=seed, rows=rows, progress=progress)
