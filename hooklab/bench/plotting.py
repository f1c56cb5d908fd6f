"""What the ready-made plots share: paper without pyplot, maps side by side, names along axes, values that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ViewError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..records import Scores

MOST_NAMES = 40
"""Names along an axis; of more, every n-th."""
MOST_SHAPED = 20_000
"""Numbers that the shape of one violin is estimated from; its ends and its median are those of all."""



def layer_number(model: Any, layer: Any) -> int:
    """A layer's number; the last is also -1. Raises LayerError where there is no such one."""
    from ..errors import LayerError

    count = model.facts.n_layers
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not -count <= layer < count:
        raise LayerError(f"there is no layer {layer!r}: this model has {count}, counted from 0")
    return int(layer) % count


def one_prompt(model: Any, prompt: Any, sites: list[str]) -> tuple[list[str], Any]:
    """The tokens of one prompt, and what was captured on it. Raises ViewError where there are several."""
    acts = model.capture(prompt, sites)
    if acts.tokens is None or len(acts.tokens) != 1:
        raise ViewError("this plot is of one prompt at a time: give one text, or the ids of one")
    return [said(piece) for piece in acts.tokens.pieces[0]], acts


def finite(tensor: Any, what: str) -> np.ndarray:
    """Numbers in double precision. Raises ViewError where one is not finite."""
    values = np.asarray(tensor.detach().double().cpu().numpy())
    if not np.isfinite(values).all():
        raise ViewError(f"{what} has numbers that are not finite: there is nothing to draw of them")
    return values


def violin(values: np.ndarray) -> dict[str, Any]:
    """Shape, ends and median of a distribution, as matplotlib takes them."""
    from matplotlib.cbook import violin_stats

    shown = values[::ceil(values.size / MOST_SHAPED)]
    (found,) = violin_stats([np.append(shown, [values.min(), values.max()])], points=200)
    return found | {"median": float(np.median(values)), "mean": float(values.mean())}


def maps(given: Sequence[Scores], titles: Sequence[str], limit: float = 0.0) -> Figure:
    """Scores [layer head] side by side, each with its own colours."""
    from ..records.plot import Picture
    from ..views import heat

    rows, columns = given[0].shape
    wide, high = max(3.0, 1.5 + 0.24 * min(columns, 32)), max(2.8, 1.3 + 0.24 * min(rows, 32))
    figure = Picture(figsize=(wide * len(given), high), layout="constrained")
    for ax, scores, title in zip(figure.subplots(1, len(given), squeeze=False)[0], given, titles, strict=True):
        heat.figure(scores.values, heat.scale_for(scores, signed=False, limit=limit), title=title, unit=scores.unit,
                    rows=list(map(str, scores.coords["layer"])), columns=list(map(str, scores.coords["head"])),
                    axes=("layer", "head"), ax=ax)
    return figure


def grid(values: Sequence[np.ndarray], titles: Sequence[str], pieces: Sequence[str], unit: str, title: str) -> Figure:
    """Maps [query key] side by side with the same colours, zero in the middle; tokens along the outer sides."""
    import matplotlib

    from ..records.plot import Picture

    across = min(len(values), 4)
    down = ceil(len(values) / across)
    figure = Picture(figsize=(max(4.6, 1.6 + 2.5 * across), 1.3 + 2.5 * down), layout="constrained")
    finite = np.concatenate([one[np.isfinite(one)] for one in values])
    limit = float(np.abs(finite).max(initial=0.0)) or 1.0
    places = figure.subplots(down, across, squeeze=False).reshape(-1)
    for i, (ax, one, name) in enumerate(zip(places, values, titles, strict=False)):
        image = ax.imshow(one, cmap=matplotlib.colormaps["RdBu_r"], vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(name, fontsize=9.5)
        ticks(ax.yaxis, pieces if i % across == 0 else [])
        ticks(ax.xaxis, pieces if i + across >= len(values) else [])
    for ax in places[len(values):]:
        ax.set_visible(False)
    figure.supxlabel("key", fontsize=10)
    figure.supylabel("query", fontsize=10)
    figure.colorbar(image, ax=list(places), label=unit, shrink=0.8)
    figure.suptitle(title, fontsize=11)
    return figure


def paper(width: float, height: float) -> tuple[Any, Any]:
    """A figure with one pair of axes."""
    from ..records.plot import Picture

    figure = Picture(figsize=(min(width, 14.0), height), layout="constrained")
    ax = figure.subplots()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure, ax


def width(pieces: Sequence[str]) -> float:
    """Inches that a plot over tokens takes."""
    return max(5.6, 2.4 + 0.3 * len(pieces))


def ticks(side: Any, names: Sequence[str]) -> None:
    """Names along an axis, every n-th where there are many; upright where they are long."""
    step = ceil(len(names) / MOST_NAMES) or 1
    shown = [name if step == 1 or name.isdigit() else f"{i} {name}" for i, name in enumerate(names)][::step]
    longest = max(map(len, shown), default=0)
    upright = side.axis_name == "x" and (longest > 5 or (longest > 2 and len(shown) > 12))
    side.set_ticks(range(0, len(names), step), shown, rotation=90 if upright else 0, fontsize=8)
    for label in side.get_ticklabels():
        label.set_parse_math(False)


def entitle(ax: Any, text: str) -> None:
    """A title that is shown as it stands."""
    ax.set_title(text, loc="left", fontsize=10.5, parse_math=False)


def said(piece: str) -> str:
    """A token as it can be drawn: without line breaks, with a box for every letter that no font has."""
    from .. import html
    from ..views.strip_plot import drawable

    return drawable(html.printable(piece))
