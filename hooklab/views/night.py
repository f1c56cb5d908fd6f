"""The inks of pictures for a light and for a dark page, and a figure in those of a dark one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inks:
    """Colours of a picture: the paper, what is written, what is written quietly, lines, and what stands under a choice."""

    paper: str
    ink: str
    quiet: str
    line: str
    chosen: str


LIGHT = Inks("#ffffff", "#1a1a1a", "#5c5c5c", "#dddddd", "#d9e8f6")
DARK = Inks("#111111", "#efefef", "#ababab", "#3c3c3c", "#12304a")


def darkened(figure: Figure) -> Figure:
    """The same figure for a dark page: nothing behind it; its texts, frames and whiskers light. Maps stay as they are."""
    from matplotlib.collections import LineCollection
    from matplotlib.text import Text

    figure.set_facecolor("none")
    for ax in figure.axes:
        ax.set_facecolor("none")
        ax.tick_params(which="both", colors=DARK.ink)
        for spine in ax.spines.values():
            spine.set_edgecolor(DARK.quiet)
        for one in ax.collections:
            if isinstance(one, LineCollection):
                one.set_color(DARK.ink)
    for text in figure.findobj(Text):
        text.set_color(DARK.ink)
    return figure
