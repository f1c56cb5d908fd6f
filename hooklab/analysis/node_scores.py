"""`hl.analysis.nodes`: what every head, neuron, token, pair of tokens … of one pass does for a metric, from one gradient.

In: a prompt, and a metric or an activation. Out: a table of `Nodes`. The formulas, for a node with value a that writes w to
the stream:

    activation      a: of a neuron, of a feature, of a pair's attention
    write_norm      ‖w‖: of a neuron |a|·‖W_out[n]‖, of a pair A[q,k]·‖v_k W_O‖, of a feature z·‖W_dec‖
    act_grad        a · ∂/∂a, through everything that comes after: the first-order effect of taking the node away
    direct_effect   w · g, g the gradient at the stream that the metric (or the target) reads: nothing in between counts

With `hold="norms"` the final norm's divisor is a constant, and direct effects add up: tokens, heads, neurons, biases and the
rest are the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..compiler.aims import IN_ATTENTION, IN_MLP
from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..errors import did_you_mean
from ..runtime.gradients import gradients, reached
from ..runtime.measure import measure
from ..runtime.passes import forward
from ..runtime.store import Block, Store
from .attribute import RUN, AttributionError, written
from .node_kinds import KINDS, rest
from .node_parts import Pass, Saes
from .node_table import Nodes

if TYPE_CHECKING:
    from ..model.model import Model

BY = ("direct_effect", "act_grad", "write_norm", "activation")


def nodes(model: Model, prompt: Any, metric: str | Callable[[Tensor], Any] | None = None, *,
          kinds: str | Sequence[str] = ("tokens", "heads", "neurons"), by: str | Sequence[str] = BY, answer: Any = None,
          wrong: Any = None, target: Any = None, through: str | None = None, hold: str | Sequence[str] = "norms",
          saes: Mapping[str, tuple[Any, str]] | None = None) -> Nodes:
    """What every node of one pass does for a metric, or for an activation, in one table.

    Kinds: `tokens` (what token and position embeddings write), `heads`, `neurons`, `mlps` and `attention` (whole layers),
    `pairs` (a head's attention from one token to one other), `stream` (the stream itself, whose direct effect is its
    projection on the gradient), `latents` (active features of dictionaries), `biases` (what W_O and W_out add whatever the
    prompt, as far as `attention` and `mlps` do not have it, and `rest`, what the final norm and the unembedding add). Some
    kinds contain others: add up only those that do not.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        metric: As in `attribute`.
        kinds: See above.
        by: The columns: `"direct_effect"`, `"act_grad"`, `"write_norm"`, `"activation"`; the first one ranks nodes.
        answer: The right next token.
        wrong: The wrong one that it is compared with.
        target: Instead of a metric an activation, as in `attribute`: `"L5H2.pattern[7,3]"`, `"L3N17 @last"`. Nodes are those
            that write to the stream before it is read there, and direct effects are those on the target.
        through: A place with its position, the last one unless given: `"L5H2.q"`, `"L5H2.v @3"`, `"L5.mlp_out @all"`. Only
            what reaches the metric (or the target) through it counts: the trace of a query, a key or a value, and the
            attribution of every edge into one.
        hold: `"norms"`, `"patterns"`, both in a tuple, `"all"`, or `()`.
        saes: For `latents`: name -> (dictionary, place), such as `{"enc": (sae, "L2.resid_mid")}`.

    Returns:
        The nodes, with `.value` the metric's.

    Raises:
        AttributionError: unknown kinds or columns, several prompts, a model whose stream passes through norms.
        SpecError: answers, targets or places that do not exist.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.node_scores import nodes
        >>> table = nodes(hl.load("lab"), "When Mary and John went to the store, John gave a drink to", answer=" Mary",
        ...               wrong=" John", kinds=("tokens", "heads", "mlps", "biases"))
        >>> bool(abs(table.sum("direct_effect") - table.value) < 1e-3)
        True
        >>> len(table.filter(kind="heads").nlargest(3).ids)
        3
    """
    names = words(kinds, KINDS, "kind of node")
    check_saes(saes)
    columns = words(by, BY, "column")
    seen = _seen(model, prompt, metric, names, answer, wrong, target, through, hold, dict(saes or {}))
    found = [(part.kind, part.places, part.columns(columns)) for name in names for part in KINDS[name].parts(seen)]
    if "biases" in names:
        found.append(rest(seen, columns))
    made = tuple(dict.fromkeys(kind for kind, _, _ in found))
    index = [np.insert(places, 0, made.index(kind), axis=1) for kind, places, _ in found]
    together = {name: np.concatenate([np.zeros(0), *(numbers[name] for _, _, numbers in found)]) for name in columns}
    return Nodes(made, np.concatenate([np.zeros((0, 5), dtype=np.int64), *index]), together, seen.pieces, seen.name,
                 seen.total, seen.note)


def words(given: str | Sequence[str], known: Any, what: str) -> tuple[str, ...]:
    """One or several words of a table, each once. Raises AttributionError when there is no such word, or none at all."""
    words = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for word in words:
        if word not in known:
            raise AttributionError(f"there is no {what} {word!r}.{did_you_mean(word, known)} "
                                   f"There are {', '.join(known)}.")
    if not words:
        raise AttributionError(f"name at least one {what}: {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def check_saes(saes: Any) -> None:
    """Refuse dictionaries that are not name -> (dictionary, place). Raises AttributionError."""
    if saes is None or (isinstance(saes, Mapping) and all(isinstance(one, (tuple, list)) and len(one) == 2
                                                          for one in saes.values())):
        return
    raise AttributionError('saes= has a dictionary and its place under each name: {"enc": (sae, "L2.resid_mid")}')


# One pass -------------------------------------------------------------------------------------------------------------


class Asked:
    """A metric or a target, compiled, and the passes with gradients to it."""

    def __init__(self, model: Model, prompt: Any, metric: Any, **options: Any) -> None:
        asked = written(prompt, "embed", metric, **options)
        self.model, self.plan = model, model.plan(asked.text, values=asked.values)
        self.run = self.plan.run(RUN)
        self.tokens = self.plan.prompts[self.run.prompt].tokens
        if len(self.tokens) != 1:
            raise AttributionError(f"nodes are those of one prompt, and there are {len(self.tokens)}: take one table each, "
                                   "and average them")
        self.store = Store(self.plan, saes={})
        self.block = Block(self.run, 0, 0, 1)
        self.reading = next(reading for reading in self.run.readings if reading.verb == "attribute")

    @property
    def aim(self) -> Any:
        """The target, None for a metric."""
        return self.reading.option("aim")

    def gradients(self, spots: Sequence[Spot]) -> tuple[dict[Spot, Tensor], dict[Spot, Tensor], float]:
        """Values, gradients of whole sites, and the number that they are of."""
        end = Spot("logits") if self.aim is None else Spot(self.aim.spot.site, self.aim.spot.layer)
        wanted = list(dict.fromkeys((*spots, end)))
        reading: Reading = replace(self.reading, spots=tuple(wanted))
        forward(self.model, self.store, [Block(self.plan.run(self.run.prompt), 0, 0, 1)])  # for metrics that compare
        with torch.inference_mode(False), torch.enable_grad():
            values, grads = gradients(self.model, self.store, self.block, reading, wanted)
            known = dict(zip(wanted, values, strict=True))
            if self.aim is None:
                total = measure(self.store, self.block, reading.value, known[end])
            else:
                total = reached(self.store, self.block, self.aim, known[end])
        return known, dict(zip(wanted, grads, strict=True)), float(total.sum().detach())


def _seen(model: Model, prompt: Any, metric: Any, names: tuple[str, ...], answer: Any, wrong: Any, target: Any,
          through: str | None, hold: Any, saes: Saes) -> Pass:
    """The pass with everything that the kinds need."""
    if not model.layout.family.adds_up:
        raise AttributionError(f"{model.facts.family} puts the stream through a norm after every addition, so what nodes "
                               "write does not stay in it: take hl.attribute")
    if saes and "latents" not in names:
        raise AttributionError('saes= are the dictionaries of kinds="latents": ask for them too, or leave saes= out')
    if "latents" in names and not saes:
        raise AttributionError('latents are features of dictionaries: say which, with saes={"enc": (sae, "L2.resid_mid")}')
    asked = Asked(model, prompt, metric, answer=answer, wrong=wrong, target=target, hold=hold)
    name = str(asked.reading.option("metric"))
    if through is not None:
        asked = _through(asked, prompt, through, hold)
        name = f"{name} through {through}"
    end = _end(model, asked.aim)
    seen = Pass(model, asked.tokens, end, saes, names)
    spots = dict.fromkeys(spot for word in names for spot in KINDS[word].spots(seen))
    values, grads, total = asked.gradients([*spots, end])
    held = asked.reading.option("hold", ())
    seen.fill(values, grads, total, name, f"on {name}" + (f", {' and '.join(held)} held" if held else ""))
    return seen


def _through(first: Asked, prompt: Any, address: str, hold: Any) -> Asked:
    """The value of a place times the gradient there, as a target: what goes through that place, and nothing beside it."""
    place = Asked(first.model, prompt, None, target=(address, lambda x: x.flatten(1).sum(1)), hold=hold).aim
    spot = Spot(place.spot.site, place.spot.layer)
    grad = first.gradients([spot])[1][spot]

    def weighted(x: Tensor) -> Tensor:
        fixed = _part(first, place, grad)
        return (x * fixed.to(x)).flatten(1).sum(1)

    return Asked(first.model, prompt, None, target=(address, weighted), hold=hold)


def _part(asked: Asked, place: Any, grad: Tensor) -> Tensor:
    """The part of a site's gradient that a target in Python is given of the site itself."""
    taken: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        taken.append(x)
        return x.flatten(1).sum(1)

    known = {**asked.plan.values, str(place.given): (None, keep)}
    reached(Store(replace(asked.plan, values=known), saes={}), asked.block, place, grad)
    return taken[0]


def _end(model: Model, aim: Any) -> Spot:
    """The stream that the metric or the target reads."""
    last = Spot("resid_post", model.facts.n_layers - 1)
    if aim is None or aim.spot.layer is None:
        return last
    site, layer = aim.spot.site, aim.spot.layer
    if site in ("resid_pre", "resid_mid", "resid_post"):
        return Spot(site, layer)
    parallel = model.layout.family.residual == "parallel"
    if site in IN_ATTENTION or site.startswith("ln1") or parallel:
        return Spot("resid_pre", layer)
    if site in IN_MLP and model.sites.missing("resid_mid") is None:
        return Spot("resid_mid", layer)
    raise AttributionError(f"{aim.name} is not read from the stream at one place: take hl.attribute")
