"""The two pictures of the page: the way through the gate beside the null, and where the modalities lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .study import KNOCKED, PARTS, PATCHED, Study

COLOURS = {"begin": "#8c8c8c", "inside": "#9ecae1", "last of it": "#2c7bb6", "end": "#e66101"}
LINES = {"end": ("#e66101", "-", "o"), "inside": ("#2c7bb6", "-", "s"), "corner": ("#404040", "--", "^"),
         "begin": ("#a0a0a0", ":", "v")}
NAMES = ("through the gate", "past it (null)")


def ways(studies: tuple[Study, Study]) -> Figure:
    """Shares of attention, knock-outs and patches: a row for each model."""
    made = Figure(figsize=(10.4, 6.0), layout="constrained", facecolor="white")
    rows = made.subplots(2, 3, width_ratios=(1, 1.05, 1), squeeze=False)
    for row, found, name in zip(rows, studies, NAMES, strict=True):
        _shares(row[0], found)
        _bars(row[1], found)
        _flips(row[2], found)
        row[0].set_ylabel(f"{name}\n\nshare of attention")
    titles = ("What the text looks at in the image", "Right answers when attention is cut",
              "Answers that turn, by what is patched")
    for place, title in zip(rows[0], titles, strict=True):
        place.set_title(title, fontsize=10)
    for place, label in ((rows[1][0], "layer"), (rows[1][2], "layer")):
        place.set_xlabel(label)
    for column, count in ((0, 4), (2, 2)):
        handles, labels = rows[0][column].get_legend_handles_labels()
        rows[1][column].legend(handles, labels, fontsize=8, frameon=False, ncols=count, columnspacing=0.9, handletextpad=0.4,
                               loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=1.3)
    return made


def places(studies: tuple[Study, Study]) -> Figure:
    """Cosines between modalities with their quartiles, and homogeneity, over layers."""
    made = Figure(figsize=(8.2, 2.9), layout="constrained", facecolor="white")
    left, right = made.subplots(1, 2)
    for pair, colour, label in ((("image", "image"), "#2c7bb6", "image, image"), (("text", "text"), "#e66101", "text, text"),
                                (("image", "text"), "#404040", "image, text")):
        some = studies[0].similarity.sel(group=pair[0], other=pair[1])
        at = list(some.coords["layer"])
        left.plot(at, some.values, color=colour, marker="o", markersize=4, label=label)
        left.fill_between(at, some.low, some.high, color=colour, alpha=0.15, linewidth=0)
    left.axhline(0, color="#c0c0c0", linewidth=0.8, zorder=0)
    left.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
    for found, colour, name in zip(studies, ("#e66101", "#a0a0a0"), NAMES, strict=True):
        right.plot(list(found.homogeneity.coords["layer"]), found.homogeneity.values, color=colour, marker="o", markersize=4,
                   label=name)
    right.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
    _plain(left, "Cosines, model with the gate (median, quartiles)", (-0.1, 1.05))
    _plain(right, "Clusters of one modality (homogeneity)", (0, 1.05))
    for place in (left, right):
        place.set_xlabel("layer")
    return made


def _shares(place: Any, found: Study) -> None:
    at, base = np.arange(len(found.shares.coords["layer"])), np.zeros(len(found.shares.coords["layer"]))
    for name in PARTS:
        values = found.shares.sel(group=name).values
        place.bar(at, values, 0.72, bottom=base, color=COLOURS[name], label=name)
        base = base + values
    _plain(place, "", (0, 1.0), at)


def _bars(place: Any, found: Study) -> None:
    names = ["nothing\ncut" if name == "clean" else what.replace(" → ", "\n→ ") for name, what in KNOCKED.items()]
    values = [found.right[name] for name in KNOCKED]
    place.bar(range(len(values)), values, 0.62, color=["#a0a0a0" if name == "clean" else "#2c7bb6" for name in KNOCKED])
    for i, value in enumerate(values):
        place.annotate(f"{value:.0%}", (i, value), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    place.axhline(0.5, color="#404040", linewidth=0.8, linestyle=":")
    _plain(place, "", (0, 1.12), range(len(values)))
    place.set_xticks(range(len(values)), names, fontsize=8)
    place.set_yticks([0, 0.5, 1], ["0", "chance", "1"])


def _flips(place: Any, found: Study) -> None:
    for name, what in PATCHED.items():
        colour, line, marker = LINES[name]
        place.plot(found.flips[name], line, color=colour, marker=marker, markersize=4.5, label=what)
    _plain(place, "", (-0.05, 1.05), range(len(found.flips["end"])))


def _plain(place: Any, title: str, limits: tuple[float, float], ticks: Any = None) -> None:
    place.set_title(title, fontsize=10)
    place.set_ylim(*limits)
    if ticks is not None:
        place.set_xticks(list(ticks))
    else:
        place.xaxis.get_major_locator().set_params(integer=True)
    place.spines[["top", "right"]].set_visible(False)
    place.tick_params(labelsize=8)
