"""One pass with gradients: of a metric, or of an activation, with respect to whole sites; norms and patterns held or not.

Holding, exactly. `norms`: the divisor of every norm that the stream or a write to it passes through (before attention,
before the MLP, after either where a family has such norms, and the final one) is a constant; the mean that a LayerNorm
takes away, the gain and the bias are not. `patterns`: the attention weights after the softmax are constants, and with
them everything that only they are made of: queries, keys, the norms of queries and keys. Values keep their bits either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..compiler.aims import ATTENTION, Aim
from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..model import ports
from ..sae.opening import encoded
from .evaluate import columns, part
from .measure import measure
from .passes import tasks_of
from .store import Block, Store, trouble
from .trace import run as run_model

if TYPE_CHECKING:
    from ..model.layout import Layout
    from ..model.model import Model

Place = tuple[str, int | None]
SCALES = ("ln1_scale", "ln2_scale", "ln_final_scale")


def gradients(model: Model, store: Store, block: Block, reading: Reading, wanted: list[Spot],
              replaced: Mapping[Place, Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Values and gradients of whole sites in one pass with the cell's edits; `replaced` puts values in the way first.

    Raises:
        SpecError: the metric, or the target, has no gradient.
    """
    for spot in wanted:
        model.sites.check(spot.site)
    edits = tasks_of(store, [block])
    keys = list(dict.fromkeys((spot.site, spot.layer) for spot in wanted))
    found: Aim | None = reading.option("aim")
    end: Place = ("logits", None) if found is None else (found.spot.site, found.spot.layer)
    held = _held_places(model, reading)
    roots: dict[Place, Tensor] = {}
    ends: list[Tensor] = []

    def serve(place: Place) -> Callable[[Tensor, int], Tensor]:
        """What happens at a site: edits first, then what stands in its place, then it is noted."""

        def call(value: Tensor, step: int) -> Tensor:
            for task in edits.get(place, ()):
                task(value)
            if replaced and place in replaced:
                value = replaced[place].detach().clone().requires_grad_()
            if place in held:
                value = value.detach().requires_grad_(place in keys)
            if place in keys:
                roots[place] = value
            if place == end:
                ends.append(value)
            return value

        return call

    callbacks = {model.layout.port(*place).location: [serve(place)] for place in dict.fromkeys((*edits, *keys, *held, end))}
    prompts = [store.plan.prompts[block.run.prompt]] * block.run.samples
    with ExitStack() as stack:
        if "norms" in reading.option("hold", ()):
            stack.enter_context(_held_norms(model.layout))
        run_model(model, "__call__", callbacks, *prompts, grad=True)
    values = [roots[key] for key in keys]
    grads = torch.autograd.grad(_total(store, block, reading, ends[0]), values, allow_unused=True)
    return [v.detach() for v in values], [torch.zeros_like(v) if g is None else g
                                          for v, g in zip(values, grads, strict=True)]


def _total(store: Store, block: Block, reading: Reading, end: Tensor) -> Tensor:
    """The sum over rows of the metric, or of the target, from the whole site that it is read at."""
    aim: Aim | None = reading.option("aim")
    total = (measure(store, block, reading.value, end) if aim is None else reached(store, block, aim, end)).sum()
    if not total.requires_grad:
        raise trouble(f"{reading.option('metric')} has no gradient", reading.span,
                      "take logit_diff or logprob" if aim is None else "", store.plan.text)
    return total


# Targets -----------------------------------------------------------------------------------------------------------


def reached(store: Store, block: Block, aim: Aim, value: Tensor) -> Tensor:
    """The target's number for each row, from the whole site: [row].

    Raises:
        SpecError: the user's direction does not fit, or the function fails or gives no number for each row.
    """
    tokens = store.plan.prompts[block.run.prompt].tokens
    taken = value.transpose(1, 2) if aim.spot.site in ATTENTION else value
    taken = part(Spot(aim.spot.site, aim.spot.layer, aim.spot.heads, aim.spot.units), taken)
    if aim.at is not None:
        taken = _picked(taken, [columns(tokens, aim.at, row % len(tokens)) for row in range(len(taken))])
    if aim.keys is not None:
        keys = torch.tensor([columns(tokens, aim.keys, row % len(tokens)) for row in range(len(taken))], device=taken.device)
        return taken[:, 0, 0].gather(1, keys)[:, 0]
    if aim.spot.sae is not None:
        assert aim.spot.features is not None
        return encoded(store.saes[aim.spot.sae], taken)[..., aim.spot.features[0]].sum(1)
    if aim.given is None:
        return taken.flatten(1).sum(1)
    return _as_asked(store, aim, taken)


def _picked(taken: Tensor, rows: list[list[int]]) -> Tensor:
    if len({len(row) for row in rows}) > 1:
        raise trouble("the target is at different numbers of tokens in the examples", hint="name one token, such as @last")
    return taken[torch.arange(len(taken))[:, None], torch.tensor(rows)]


def _as_asked(store: Store, aim: Aim, taken: Tensor) -> Tensor:
    """What a direction, a function or a dictionary in Python makes of the activation."""
    _, thing, *feature = store.plan.values[str(aim.given)]
    if feature:
        return encoded(thing, taken)[..., int(feature[0])].flatten(1).sum(1)
    if not callable(thing):
        direction = torch.as_tensor(thing).to(taken)
        if direction.shape != taken.shape[-1:]:
            raise trouble(f"the direction of {aim.name} has shape {list(direction.shape)}, and the site {taken.shape[-1]} "
                          "dimensions")
        return (taken @ direction).flatten(1).sum(1)
    try:
        found = torch.as_tensor(thing(taken)).reshape(-1)
    except Exception as error:
        raise trouble(f"the function of {aim.name} failed: {type(error).__name__}: {error}") from error
    if len(found) not in (1, len(taken)):
        raise trouble(f"the function of {aim.name} gave {len(found)} numbers for {len(taken)} examples")
    return found


# Holding -----------------------------------------------------------------------------------------------------------


def _held_places(model: Model, reading: Reading) -> set[Place]:
    """The sites that are constants for gradients."""
    hold = reading.option("hold", ())
    names = {*(SCALES if "norms" in hold else ()), *(("pattern",) if "patterns" in hold else ())}
    return {(port.site, port.layer) for port in model.layout.all_ports if port.site in names}


def other_norms(layout: Layout) -> list[nn.Module]:
    """Norms of the stream whose divisor is no site: after attention, after the MLP, after the embeddings.

    Norms inside attention are those of queries and keys, which belong to the patterns.
    """
    known = [layout.role(layer, name) for layer in range(len(layout.blocks)) for name in ("ln1", "ln2")]
    inside = [norm for layer in range(len(layout.blocks)) for norm in layout.role(layer, "attn").modules()]
    if layout.family.ln_final:
        known.append(layout.module(layout.base, layout.family.ln_final))
    skipped = {id(module) for module in (*known, *inside)}
    holder = layout.family.embed.rpartition(".")[0]
    beside = (layout.module(layout.base, holder) if holder else layout.base).children()
    everywhere = [*beside, *(module for block in layout.blocks for module in block.modules())]
    return [module for module in everywhere if type(module).__name__.endswith("Norm") and id(module) not in skipped]


@contextmanager
def _held_norms(layout: Layout) -> Iterator[None]:
    """Norms without a site of their own, their divisors held; afterwards they are as before."""
    norms = other_norms(layout)
    before = [norm.__dict__.get("forward") for norm in norms]
    try:
        for norm in norms:
            norm.forward = _holding(norm, norm.forward, layout.family.norm)
        yield
    finally:
        for norm, forward in zip(norms, before, strict=True):
            norm.__dict__.pop("forward", None)
            if forward is not None:
                norm.forward = forward


def _holding(norm: nn.Module, forward: Callable[..., Tensor], kind: str) -> Callable[..., Tensor]:
    """A norm that gives what it gave, with the gradient of its divisor left out."""

    def held(x: Tensor) -> Tensor:
        out = forward(x)
        wide = ports.wide(x)
        centred = wide - wide.mean(-1, keepdim=True) if kind == "layer" else wide
        linear = centred / ports.norm_scale(norm, kind)(x.detach()) * ports.norm_gain(norm, kind)
        return out.detach() + (linear - linear.detach()).to(out.dtype)

    return held


__all__ = ["gradients", "other_norms", "reached"]
