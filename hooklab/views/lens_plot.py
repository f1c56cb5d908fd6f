"""A lens as a matplotlib figure: a heat map of layers and positions with a token in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tints, wire
from .strip_plot import drawable, wide

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 9
UNITS = {"probability": "probability of the likeliest token", "entropy": "entropy in nats", "rank": "rank of {target}"}


def figure(values: np.ndarray, texts: Sequence[Sequence[str]], mode: str, scale: wire.Scale, *, layers: Sequence[str],
           columns: Sequence[str], keys: Sequence[Any], title: str, target: str, ax: Any = None) -> Figure:
    """Numbers [layer pos] and the text of each cell, the last layer on top."""
    from ..records.plot import Picture

    if ax is None:
        size = (1.4 + 0.74 * len(columns), 1.7 + 0.27 * len(layers))
        ax = Picture(figsize=(max(4.2, size[0]), size[1]), layout="constrained").subplots()
    known = np.where(np.asarray(values) < 0, np.nan, values) if mode == "rank" else np.asarray(values, np.float64)
    shaded = np.log10(1 + known) if mode == "rank" else known
    name = "fall" if mode == "rank" else "up"
    image = np.array([[tints.over(name, int(code)) for code in row] for row in scale.codes(shaded)])
    ax.imshow(image, aspect="auto", interpolation="nearest", origin="lower")
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            said = ("–" if np.isnan(known[i, j]) else f"{int(known[i, j])}") if mode == "rank" else drawable(_short(text))
            ax.text(j, i, said, ha="center", va="center", fontsize=7.5, color="black", parse_math=False)
    ax.set_yticks(range(len(layers)), layers, fontsize=8)
    names = [str(key) if str(key) == label else f"{key}\n{drawable(_short(label))}"
             for key, label in zip(keys, columns, strict=True)]
    ax.set_xticks(range(len(columns)), names, fontsize=7.5)
    for label in ax.get_xticklabels():
        label.set_parse_math(False)
    ax.set_ylabel("layer")
    unit = UNITS[mode].replace("{target}", f"‘{drawable(target)}’")
    ax.set_xlabel(f"token · shaded: {unit}", fontsize=8.5, parse_math=False)
    ax.set_title(drawable(title), fontsize=10.5, loc="left", parse_math=False)
    ax.tick_params(length=0)
    found: Figure = ax.figure
    return found


def _short(text: str) -> str:
    if wide(text) <= LONGEST:
        return text
    kept = ""
    for letter in text:
        if wide(kept + letter) > LONGEST - 1:
            break
        kept += letter
    return kept + "…"
