"""`hl.analysis.edges`: how much every connection between two components carries, from two passes and one gradient.

A sender writes to the stream (`embed`, the stream that enters the first block; heads; MLPs), a receiver reads it (queries,
keys and values of heads; MLPs; the logits). The score of an edge is what the sender's write changes from the clean to the
corrupted prompt, times the metric's gradient at what the receiver reads, summed over positions: to first order, what the
metric changes by when that edge alone carries the corrupted value.

The gradient is taken at the stream that the receiver's norm reads: the norm before the receiver is differentiated through,
at the values of the pass; its divisor is a constant with `hold="norms"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.plan import Plan
from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..errors import did_you_mean
from ..model import ports
from ..records import Scores
from ..runtime.gradients import gradients
from ..runtime.passes import forward
from ..runtime.readings import captured
from ..runtime.store import Block, Store
from .asking import Asking
from .attribute import AttributionError, held_names
from .inlets import Inlet, inlets, read_gradients, wanted

if TYPE_CHECKING:
    from ..model.model import Model

METHODS = ("eap", "eap-ig")
ENTRY = Spot("resid_pre", 0)
TOGETHER = 64
"""Receivers whose gradients are multiplied at once."""


@dataclass(frozen=True)
class Sender:
    """What writes to the stream.

    Attributes:
        label: Its address, as an axis label.
        spot: The site of its write.
        after: Where it stands: (layer, 0) for attention, (layer, 1) for an MLP.
    """

    label: str
    spot: Spot
    after: tuple[int, int]


def edges(model: Model, clean: Any, corrupt: Any, metric: str | Callable[[Tensor], Any] | None = None, *,
          method: str = "eap", answer: Any = None, wrong: Any = None, steps: int = 5, hold: str | Sequence[str] = (),
          rows: int = 16) -> Scores:
    """Edge attribution patching: an estimate of what every edge of the model carries for a metric.

    Methods: `"eap"` takes the gradient on the clean prompt (Syed et al. 2023, arXiv:2310.10348); `"eap-ig"` averages it
    over `steps` points of the straight line between the two prompts' embeddings (Hanna et al. 2024, arXiv:2403.17806), at
    the midpoints of equal steps.

    Args:
        model: An opened model.
        clean: Text, ids or a list of them.
        corrupt: The same, pair by pair, token for token of one length.
        metric: As in `attribute`.
        method: See above.
        answer: The right next token of the clean prompts.
        wrong: The wrong one that it is compared with.
        steps: Of `"eap-ig"`.
        hold: `"norms"`, `"patterns"` or both, as in `attribute`.
        rows: Most pairs of a pass.

    Returns:
        Scores with axes `sender` and `receiver`, labelled by address (`L0H3`, `L0.mlp`; `L2H1.q`, `L3.mlp`, `logits`; keys
        and values by kv head), the mean over pairs, with every pair in `.examples`. An edge that the model does not have
        is NaN. Where heads write through a norm (gemma2, olmo2), a layer's attention is one sender, `L0.attn`.

    Raises:
        AttributionError: an unknown method; prompts of different lengths; a model whose stream passes through norms, so
            that writes do not add up.
        SpecError: answers or metrics that do not exist.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.edge_scores import edges
        >>> model = hl.load("lab")
        >>> scores = edges(model, "When Mary and John went to the store, John gave a drink to",
        ...                "When Mary and John went to the store, Mary gave a drink to", answer=" Mary", wrong=" John")
        >>> scores.axes, scores.coords["receiver"][-1]
        (('sender', 'receiver'), 'logits')
    """
    _check(model, method, steps, rows)
    ends, starts, held = inlets(model), senders(model), held_names(hold)
    found = []
    for part in _parts(clean, corrupt, answer, wrong, rows):
        plan = _plan(model, metric, *part)
        found.append(_scores(model, plan, starts, ends, method, steps, held))
    each = np.concatenate(found)
    named = plan.run("clean").metrics[0]
    said = f", {' and '.join(held)} held" if held else ""
    return Scores(each.mean(0), ("sender", "receiver"),
                  {"sender": tuple(s.label for s in starts), "receiver": tuple(end.label for end in ends)}, named.unit,
                  named.name, examples=each if len(each) > 1 else None,
                  note=f"{method} attribution of {named.name}{said}: what each edge changes it by, from the clean to the "
                       "corrupted prompt")


def _check(model: Model, method: str, steps: int, rows: int) -> None:
    if method not in METHODS:
        raise AttributionError(f"there is no method {method!r}.{did_you_mean(method, METHODS)} "
                               f"There are {', '.join(METHODS)}.")
    if steps < 1:
        raise AttributionError(f"steps={steps}: at least one point of the line is needed.")
    if rows < 1:
        raise AttributionError(f"rows={rows}: a pass has at least one pair.")
    family = model.layout.family
    if family.residual == "post" or (family.residual == "sequential" and model.sites.missing("resid_mid")):
        raise AttributionError(f"{family.name} puts the stream through a norm on its way, so what is written does not add "
                               "up to what is read, and edges are not defined.")


def _parts(clean: Any, corrupt: Any, answer: Any, wrong: Any, rows: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Prompts and answers, some pairs at a time."""
    given = [_listed(value) for value in (clean, corrupt, answer, wrong)]
    size = len(given[0]) if isinstance(given[0], list) and given[0] and not isinstance(given[0][0], int) else 1
    for start in range(0, size, rows) if size > 1 else (0,):
        cut = [value[start:start + rows] if isinstance(value, list) and len(value) == size > 1 else value for value in given]
        yield cut[0], cut[1], cut[2], cut[3]


def _listed(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _plan(model: Model, metric: Any, clean: Any, corrupt: Any, answer: Any, wrong: Any) -> Plan:
    """Both prompts and the metric, compiled.

    Raises:
        AttributionError: the prompts are not of one length, pair by pair.
    """
    asking = Asking(AttributionError).prompt("clean", clean).prompt("corrupt", corrupt).answer(answer, wrong)
    asking.metric(asking.suggested() if metric is None else metric)
    plan = model.plan(asking.text, values=asking.values)
    lengths = [plan.prompts[name].tokens.lengths for name in ("clean", "corrupt")]
    if lengths[0] != lengths[1]:
        raise AttributionError(f"the prompts have {list(lengths[0])} and {list(lengths[1])} tokens: edges are compared "
                               "position by position, so give pairs of one length.")
    return plan


# Scoring -----------------------------------------------------------------------------------------------------------


def senders(model: Model) -> list[Sender]:
    """What writes to the stream, in the order of the forward pass."""
    facts, whole = model.facts, model.layout.family.post_attn is not None
    found = [Sender("embed", ENTRY, (-1, 0))]
    for layer in range(facts.n_layers):
        if whole:
            found.append(Sender(f"L{layer}.attn", Spot("attn_out", layer), (layer, 0)))
        else:
            found += [Sender(f"L{layer}H{head}", Spot("result", layer, (head,)), (layer, 0))
                      for head in range(facts.n_heads)]
        found.append(Sender(f"L{layer}.mlp", Spot("mlp_out", layer), (layer, 1)))
    return found


def _scores(model: Model, plan: Plan, starts: list[Sender], ends: list[Inlet], method: str, steps: int,
            hold: tuple[str, ...]) -> np.ndarray:
    """Every edge for every pair, [batch sender receiver]."""
    store = Store(plan, saes={})
    spots = tuple(dict.fromkeys(Spot(s.spot.site, s.spot.layer) for s in starts))
    blocks = {name: _block(plan, name) for name in ("clean", "corrupt")}
    forward(model, store, [Block(plan.run("clean"), 0, 0, blocks["clean"].size)])  # its logits, for metrics that compare
    sites = {name: captured(model, store, block, spots) for name, block in blocks.items()}
    changes = torch.stack([_write(sites["corrupt"], s) - _write(sites["clean"], s) for s in starts])
    gradient = _gradient(model, store, blocks["clean"], method, steps, hold, sites)
    there = torch.tensor([[start.after < end.before for end in ends] for start in starts])
    found = torch.cat([_products(changes, [gradient[end] for end in ends[i:i + TOGETHER]])
                       for i in range(0, len(ends), TOGETHER)], -1)
    return np.asarray(found.cpu().masked_fill(~there, torch.nan).numpy())


def _products(changes: Tensor, grads: list[Tensor]) -> Tensor:
    """Every sender's change times every receiver's gradient, each [batch pos d_model]: [batch sender receiver]."""
    one, other = changes.to(grads[0]).transpose(0, 1).flatten(2), torch.stack(grads, 1).flatten(2)
    return torch.einsum("bsx,brx->bsr", ports.wide(one), ports.wide(other)).double()


def _block(plan: Plan, name: str) -> Block:
    run = plan.run(name)
    return Block(run, 0, 0, int(plan.prompts[run.prompt].size))


def _write(sites: dict[Spot, Tensor], sender: Sender) -> Tensor:
    value = sites[Spot(sender.spot.site, sender.spot.layer)]
    return value if sender.spot.heads is None else value[:, :, sender.spot.heads[0]]


def _gradient(model: Model, store: Store, block: Block, method: str, steps: int, hold: tuple[str, ...],
              sites: dict[str, dict[Spot, Tensor]]) -> dict[Inlet, Tensor]:
    """The metric's gradient at what each receiver reads, [batch pos d_model]; on the line, its mean."""
    spots = wanted(model)
    metric = block.run.metrics[0]
    reading = Reading("attribute", "edges", tuple(spots), (), value=metric,
                      options=(("metric", metric.name), ("hold", hold)))
    points: list[Tensor | None] = [None]
    if method == "eap-ig":
        start, end = sites["corrupt"][ENTRY], sites["clean"][ENTRY]
        points = [start + (k + 0.5) / steps * (end - start) for k in range(steps)]
    total: dict[Inlet, Tensor] = {}
    for point in points:
        replaced = None if point is None else {(ENTRY.site, ENTRY.layer): point}
        with torch.inference_mode(False), torch.enable_grad():
            values, grads = gradients(model, store, block, reading, spots, replaced)
        there = read_gradients(model, dict(zip(spots, values, strict=True)), dict(zip(spots, grads, strict=True)),
                               held="norms" in hold)
        total = {end: total.get(end, 0) + grad / len(points) for end, grad in there.items()}
    return total

