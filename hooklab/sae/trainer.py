"""Train an autoencoder on batches of activations: a plain loop of Adam that can be stopped and continued at any batch.

All that it goes by is in `State`: parameters, the optimiser's moments, a generator, counters, the history. A checkpoint is
that state in a safetensors file which appears whole or not at all; a run that is continued from one gives, bit for bit,
what it would have given in one go on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..records.drawn import Drawn
from ..records.scores import Scores
from .activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .autoencoder import SAE
from .losses import Loss, Params, decoder, loss
from .norms import NORMS
from .recipe import Recipe, recipe
from .starting import common_scale, parameters
from .stream import Batches, Pair, Stream

METRICS = ("loss", "error", "penalty", "auxiliary", "l0", "explained_variance", "dead")
"""What is known of every step: the loss and its three parts, features per example, the share of the variance that is
reconstructed, the share of features that count as dead."""
_START = 4096
_RATE = 0.01
_BETAS = (0.9, 0.999)


@dataclass(frozen=True, repr=False)
class Training(Drawn):
    """A trained autoencoder and how it came about.

    Attributes:
        sae: The autoencoder; its `statistics` say how many examples ago each feature was last active.
        history: (step, metric): `METRICS` of every step.
    """

    sae: SAE
    history: Scores

    def pictures(self) -> dict[str, Scores | str]:
        """What was trained, and every metric over the steps."""
        return {"sae": repr(self.sae), **{name: self.history.sel(metric=name) for name in self.history.coords["metric"]}}


@dataclass
class State:
    """Everything that the next step depends on.

    Attributes:
        recipe: Settings.
        params: Name -> tensor with gradient.
        moments: Name -> the two moments of Adam.
        draw: The generator.
        silent: [feature], examples since each was last active.
        scale: What inputs are multiplied by.
        target_scale: What targets are multiplied by; that of the input unless it is a transcoder.
        threshold: A BatchTopK's, and nan before the first step.
        transcoder: Whether input and target differ.
        history: [step metric].
    """

    recipe: Recipe
    params: Params
    moments: dict[str, tuple[Tensor, Tensor]]
    draw: torch.Generator
    silent: Tensor
    scale: float = 1.0
    target_scale: float = 1.0
    threshold: float = float("nan")
    transcoder: bool = False
    history: list[list[float]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.history)


def train_sae(batches: Batches, n_features: int, *, steps: int, checkpoint: str | Path | None = None,
              checkpoint_every: int = 1000, resume: str | Path | None = None,
              progress: Callable[[int, dict[str, float]], None] | None = None, **settings: Any) -> Training:
    """Train a sparse autoencoder; or a transcoder, on pairs (input, target).

        made = train_sae(batches, 512, variant="topk", k=8, steps=10_000, checkpoint="run.safetensors")
        save_sae(made.sae, "enc.safetensors")

    Args:
        batches: An iterable of tensors [… d_in], or of pairs of them; what can be gone through again is, as often as it
            takes. Or a function from the number of a batch to an iterable that starts there, so that resuming skips nothing.
        n_features: How many features.
        steps: How many batches to train on.
        checkpoint: A `.safetensors` file to keep the state in; it must not exist.
        checkpoint_every: Steps between two checkpoints; there is one at the end too.
        resume: A checkpoint to continue from and, unless `checkpoint` says otherwise, to go on writing to. Settings and
            batches must be those it was begun with.
        progress: Called after each step with the number of steps done and that step's metrics.
        settings: Those of `Recipe`: `variant`, `k`, `l1`, `l0`, `lr`, `seed`, `tied`, `norm`, `dead` …

    Raises:
        ModelError: settings that do not fit, batches that end or hold no finite numbers, a checkpoint that is taken, cannot
            be read, or was begun with other settings.
    """
    from .checkpoint import Keeper, read_state

    asked = recipe(n_features, steps, settings)
    keeper = Keeper(checkpoint, checkpoint_every, resume)
    with torch.inference_mode(False), torch.enable_grad():
        state = None if resume is None else read_state(Path(resume), asked)
        stream = Stream(batches, state.step if state else 0)
        if state is None:
            state = begin(asked, stream)
        while state.step < steps:
            found = advance(state, stream.next())
            state.history.append(found)
            keeper.keep(state)
            if progress is not None:
                progress(state.step, dict(zip(METRICS, found, strict=True)))
    values = np.array(state.history, dtype=np.float64).reshape(-1, len(METRICS))
    return Training(finished(state), Scores(values, ("step", "metric"), {"metric": METRICS}, name="training"))


def begin(asked: Recipe, stream: Stream) -> State:
    """The state before the first step, from a look at the first examples."""
    x = stream.ahead(_START)
    y = stream.targets()
    transcoder = stream.paired
    if transcoder and (asked.tied or (asked.pre_bias and x.shape[-1] != y.shape[-1])):
        raise ModelError("a transcoder reads one site and writes another: give pre_bias=False, and not tied=True")
    x = NORMS[asked.norm](x).x
    scale = asked.scale or (common_scale(x) if asked.norm == "none" else 1.0)
    target_scale = common_scale(y) if transcoder else scale
    y = y * target_scale if transcoder else x * scale
    draw = torch.Generator().manual_seed(asked.seed)
    params = parameters(asked, x.shape[-1], y, draw)
    moments = {name: (torch.zeros_like(t), torch.zeros_like(t)) for name, t in params.items()}
    silent = torch.zeros(asked.n_features, dtype=torch.long, device=x.device)
    return State(asked, params, moments, draw, silent, scale, target_scale, transcoder=transcoder)


def advance(state: State, batch: Pair) -> list[float]:
    """One step on a batch; returns its metrics."""
    asked, params = state.recipe, state.params
    x, y = _prepared(state, batch)
    dead = state.silent >= asked.dead_after
    found = loss(params, asked, x, y, dead, asked.rise(state.step))
    if not bool(found.whole.isfinite()):
        raise ModelError(f"the loss is no longer a finite number at step {state.step}: a lower lr helps")
    grads = dict(zip(params, torch.autograd.grad(found.whole, list(params.values())), strict=True))
    with torch.no_grad():
        if asked.unit_norm:
            _tangent(params, grads)
        _adam(state, grads)
        if asked.unit_norm:
            _unit(params)
        active = found.features != 0
        state.silent = torch.where(active.any(0), _since(active), state.silent + len(x))
        if asked.variant == "batchtopk" and bool(active.any()):
            least = float(found.features[active].min())
            state.threshold = least if state.step == 0 else (1 - _RATE) * state.threshold + _RATE * least
        done = state.step + 1
        if asked.dead == "resample" and done % asked.resample_every == 0 and done <= 0.75 * asked.steps:
            _resample(state, found, x, state.silent >= asked.dead_after)
        return _metrics(found, y, active, dead)


def _prepared(state: State, batch: Pair) -> Pair:
    x, y = batch
    sizes = (state.params["w_enc"].shape[0], len(state.params["b_dec"]))
    if (x.shape[-1], y.shape[-1]) != sizes:
        raise ModelError(f"batches were of {sizes[0]} to {sizes[1]} so far, and now are of {x.shape[-1]} to {y.shape[-1]}")
    device = state.silent.device
    made = NORMS[state.recipe.norm](x.to(device)).x * state.scale
    return made, y.to(device) * state.target_scale if state.transcoder else made


def _since(active: Tensor) -> Tensor:
    """[feature], examples at the end of a batch [batch feature] since each was active."""
    place = torch.arange(1, len(active) + 1, device=active.device)[:, None]
    return len(active) - (active * place).amax(0)


def _metrics(found: Loss, y: Tensor, active: Tensor, dead: Tensor) -> list[float]:
    spread = (y - y.mean(0)).square().sum()
    explained = 1 - found.residual.square().sum() / spread
    numbers = [found.whole, found.error, found.penalty, found.auxiliary, active.sum(-1).double().mean(), explained,
               dead.double().mean()]
    return torch.stack([n.detach().double() for n in numbers]).tolist()


# The optimiser ---------------------------------------------------------------------------------------------------------


def _adam(state: State, grads: Params) -> None:
    """A step of Adam (Kingma & Ba 2015)."""
    t, (first, second) = state.step + 1, _BETAS
    rate = state.recipe.rate(state.step)
    for name, param in state.params.items():
        mean, square = state.moments[name]
        mean.mul_(first).add_(grads[name], alpha=1 - first)
        square.mul_(second).addcmul_(grads[name], grads[name], value=1 - second)
        param.addcdiv_(mean, (square / (1 - second ** t)).sqrt_().add_(1e-8), value=-rate / (1 - first ** t))


def _rows(params: Params) -> tuple[str, int]:
    """The matrix that is the decoder, and its axis of d_out."""
    return ("w_dec", 1) if "w_dec" in params else ("w_enc", 0)


def _tangent(params: Params, grads: Params) -> None:
    """Take from the decoder's gradient what would only make its rows longer or shorter."""
    name, axis = _rows(params)
    grads[name] = grads[name] - params[name] * (grads[name] * params[name]).sum(axis, keepdim=True)


def _unit(params: Params) -> None:
    name, axis = _rows(params)
    params[name].div_(params[name].norm(dim=axis, keepdim=True).clamp(min=1e-8))


def _resample(state: State, found: Loss, x: Tensor, dead: Tensor) -> None:
    """Start dead features anew, each at the residual of an example, drawn by its squared error. (Bricken et al. 2023)

    A transcoder's read the input of that example, as far as it differs from the mean of the batch.
    """
    index = dead.nonzero()[:, 0].cpu()
    if not len(index):
        return
    params = state.params
    chance = found.residual.square().sum(-1).square().double().cpu()
    if not float(chance.sum()) > 0:
        return
    rows = torch.multinomial(chance, len(index), replacement=True, generator=state.draw)
    rows, index = rows.to(x.device), index.to(x.device)
    ways = torch.nn.functional.normalize(found.residual[rows].detach(), dim=1)
    into = torch.nn.functional.normalize((x - x.mean(0))[rows], dim=1) if state.transcoder else ways
    alive = params["w_enc"][:, ~dead].norm(dim=0)
    share = 1.0 if "topk" in state.recipe.variant else 0.2  # a small one would never be among the k largest
    length = 1.0 if state.recipe.tied or not len(alive) else share * float(alive.mean())
    params["w_enc"][:, index] = into.T * length
    if "w_dec" in params:
        params["w_dec"][index] = ways
    start = {"b_enc": 0.0, "r_mag": 0.0, "b_mag": 0.0, "log_threshold": float(np.log(state.recipe.bandwidth))}
    for name, value in start.items():
        if name in params:
            params[name][index] = value
    for name, moments in state.moments.items():
        for moment in moments if name != "b_dec" else ():
            moment.index_fill_(1 if name == "w_enc" else 0, index, 0)
    state.silent[index] = 0


# The result ------------------------------------------------------------------------------------------------------------


def _activation(state: State) -> Activation:
    asked, params = state.recipe, {name: t.detach().clone() for name, t in state.params.items()}
    made: dict[str, Callable[[], Activation]] = {
        "relu": ReLU, "topk": lambda: TopK(int(asked.k or 0)),
        "batchtopk": lambda: BatchTopK(float(asked.k or 0), state.threshold),
        "jumprelu": lambda: JumpReLU(params["log_threshold"].exp()),
        "gated": lambda: Gated(params["r_mag"], params["b_mag"])}
    return made[asked.variant]()


def finished(state: State) -> SAE:
    """The autoencoder of a state, on its own tensors."""
    asked, params = state.recipe, {name: t.detach().clone() for name, t in state.params.items()}
    w_dec, b_dec = None if asked.tied else decoder(params), params["b_dec"]
    if state.transcoder and w_dec is not None:
        w_dec, b_dec = w_dec / state.target_scale, b_dec / state.target_scale
    return SAE(params["w_enc"], params["b_enc"], w_dec, b_dec, _activation(state), asked.pre_bias, asked.norm, state.scale,
               not state.transcoder, {"last_active": state.silent.clone()})
