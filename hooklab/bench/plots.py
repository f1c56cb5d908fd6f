"""Ready-made plots of a model on prompts: functions that return a matplotlib figure, and the table `PLOTS` of their names.

Figures are made without pyplot: settings and open figures stay as they are. Layers stand in their own order, tokens are
written as they are, and padding is never part of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ViewError
from .plotting import entitle, finite, grid, layer_number, maps, one_prompt, paper, said, ticks, violin, width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model.model import Model
    from ..records import Scores

MOST_HEADS = 16
"""Heads of one figure."""
COLOURS = ("#2c7bb6", "#e66101", "#4d9221", "#7b3294", "#b8860b", "#666666", "#c51b7d", "#01665e", "#8c510a", "#000000")


def attention(model: Model, prompt: Any, *, layer: int | None = None, heads: Any = None, title: str = "") -> Figure:
    """Where each head looks: a map for each, queries down, keys across, tokens along both.

    Args:
        model: An opened model.
        prompt: Text or ids; of several, the first is drawn.
        layer: All heads of this layer.
        heads: Which heads: `["L2H1", (4, 0)]`. Without these, the first dozen of the model, which the title then says.
        title: What stands above.

    Raises:
        ViewError: more heads than fit, or both a layer and heads.
    """
    from .. import views

    if layer is not None and heads is not None:
        raise ViewError("layer= and heads= both say which heads: give one of them")
    chosen = [f"L{layer_number(model, layer)}H{head}" for head in range(model.facts.n_heads)] if layer is not None else heads
    view = views.attention(model, prompt, heads=chosen, values=False, title=title or "attention")
    try:
        return view.plot() if chosen is None else view.plot(heads=chosen)
    finally:
        view.close()


def attention_stats(model: Model, prompts: Any, *, seed: int = 0) -> Figure:
    """What the attention of each head is like: how spread out, how far back, and how much of it rests on the first token.

    Three maps [layer head]: the mean over tokens of a row's entropy in nats, the mean distance in tokens from query to key,
    and the mean attention to the first token of the prompt.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        seed: Of the intervals of these numbers.
    """
    from ..analysis.heads import attention_entropy
    from ..analysis.mass import attention_mass

    return maps([attention_entropy(model, prompts, seed=seed), attention_distance(model, prompts, seed=seed),
                  attention_mass(model, prompts, "all", 0, seed=seed)], ["entropy", "distance", "on the first token"])


def attention_distance(model: Model, prompts: Any, *, seed: int = 0) -> Scores:
    """How many tokens back each head looks on average: Scores [layer head].

    The mean over queries and examples of the distance to the keys, weighted by attention; what a sink takes is no part of
    it. Distances to later tokens, in a model that sees them, count as well.

    >>> import hooklab as hl
    >>> distance = attention_distance(hl.load("lab"), "When Mary and John went to the store")
    >>> distance.axes, bool((distance.values >= 0).all())
    (('layer', 'head'), True)
    """
    import torch

    from ..analysis.watching import averaged, read, watch

    prompt = read(model, prompts)
    found = np.full((prompt.size, model.facts.n_layers, model.facts.n_heads), np.nan)

    def visit(seen: Any) -> None:
        for example, pattern in seen.patterns():
            at = torch.arange(pattern.shape[-1], dtype=pattern.dtype, device=pattern.device)
            weights = pattern / pattern.sum(-1, keepdim=True)
            found[example, seen.layer] = (weights * (at[:, None] - at).abs()).sum(-1).mean(-1).cpu().numpy()

    watch(model, prompt, ("pattern",), visit)
    return averaged(found, ("layer", "head"), {}, seed, unit="tokens", name="attention distance")


def induction_heads(model: Model, prompts: Any = None, **options: Any) -> Figure:
    """How much each head attends to what followed the same token before: a map [layer head] from 0 to 1.

    Args:
        model: An opened model.
        prompts: Text or ids in which tokens come again; None for random tokens that are repeated.
        options: What `hooklab.induction_scores` takes: `period`, `repeats`, `batch`, `seed` …
    """
    from ..analysis.heads import induction_scores

    return maps([induction_scores(model, prompts, **options)], ["induction score"], limit=1.0)


def neuron_activations(model: Model, prompts: Any, *, layers: Sequence[int] | None = None, site: str = "mlp_post") -> Figure:
    """How the activations of all neurons over all tokens are distributed: a violin for each layer, its median marked.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        layers: Which layers; all unless given.
        site: Of neurons: `"mlp_post"`, `"mlp_pre"`; or another site of layers.

    Raises:
        SiteError: the model lacks the site.
        ViewError: an activation is no finite number.
    """
    chosen = list(range(model.facts.n_layers)) if layers is None else [layer_number(model, layer) for layer in layers]
    if not chosen:
        raise ViewError("there is no layer to draw")
    acts = model.capture(prompts, [f"L{layer}.{site}" for layer in chosen], at="all")
    values = [finite(acts[f"L{layer}.{site}"], f"L{layer}.{site}").reshape(-1) for layer in chosen]
    figure, ax = paper(max(4.8, 1.6 + 0.55 * len(chosen)), 3.8)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    drawn = ax.violin([violin(one) for one in values], range(len(chosen)), widths=0.8, showmedians=True, showextrema=True)
    for body in drawn["bodies"]:
        body.set(facecolor=COLOURS[0], edgecolor="none", alpha=0.45)
    for part in ("cmedians", "cmins", "cmaxes", "cbars"):
        drawn[part].set(color=COLOURS[0], linewidth=1.6 if part == "cmedians" else 0.7)
    ticks(ax.xaxis, [str(layer) for layer in chosen])
    ax.set(xlabel="layer", ylabel=site)
    entitle(ax, f"{site} of {values[0].size:,} neurons × tokens per layer")
    return figure


def neuron_trajectories(model: Model, prompt: Any, *, layer: int | None = None, k: int = 5,
                        site: str = "mlp_post") -> Figure:
    """The neurons that get furthest from zero anywhere in a prompt, from token to token: a line for each.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        layer: Only neurons of this layer.
        k: How many neurons.
        site: `"mlp_post"` or `"mlp_pre"`.

    Raises:
        ViewError: k is no count from 1 to 10, several prompts, or an activation is no finite number.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(COLOURS):
        raise ViewError(f"k={k!r}: how many neurons are drawn is a count from 1 to {len(COLOURS)}")
    chosen = range(model.facts.n_layers) if layer is None else [layer_number(model, layer)]
    pieces, acts = one_prompt(model, prompt, [f"L{one}.{site}" for one in chosen])
    values = np.stack([finite(acts[f"L{one}.{site}"][0], f"L{one}.{site}") for one in chosen])  # [layer pos neuron]
    reach = np.abs(values).max(1)
    figure, ax = paper(width(pieces), 4.2)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    for colour, cell in zip(COLOURS, np.argsort(-reach.reshape(-1), kind="stable")[:k], strict=False):
        row, neuron = divmod(int(cell), reach.shape[1])
        ax.plot(range(len(pieces)), values[row, :, neuron], color=colour, marker="o", markersize=3, linewidth=1.4,
                label=f"L{list(chosen)[row]}N{neuron}")
    ticks(ax.xaxis, pieces)
    ax.set(xlabel="token", ylabel=site)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    entitle(ax, f"the {min(k, reach.size)} neurons furthest from zero"
           + ("" if layer is None else f" in layer {layer}"))
    return figure


def qk_dot_products(model: Model, prompt: Any, *, layer: int = 0, heads: Sequence[int] | None = None,
                    scaled: bool = False) -> Figure:
    """How well each query fits each key: a map for each head of a layer, of the vectors that the model multiplies.

    Queries and keys are those after rotation; a head of grouped queries is multiplied with the key that it shares. Keys that
    come after the query are left blank in a causal model.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        layer: Which layer.
        heads: Which of its heads; the first 16 unless given, which the title then says.
        scaled: What the softmax sees instead: after the scale, and after a cap and a bias of positions where a model has
            them. What is masked is blank.

    Raises:
        ViewError: a head that does not exist, more than 16, or several prompts.
    """
    layer, count = layer_number(model, layer), model.facts.n_heads
    chosen = list(range(min(count, MOST_HEADS)) if heads is None else heads)
    if not chosen or len(chosen) > MOST_HEADS or any(type(one) is not int or not 0 <= one < count for one in chosen):
        raise ViewError(f"heads={heads}: name 1 to {MOST_HEADS} heads, from 0 to {count - 1}")
    sites = ["scores"] if scaled else ["rot_q", "rot_k"]
    pieces, acts = one_prompt(model, prompt, [f"L{layer}.{site}" for site in sites])
    if scaled:
        found = acts[f"L{layer}.scores"][0].double().cpu().numpy()
    else:
        q, k = (acts[f"L{layer}.{site}"][0].double().cpu().numpy() for site in sites)  # [pos head d_head]
        shared = np.arange(count) // (count // k.shape[1])
        found = np.einsum("qhd,khd->hqk", q, k[:, shared])
    found = np.where(found < -1e30, np.nan, found)  # masked by the lowest number there is
    if model.facts.causal:
        found = np.where(np.tri(len(pieces), dtype=bool), found, np.nan)
    cut = f" · first {MOST_HEADS} of {count} heads" if heads is None and count > MOST_HEADS else ""
    what = "attention scores" if scaled else "query · key"
    return grid([found[head] for head in chosen], [f"L{layer}H{head}" for head in chosen], pieces, what,
                 f"{what}, layer {layer}{cut}")


def residual_stream(model: Model, prompt: Any) -> Figure:
    """The length of the residual stream: a map of its places, in the order of the model, by tokens.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
    """
    from ..analysis.stream import stream
    from ..views import heat

    scores = stream(model, prompt, "norm")
    return heat.figure(scores.values, heat.scale_for(scores, signed=False), title=scores.name, rows=scores.coords["site"],
                       columns=[said(label.partition(": ")[2]) for label in scores.coords["pos"]], axes=("site", "token"),
                       unit=scores.unit)


def layer_norms(model: Model, prompts: Any) -> Figure:
    """What the norms divide the stream by: for every layer the median over tokens, and a band with 8 of 10 tokens.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.

    Raises:
        ViewError: the model has no norms before its layers.
    """
    count = model.facts.n_layers
    present = [site for site in ("ln1_scale", "ln2_scale") if model.sites.missing(site) is None]
    last = [site for site in ("ln_final_scale",) if model.sites.missing(site) is None]
    if not present + last:
        raise ViewError(f"{model.facts.family} has no norm whose divisor is known")
    acts = model.capture(prompts, [*(f"L*.{site}" for site in present), *last], at="all", full=True)
    figure, ax = paper(max(6.4, 2.4 + 0.32 * count), 3.8)
    for colour, site in zip(COLOURS, present, strict=False):
        values = np.stack([finite(acts[f"L{i}.{site}"], f"L{i}.{site}").reshape(-1) for i in range(count)])
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=1)
        ax.fill_between(range(count), low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(range(count), middle, color=colour, marker="o", markersize=3.5, label=site.removesuffix("_scale"))
    for site in last:
        values = finite(acts[site], site).reshape(-1)
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
        ax.vlines([count], low, high, color=COLOURS[2], alpha=0.35, linewidth=5)
        ax.plot([count], [middle], color=COLOURS[2], marker="D", markersize=5, linestyle="none", label="ln_final")
    ax.set_ylim(bottom=0)
    ticks(ax.xaxis, [*(str(layer) for layer in range(count)), *(["final"] * len(last))])
    ax.set(xlabel="layer", ylabel="divisor")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    entitle(ax, "what norms divide by, middle 80 % of tokens")
    return figure


PLOTS: dict[str, Callable[..., Figure]] = {
    "attention": attention,
    "attention_stats": attention_stats,
    "induction_heads": induction_heads,
    "layer_norms": layer_norms,
    "neuron_activations": neuron_activations,
    "neuron_trajectories": neuron_trajectories,
    "qk_dot_products": qk_dot_products,
    "residual_stream": residual_stream,
}
"""Name -> a function that takes a model and a prompt, and options, and returns a figure."""
