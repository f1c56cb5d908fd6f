"""Handing over to CircuitsVis: the same patterns and token scores in its views, without what displaying them would do.

CircuitsVis asks a server of Google whether there is a network each time one of its views is displayed, loads its
script from elsewhere when there is, and reads tokens as HTML. What comes back from here runs the script that is
installed, asks nobody, and has tokens as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ViewError
from ..records import Scores
from ..tokens import Tokens
from . import axes as axes_of
from . import wire
from .pattern_sources import read
from .text import all_shown

STYLES = {"heads": 12 * 96 * 96, "patterns": 12 * 512 * 512}
"""How heads can be drawn, and how many cells that bears: of more, a browser stands still for minutes."""
DIGITS = 5


@dataclass(frozen=True, repr=False)
class HandedOver:
    """A view of CircuitsVis that a notebook displays without a network.

    Attributes:
        rendered: What CircuitsVis made. Displaying that itself opens a connection.
        says: What it is, in a line.
    """

    rendered: Any = field(repr=False)
    says: str

    def _repr_html_(self) -> str:
        """The view with the script that is installed."""
        return str(self.rendered.local_src)

    def __repr__(self) -> str:
        return self.says

    def to_html(self, path: str | Path | None = None) -> str:
        """A page of its own; also written to `path` when one is given.

        Raises:
            RecordError: the file exists, or cannot be written.
        """
        from .page import write_new

        page = f'<!doctype html><meta charset="utf-8"><title>{escape(self.says)}</title>{self._repr_html_()}'
        if path is not None:
            write_new(Path(path), page.encode())
        return page


def circuitsvis(source: Any, prompt: Any = None, *, tokens: Any = None, heads: Any = None, axes: Any = None,
                style: str = "heads", **options: Any) -> HandedOver:
    """Patterns, or a number per token, in a view of CircuitsVis.

    Args:
        source: Patterns in any form that `attention` takes, or numbers per token: an array [pos], or `Scores` over `pos`.
        prompt: For a model: what to run it on.
        tokens: For arrays: the tokens, or `model.tokens(text)`.
        heads: Which heads of patterns, as in `["L2H1", (4, 0)]`.
        axes: What the axes of an array of patterns are, when they are not those that `attention` expects.
        style: `"heads"` (a map of each head, one of them large; up to some 96 tokens for a dozen heads) or `"patterns"` (an
            older view, with tokens to point at; it bears more).
        options: Handed to CircuitsVis: `max_value`, `min_value`, `negative_color`, `positive_color` (not in `"patterns"`).

    Raises:
        ViewError: CircuitsVis is not installed, the numbers do not fit the tokens or are not finite, or are too many.

    Example:
        >>> import numpy as np
        >>> circuitsvis(np.array([0.1, 0.9]), tokens=["When", " Mary"])
        CircuitsVis(2 tokens)
    """
    values = source.values if isinstance(source, Scores) else source
    if getattr(values, "ndim", None) == 1 or (isinstance(source, list) and np.ndim(source) == 1):
        return _tokens(source, tokens, options)
    if style not in STYLES:
        raise ViewError(f"style is one of {', '.join(map(repr, STYLES))}, not {style!r}")
    patterns = read(source, prompt, tokens=tokens, heads=heads, axes=axes, values=False if prompt is not None else None)
    first, count = patterns.prompts[0], len(patterns.heads)
    if len(patterns.prompts) > 1:
        keys = ", ".join(str(one.key) for one in patterns.prompts)
        raise ViewError(f"CircuitsVis shows one prompt, and there are {len(patterns.prompts)} ({keys}): pass one of them")
    if count * len(first) ** 2 > STYLES[style]:
        other = ', or style="patterns"' if style == "heads" and count * len(first) ** 2 <= STYLES["patterns"] else ""
        raise ViewError(f"{count} heads of {len(first)} tokens are too much for CircuitsVis, whose page would not answer "
                        f"for minutes: choose heads=…{other}, or use hl.view.attention")
    weights = _plain(np.stack([weight.astype(np.float64) for weight in first.weights]))
    module, names = _module("attention"), [str(head) for head in patterns.heads]
    made = (module.attention_heads(weights, _drawn(first.pieces), attention_head_names=names, **options)
            if style == "heads" else module.attention_patterns(_safe(first.pieces), weights, **options))
    return HandedOver(made, f"CircuitsVis({count} head{'s' * (count > 1)}, {len(first)} tokens)")


def _tokens(source: Any, tokens: Any, options: dict[str, Any]) -> HandedOver:
    """A number per token as coloured text."""
    if isinstance(source, Scores):
        (axis,) = axes_of.of(source)
        pieces: Sequence[str] = axis.labels if tokens is None else tokens
        values = wire.held(source.values, "scores")
    else:
        values = wire.held(source, "scores")
        if tokens is None:
            raise ViewError("which tokens? Numbers per token need tokens=[…] or tokens=model.tokens(text)")
        pieces = tokens
    if isinstance(pieces, Tokens):
        pieces = pieces.pieces[0]
    pieces = all_shown(pieces)
    if len(pieces) != len(values) or not len(values):
        raise ViewError(f"there are {len(values)} numbers and {len(pieces)} tokens")
    made = _module("tokens").colored_tokens(_safe(pieces), _plain(values.astype(np.float64)), **options)
    return HandedOver(made, f"CircuitsVis({len(pieces)} token{'s' * (len(pieces) > 1)})")


def _safe(pieces: Sequence[str]) -> list[str]:
    """Tokens for a view that reads them as HTML, which shows them as they were."""
    return [escape(piece) for piece in pieces]


def _drawn(pieces: Sequence[str]) -> list[str]:
    """Tokens for a view that draws them; a mark without width after `<` keeps them from ending the script they lie in."""
    return [piece.replace("<", "<\u200b") for piece in pieces]


def _plain(values: np.ndarray) -> Any:
    """Numbers of few digits: they travel as text."""
    if not np.isfinite(values).all():
        raise ViewError("CircuitsVis draws finite numbers only; hl.view shows nan and infinities")
    return np.round(values, DIGITS)


def _module(name: str) -> Any:
    """A module of CircuitsVis. Raises ViewError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(f"circuitsvis.{name}")
    except ImportError as error:
        raise ViewError("CircuitsVis is not installed: pip install circuitsvis") from error
