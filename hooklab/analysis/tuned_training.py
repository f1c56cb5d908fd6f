"""`train_tuned_lens`: fit the translators of a tuned lens to a model (Belrose et al. 2023, arXiv:2303.08112).

    texts ──the model, untouched──▶ streams, last prediction ──Adam on KL(last ‖ lens), layer by layer──▶ `TunedLens`

Each translator sees its own layer only. The model's parameters, their gradients and the global random state stay as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..errors import PromptError
from ..records import Scores
from ..records.drawn import Drawn
from ..runtime.provenance import fingerprint
from .asking import whole
from .lens_values import LensError
from .predictions import ROOM, check, final_norm
from .tuned import TunedLens

if TYPE_CHECKING:
    from ..model.model import Model


@dataclass(frozen=True, repr=False)
class TunedTraining(Drawn):
    """A fitted tuned lens and how it came about.

    Attributes:
        lens: The lens.
        history: (step, layer): KL(the model's last prediction ‖ lens) in nats over each step's batch, before that step.
    """

    LINES = ("history",)

    lens: TunedLens
    history: Scores

    def pictures(self) -> dict[str, Scores]:
        """How far every layer is from the last prediction, step by step."""
        return {"history": self.history}


def train_tuned_lens(model: Model, texts: Any, *, steps: int = 250, lr: float = 1e-3, batch: int = 8, seed: int = 0,
                     weight_decay: float = 0.0, start: TunedLens | None = None,
                     progress: Callable[[int, dict[str, float]], None] | None = None) -> TunedTraining:
    """Fit a tuned lens: minimise KL(the model's last prediction ‖ lens) for every layer by Adam.

    Args:
        model: A model that predicts the next token; it is not changed.
        texts: Texts, lists of ids, or a tensor of ids [example pos]. Padding is left out.
        steps: How many batches; the examples are gone through in a new order each time.
        lr: Adam's step size, which falls to zero along a straight line.
        batch: Examples in a batch.
        seed: Of the order of examples; the same seed gives the same lens, bit for bit, on one machine.
        weight_decay: Pulls translators towards the logit lens, apart from the gradient.
        start: A lens to go on from; the logit lens unless given.
        progress: Called after each step with the number of steps done and the mean KL over layers, as `train_sae` does.

    Raises:
        LensError: settings that make no sense, or a loss that is no longer finite.
        PredictionError: the model predicts no next token.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.tuned_training import train_tuned_lens
        >>> model = hl.load("lab")
        >>> made = train_tuned_lens(model, ["When Mary and John went to the store"], steps=5, lr=3e-3)
        >>> bool(made.history.values[-1].mean() < made.history.values[0].mean())
        True
    """
    check(model, 1)
    for name, number, least in (("steps", steps, 1), ("batch", batch, 1), ("seed", seed, 0)):
        whole(name, number, least, error=LensError)
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in (lr, weight_decay)) or not (
            lr > 0 <= weight_decay):
        raise LensError(f"lr is a number above 0 and weight_decay one from 0, not {lr!r} and {weight_decay!r}.")
    if not (start is None or isinstance(start, TunedLens)) or not (progress is None or callable(progress)):
        raise LensError("start= is a TunedLens, and progress= a function of the step and its numbers.")
    tokens = model.tokens(texts)
    begun = TunedLens.identity(model) if start is None else start
    begun.check(model)
    history = []
    with torch.inference_mode(False), torch.enable_grad():
        params = [t.detach().clone().to(model.device, torch.float32).requires_grad_() for t in (begun.weight, begun.bias)]
        adam = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, foreach=False)
        for step, chosen in zip(range(steps), _order(len(tokens), batch, seed), strict=False):
            streams, last = _streams(model, [list(tokens.ids[i]) for i in chosen])
            found = _step(model, params, streams, last)
            if not np.isfinite(found).all():
                raise LensError(f"the loss is no longer a finite number at step {step}: a lower lr helps.")
            adam.param_groups[0]["lr"] = lr * (1 - step / steps)
            adam.step()
            history.append(found)
            if progress is not None:
                progress(step + 1, {"kl": float(found.mean())})
    weight, bias = (param.detach() for param in params)
    note = "KL(the model's last prediction ‖ lens) of the stream before each block, of each batch before its step"
    scores = Scores(np.array(history), ("step", "layer"), {}, "nats", "kl", note=note)
    return TunedTraining(TunedLens(weight, bias, fingerprint(model)), scores)


def _order(count: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Batches of examples without end, each pass through them in a new order."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=draw).tolist()
        yield from (order[at:at + batch] for at in range(0, count, batch))


def _streams(model: Model, ids: list[list[int]]) -> tuple[list[Tensor], Tensor]:
    """The stream before every block and behind the last one, [row d_model], without padding."""
    layers = model.facts.n_layers
    last = f"L{layers - 1}.resid_post"
    with torch.no_grad():
        acts = model.capture(ids, ["L*.resid_pre", last], at="all")
    if acts.tokens is None:
        raise PromptError("embeddings have no tokens to leave padding out by: give texts or ids.")
    # Copies: what a run in inference mode hands out has no place in a graph.
    return [acts[f"L{layer}.resid_pre"].clone() for layer in range(layers)], acts[last].clone()


def _step(model: Model, params: list[Tensor], streams: list[Tensor], last: Tensor) -> np.ndarray:
    """Gradients of every layer's KL into the parameters; the KL itself, [layer]."""
    weight, bias = params
    grads = [torch.zeros_like(weight), torch.zeros_like(bias)]
    found = np.zeros(len(streams))
    step = max(1, ROOM // model.facts.d_vocab)
    with model.interleaver.lock:
        for at in range(0, len(last), step):
            with torch.no_grad():
                own = model.layout.unembed(final_norm(model, last[at:at + step]))[:, None]
            for layer, stream in enumerate(streams):
                leaf = [param[layer].detach().requires_grad_() for param in (weight, bias)]
                x = stream[at:at + step]
                moved = x + x.float() @ leaf[0] + leaf[1]
                logits = model.layout.unembed(final_norm(model, moved.to(x.dtype)))[:, None]
                loss = metrics.kl(logits, own).sum() / len(last)
                for grad, part in zip(grads, torch.autograd.grad(loss, leaf), strict=True):
                    grad[layer] += part
                found[layer] += float(loss.detach())
    weight.grad, bias.grad = grads
    return found
