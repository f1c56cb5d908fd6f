"""Patterns without a browser: as HTML with inline pictures, as a matplotlib figure, and one head as spec text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import html
from ..errors import HooklabError, ViewError
from . import colours, wire
from .pattern_data import Head
from .pattern_maps import Map, Maps, strongest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = 88 * 2**10
"""Characters of the form without script."""
SIDES = (64, 48, 32, 24, 16, 8)
GAP = 4
MOST_ACROSS = 16
"""Heads side by side, when they are no table of layers by heads."""
MOST_LISTED = 40
MOST_PLOTTED = 12
MOST_NAMES, MOST_BESIDE = 32, 20
"""Tokens named along a map that stands alone, and along one of several: as many as have room above each other."""
LARGE = (320, 160, 80)
"""Pixels of the large picture of one head: as many as fit."""


def fragment(maps: Maps, which: Map, title: str, head: int | None, units: Mapping[str, str]) -> str:
    """One head large with what each token looks at most, and all heads as one picture in the room that is left."""
    patterns = maps.patterns
    prompt, thumbs = patterns.prompts[which.prompt], maps.thumbs(which)
    heads, at = patterns.heads, head or 0
    values, unit = maps.matrix(which, at), units[which.mode]
    low, high = html.number(thumbs.scale.low), html.number(thumbs.scale.high)
    codes = partial(_coded, maps, which, values)
    large = _fitting(lambda side: _grown(codes(side), side), LARGE, ROOM // 2, thumbs.scale)
    one = [html.heading(f"{heads[at]} · queries down, keys across"),
           _image(large, f"attention of {heads[at]}", "border:1px solid rgb(128 128 128 / .4)"),
           html.note(f"{unit}, colours from {low} to {high}."), _looks(values, prompt.pieces, str(heads[at]), unit)]
    which_prompt = html.note(f"Prompt {prompt.key}, one of {len(patterns.prompts)}.") if len(patterns.prompts) > 1 else ""
    every = [_sheet(thumbs.codes, heads, thumbs.scale, ROOM - sum(map(len, one)))] if len(heads) > 1 else []
    return "".join([html.heading(title or "attention"), which_prompt, *every, *one])


def _looks(values: np.ndarray, pieces: Sequence[str], name: str, unit: str) -> str:
    """What each token looks at most, as a table; the first tokens of many."""
    rows: list[list[Any]] = []
    for query in range(min(len(pieces), MOST_LISTED)):
        row = np.where(np.isfinite(values[query]), values[query], 0)
        best = [int(key) for key in np.argsort(-np.abs(row), kind="stable")[:2] if row[key]]
        cells: list[Any] = [cell for key in best for cell in (f"{key}: {pieces[key]}", float(row[key]))]
        rows.append([f"{query}: {pieces[query]}", *cells, *["", None][:4 - len(cells)] * (2 - len(best))])
    more = html.note(f"The first {MOST_LISTED} of {len(pieces)} tokens.") if len(pieces) > MOST_LISTED else ""
    return html.table(["token", "looks at", unit, "then at", unit], rows, f"{name}: where each token looks") + more


def _coded(maps: Maps, which: Map, values: np.ndarray, side: int) -> np.ndarray:
    """A head as codes, of many tokens as blocks."""
    codes = maps.thumbs(which).scale.codes(strongest(values, ceil(len(values) / side)))
    if maps.thumbs(which).causal:
        codes[~np.tri(len(codes), dtype=bool)] = wire.MASKED
    return codes


def _grown(codes: np.ndarray, room: int) -> np.ndarray:
    times = max(1, room // len(codes))
    return np.repeat(np.repeat(codes, times, 0), times, 1)


def _sheet(codes: np.ndarray, heads: Sequence[Head], scale: wire.Scale, room: int) -> str:
    """All heads in one picture of bearable size, and what its rows are."""
    layers = list(dict.fromkeys(head.layer for head in heads))
    each = len(heads) // len(layers)
    tabled = [layer for layer in layers for _ in range(each)] == [head.layer for head in heads]
    whole = len(layers) > 1 and tabled
    across = each if whole else min(MOST_ACROSS, len(heads))
    names = [heads[at:at + across] for at in range(0, len(heads), across)]
    rows = "; ".join(str(row[0]) if len(row) == 1 else f"{row[0]} to {row[-1]}" for row in names)
    picture = _fitting(lambda side: _tiled(_sized(codes, side), across), SIDES, room - 3 * len(rows), scale)
    return _image(picture, f"attention of {len(heads)} heads", "") + html.note(f"Rows of heads: {rows}.")


def _fitting(made: Callable[[int], np.ndarray], sides: Sequence[int], room: int, scale: wire.Scale) -> str:
    """The largest picture that takes no more than so many characters, or the smallest there is."""
    picture = ""
    for side in sides:
        picture = _png(made(side), scale)
        if len(picture) <= room:
            break
    return picture


def _sized(codes: np.ndarray, side: int) -> np.ndarray:
    """[head side side] at about so many pixels: cells repeated, or the strongest of several."""
    size = codes.shape[-1]
    if size <= side:
        times = side // size
        return np.repeat(np.repeat(codes, times, 1), times, 2)
    starts = np.arange(side) * size // side
    return np.maximum.reduceat(np.maximum.reduceat(codes, starts, axis=1), starts, axis=2)


def _tiled(codes: np.ndarray, across: int) -> np.ndarray:
    side, down = codes.shape[-1], ceil(len(codes) / across)
    sheet = np.zeros((down * (side + GAP), across * (side + GAP)), np.uint8)
    for i, one in enumerate(codes):
        top, left = i // across * (side + GAP), i % across * (side + GAP)
        sheet[top:top + side, left:left + side] = one
    return sheet[:-GAP, :-GAP]


def _png(codes: np.ndarray, scale: wire.Scale) -> str:
    """Codes as a data address of a picture in the view's colours; what is masked is see-through."""
    from PIL import Image

    table = colours.for_codes(scale.kind)
    image = Image.fromarray(np.ascontiguousarray(codes), "P")
    image.putpalette(table[:, :3].tobytes())
    target = io.BytesIO()
    image.save(target, "PNG", transparency=table[:, 3].tobytes(), optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _image(address: str, says: str, style: str) -> str:
    look = f"display:block;max-width:100%;image-rendering:pixelated;{style}"
    return f'<img alt="{html.safe(says)}" src="{address}" style="{look}">'


# matplotlib --------------------------------------------------------------------------------------------------------------


def figure(maps: Maps, which: Map, heads: Sequence[int] | None, ax: Any, title: str, units: Mapping[str, str]) -> Figure:
    """One map per head, with the tokens along both sides.

    Raises:
        ViewError: more heads than fit, or an `ax` for several.
    """
    from matplotlib.figure import Figure as Plain

    from ..records.plot import Picture

    patterns = maps.patterns
    every = patterns.heads
    chosen = list(heads if heads is not None else range(len(every)))
    if heads is None and (len(chosen) > MOST_PLOTTED or ax is not None):
        chosen = chosen[:1 if ax is not None else MOST_PLOTTED]
    if len(chosen) > MOST_PLOTTED or (ax is not None and len(chosen) > 1):
        raise ViewError(f"{len(chosen)} heads do not fit {'one axes' if ax is not None else 'a figure'}; name at most "
                        f"{1 if ax is not None else MOST_PLOTTED}, as in plot(heads=['{every[0]}'])")
    prompt = patterns.prompts[which.prompt]
    if ax is not None:
        _drawn(ax, maps, which, chosen[0], title or str(every[chosen[0]]))
        found: Plain = ax.figure
        return found
    across = min(len(chosen), 4)
    size = 5.2 if across == 1 else 3.6
    down = ceil(len(chosen) / across)
    made = Picture(figsize=(max(5.0, size * across), size * down * 0.95))
    made.set_layout_engine("constrained", h_pad=0.08)  # with less, a name meets the tokens above it
    places = made.subplots(down, across, squeeze=False).reshape(-1)
    for place, head in zip(places, chosen, strict=False):
        image = _drawn(place, maps, which, head, str(every[head]), MOST_NAMES if len(chosen) == 1 else MOST_BESIDE)
    for place in places[len(chosen):]:
        place.set_visible(False)
    if len(chosen) > 1:  # once for all of them
        for place in places:
            place.set_xlabel("")
            place.set_ylabel("")
        made.supxlabel("key")
        made.supylabel("query")
    made.colorbar(image, ax=list(places), label=units[which.mode], shrink=0.8)
    named = title + (f" · {prompt.key}" if len(patterns.prompts) > 1 else "")
    left = f" · first {len(chosen)} of {len(every)} heads" if heads is None and len(chosen) < len(every) else ""
    if named + left:
        made.suptitle(_literal((named + left).strip(" ·")))
    return made


def _drawn(ax: Any, maps: Maps, which: Map, head: int, title: str, most: int = MOST_NAMES) -> Any:
    """One head into an axes, in the view's own colours, with at most so many tokens named."""
    import matplotlib
    from matplotlib.colors import Normalize, PowerNorm

    thumbs, pieces = maps.thumbs(which), maps.patterns.prompts[which.prompt].pieces
    values, scale = maps.matrix(which, head), thumbs.scale
    ahead = 1.0 - np.tri(len(values)) if thumbs.causal else np.zeros(values.shape)
    norm = PowerNorm(0.5, scale.low, scale.high) if scale.kind == "probability" else Normalize(scale.low, scale.high)
    colour = matplotlib.colormaps[colours.NAMES[scale.kind]].with_extremes(bad="#808080")
    image = ax.imshow(values, cmap=colour, norm=norm, interpolation="nearest", alpha=1 - ahead)
    step = ceil(len(pieces) / most)
    names = [_literal(piece if step == 1 else f"{i} {piece}") for i, piece in enumerate(pieces)][::step]
    small = 8 if len(names) <= most / 2 else 6
    ax.set_xticks(range(0, len(pieces), step), names, rotation=90, fontsize=small)
    ax.set_yticks(range(0, len(pieces), step), names, fontsize=small)
    ax.set_title(_literal(title))
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    return image


def _literal(text: str) -> str:
    """Text that matplotlib shows as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


# Spec text ---------------------------------------------------------------------------------------------------------------


def shown_alone(text: str, head: str) -> str:
    """A spec that shows one head, without its own shows and claims, and without saved patterns: they would be kept twice.

    >>> print(shown_alone('prompt "a"\\nzero L1H1\\nsave L2.pattern\\nshow top 3', "L2H1"))
    prompt "a"
    zero L1H1
    show attention L2H1

    Raises:
        ViewError: the text cannot be read.
    """
    from ..spec import ast
    from ..spec.builder import spec
    from ..spec.parser import parse
    from ..spec.printer import to_text

    try:
        body = parse(text).body
    except HooklabError as error:
        raise ViewError(f"the spec of the run cannot be read: {error}") from error
    kept: list[Any] = []
    for line in body:
        if isinstance(line, ast.Run):
            inner = tuple(one for one in line.body if not _drops(one))
            kept.append(replace(line, body=inner or spec().save(f"{head}.pattern").statements))  # a run does something
        elif not _drops(line):
            kept.append(line)
    return to_text(ast.Spec((*kept, *spec().show("attention", head).statements)))


def _drops(line: Any) -> bool:
    from ..spec import ast

    if isinstance(line, ast.Save):
        return any(getattr(site, "comp", None) == "pattern" for site in line.target.sites)
    return isinstance(line, (ast.Show, ast.Expect))
