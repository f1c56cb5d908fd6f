"""Attention: every head as a small picture, one of them large, and for each token where it looks and who looks at it.

In: patterns from anything that holds them (`pattern_sources`). Out: a view that opens with small pictures of all heads and
one whole head; the others, exact rows, other prompts and other modes are sent when they are asked for (`pattern_maps`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from ..errors import ViewError
from ..records import Run
from . import allowed, colours
from .axes import Axis, positions
from .base import Answer, View
from .pattern_data import Head, Patterns, joined
from .pattern_maps import MODES, MOST_WHOLE, Map, Maps, rows_in
from .pattern_sources import read
from .text import all_shown, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_EXACT = 128
"""Tokens up to which a page without a kernel carries the exact numbers as well as the colours."""
UNITS = {"pattern": "attention", "value-weighted": "attention × ‖v W_O‖", "difference": "attention"}


class Attention(View):
    """Attention patterns; `selection` has `layer`, `head`, `pos` (the token that looks), `key_pos`, and `prompt`."""

    KIND = "attention"

    def __init__(self, patterns: Patterns, *, title: str = "", source: Any = None, compare: Any = None,
                 spell: Callable[[Head, int], str] | None = None, **options: Any) -> None:
        self._patterns, self._maps, self._line = patterns, Maps(patterns), spell
        keys = [prompt.key for prompt in patterns.prompts]
        modes = self._maps.modes()
        against = [keys[1], keys[0], *keys[2:]] if len(keys) > 1 else keys
        self.OPTIONS = {  # type: ignore[misc]  # which prompts and modes there are differs from view to view
            "mode": modes, "against": tuple(against), "first_token": ("shown", "left out"),
                        "scale": ("all heads", "each head"), "direction": ("both", "looks at", "looked at by")}
        if compare is not None:
            patterns.place(compare)
            options = {"mode": "difference", "against": compare, **options}
        super().__init__(_axes(patterns), title=title, source=source, **options)
        self.draw()

    # What is sent ------------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        heads, prompts, which = self._patterns.heads, self._patterns.prompts, self._now()
        head = self._head() or 0
        return {"prompts": [{"key": one.key, "label": shown(one.key), "pieces": one.pieces} for one in prompts],
                "heads": [{"layer": head.layer, "head": head.head, "name": str(head)} for head in heads],
                "gridded": _gridded(heads), "modes": self.OPTIONS["mode"], "units": UNITS,
                "map": _facts(which), "thumbs": self._thumbs_facts(which), "opened": {"at": head, **self._head_facts(which)}}

    def arrays(self) -> dict[str, np.ndarray]:
        which = self._now()
        thumbs = self._maps.thumbs(which)
        codes, _, _ = self._maps.codes(which, self._head() or 0)
        return {"thumbs": thumbs.codes, "first": thumbs.first, "peaks": thumbs.peaks, "head": codes,
                "sequential": colours.for_codes("probability"), "diverging": colours.for_codes("diverging")}

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"thumbs": self._ask_thumbs, "head": self._ask_head, "rows": self._ask_rows, "column": self._ask_column}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        count, now = len(self._patterns.heads), self._now()
        maps = [now, *(which for which in self._every_map() if which != now)]
        for which in maps:
            if which != now:
                yield "thumbs", _facts(which)
            if self._maps.thumbs(which).block > 1:
                yield from (("head", {**_facts(which), "head": head}) for head in range(count))
        for which in maps:
            n = len(self._patterns.prompts[which.prompt])
            if n <= MOST_EXACT:
                yield from (("rows", {**_facts(which), "head": head, "part": part}) for head in range(count)
                            for part in range(-(-n // rows_in(n))))

    def _every_map(self) -> Iterator[Map]:
        """Every map that a page offers: each prompt in each mode, differences from the first of the same length."""
        prompts = self._patterns.prompts
        for mode in self.OPTIONS["mode"]:
            for i, one in enumerate(prompts):
                others = [j for j, other in enumerate(prompts) if j != i and len(other) == len(one)]
                if mode != "difference":
                    yield Map(i, mode)
                else:
                    yield from (Map(i, mode, j) for j in others)

    def _ask_thumbs(self, **given: Any) -> Answer:
        which = self._map(**given)
        thumbs = self._maps.thumbs(which)
        return self._thumbs_facts(which), [part.tobytes() for part in (thumbs.codes, thumbs.first, thumbs.peaks)]

    def _ask_head(self, head: int, **given: Any) -> Answer:
        which = self._map(**given)
        codes, _, _ = self._maps.codes(which, self._checked(head))
        return self._head_facts(which), [codes.tobytes()]

    def _ask_rows(self, head: int, part: int, **given: Any) -> Answer:
        rows = self._maps.rows(self._map(**given), self._checked(head), part)
        return {"rows": len(rows)}, [rows.astype("<f4").tobytes()]

    def _ask_column(self, head: int, key: int, **given: Any) -> Answer:
        return {}, [self._maps.column(self._map(**given), self._checked(head), key).astype("<f4").tobytes()]

    def _thumbs_facts(self, which: Map) -> dict[str, Any]:
        thumbs = self._maps.thumbs(which)
        return {"side": thumbs.codes.shape[-1], "block": thumbs.block, "causal": thumbs.causal, "scale": thumbs.scale.facts}

    def _head_facts(self, which: Map) -> dict[str, Any]:
        n = len(self._patterns.prompts[which.prompt])
        return {"block": -(-n // MOST_WHOLE), "causal": self._maps.thumbs(which).causal}

    def _map(self, prompt: int, mode: str, against: int = 0) -> Map:
        """The map that a question is about. Raises ViewError."""
        count = len(self._patterns.prompts)
        if mode not in MODES or not (0 <= prompt < count and 0 <= against < count):
            raise ViewError(f"there is no map {mode!r} of prompt {prompt} against {against} among {count} prompts")
        return Map(prompt, mode, against if mode == "difference" else 0)

    def _checked(self, head: int) -> int:
        if not 0 <= head < len(self._patterns.heads):
            raise ViewError(f"there is no head number {head} among the {len(self._patterns.heads)} of this view")
        return head

    # What is chosen ----------------------------------------------------------------------------------------------------

    def _now(self) -> Map:
        """The map that selection and options name; the plain pattern where the prompts cannot be compared."""
        prompt = self._prompt(self.selection)
        mode = self.options.get("mode", MODES[0])
        against = self._patterns.place(self.options["against"]) if mode == "difference" else 0
        prompts = self._patterns.prompts
        if mode == "difference" and (prompt == against or len(prompts[prompt]) != len(prompts[against])):
            return Map(prompt)
        return Map(prompt, mode, against)

    def _prompt(self, selection: Mapping[str, Any]) -> int:
        return self._patterns.place(selection["prompt"]) if "prompt" in selection else 0

    def _head(self, selection: Mapping[str, Any] | None = None) -> int | None:
        """Which head a selection names, if it names one."""
        chosen = self.selection if selection is None else selection
        wanted = [i for i, head in enumerate(self._patterns.heads)
                  if (head.layer, head.head) == (chosen.get("layer"), chosen.get("head"))]
        return wanted[0] if wanted else None

    @traitlets.validate("selection")
    def _checked_selection(self, proposal: Any) -> dict[str, Any]:
        chosen = allowed.selection(proposal["value"], self._axes)
        heads = self._patterns.heads
        if {"layer", "head"} <= chosen.keys() and self._head(chosen) is None:
            raise allowed.Refused(f"L{chosen['layer']}H{chosen['head']} is not in this view; it has "
                                  f"{', '.join(map(str, heads[:12]))}{' …' if len(heads) > 12 else ''}")
        prompt = self._patterns.prompts[self._prompt(chosen)]
        for name in ("pos", "key_pos"):
            if chosen.get(name, 0) < len(prompt):
                continue
            if chosen[name] != self.selection.get(name):
                raise allowed.Refused(f"there is no {name} {chosen[name]}: {prompt.key} has {len(prompt)} tokens")
            del chosen[name]  # another prompt was chosen, which is shorter
        return chosen

    def follow(self, other: View, selection: Mapping[str, Any]) -> None:
        with contextlib.suppress(allowed.Refused):  # what another view chose may not be here
            super().follow(other, selection)

    def spell(self, selection: Mapping[str, Any]) -> str:
        head = self._head(selection)
        if head is None or self._patterns.heads[head].layer is None or self._line is None:
            return ""
        return self._line(self._patterns.heads[head], self._prompt(selection))

    # Other forms -------------------------------------------------------------------------------------------------------

    def static(self) -> str:
        from .pattern_pictures import fragment

        return fragment(self._maps, self._now(), self._title, self._head(), UNITS)

    def plot(self, ax: Any = None, *, heads: Any = None) -> Figure:
        """Maps of heads side by side, with their tokens: those named, else the chosen one, else the first dozen.

        Raises:
            ViewError: there is no such head, or `ax` is given for several.
        """
        from .pattern_heads import wanted
        from .pattern_pictures import figure

        self._check_open()
        every, chosen = self._patterns.heads, self._head()
        named = [every.index(one) for one in wanted(heads, every)] if heads is not None else None
        return figure(self._maps, self._now(), named or ([chosen] if chosen is not None else None), ax, self._title, UNITS)

    def release(self) -> None:
        self._patterns = Patterns(self._patterns.heads, ())
        self._maps = Maps(self._patterns)

    def __repr__(self) -> str:
        heads, prompts = self._patterns.heads, self._patterns.prompts
        if _gridded(heads) and heads[0].layer is not None and heads[0].head is not None:
            layers = len({head.layer for head in heads})
            what = f"{layers} layers × {len(heads) // layers} heads"
        else:
            what = f"{len(heads)} heads" if len(heads) > 1 else str(heads[0])
        sizes = sorted({len(prompt) for prompt in prompts})
        size = f"{sizes[0]}–{sizes[-1]}" if len(sizes) > 1 else "".join(map(str, sizes))
        parts = [self._title, what, f"{size} tokens" if size else "", f"{len(prompts)} prompts" if len(prompts) > 1 else ""]
        return f"Attention({', '.join(part for part in parts if part)})"


def _axes(patterns: Patterns) -> list[Axis]:
    prompts, heads = patterns.prompts, patterns.heads
    longest = max(prompts, key=len).pieces
    found = [Axis("prompt", tuple(one.key for one in prompts), tuple(all_shown(one.key for one in prompts)))]
    for name, index in (("layer", 0), ("head", 1)):
        keys = tuple(sorted({key for head in heads if (key := head[index]) is not None}))
        found += [Axis(name, keys, tuple(map(str, keys)))] if keys else []
    return found[len(prompts) < 2:] + [positions("pos", longest), positions("key_pos", longest)]


def _gridded(heads: Sequence[Head]) -> bool:
    """Whether the heads are whole layers in order, and so fill a table of layers by heads."""
    layers, numbers = (list(dict.fromkeys(head[i] for head in heads)) for i in (0, 1))
    return list(heads) == [Head(layer, number) for layer in layers for number in numbers]


def _facts(which: Map) -> dict[str, Any]:
    return {"prompt": which.prompt, "mode": which.mode, "against": which.against}


# Spec text ---------------------------------------------------------------------------------------------------------------


def _of_text(patterns: Patterns) -> Callable[[Head, int], str]:
    """A prompt and the head that is shown of it; nothing where the prompt's text is not known."""
    from ..spec.builder import spec

    texts = [prompt.text for prompt in patterns.prompts]

    def line(head: Head, prompt: int) -> str:
        return str(spec().prompt(texts[prompt]).show("attention", str(head))) if texts[prompt] else ""

    return line


def _of_spec(text: str) -> Callable[[Head, int], str]:
    """A run's own text, with this head shown in place of what it showed and of the patterns that it saved."""
    from .pattern_pictures import shown_alone

    return lambda head, prompt: shown_alone(text, str(head)) if text else ""


def attention(source: Any, prompt: Any = None, *, tokens: Any = None, heads: Any = None, values: Any = None,
              compare: Any = None, axes: str | Sequence[str] | None = None, title: str = "", **options: Any) -> Attention:
    """Attention patterns: all heads small, one large; for each token, where it looks and who looks at it.

    Point at a head to see it, click (or Enter) to keep it, Escape to let go. Point at a token, or at a cell of the map, to
    see where it looks and who looks at it. `view.selection` says what was chosen, `view.spec` spells it as spec text.

    Args:
        source: One of
            an array or tensor `[layer head query_pos key_pos]`, `[head query_pos key_pos]`, `[query_pos key_pos]`, or
            `[batch layer head query_pos key_pos]`; a list with one array per layer, as Hugging Face models return them;
            `Scores` with these axes;
            a `Run` that saved patterns (of some layers or heads, of one run or several);
            `Activations` of `model.capture(prompt, "L*.pattern")`;
            a model, whose patterns on `prompt` are captured now.
        prompt: What to run the model on: text, a list of texts, ids.
        tokens: For arrays: a list of tokens, a list of such lists, or `model.tokens(text)`, which also knows padding.
        heads: Which heads, and in which order: `["L2H1", (4, 0)]`, `"L5"`; all of them unless given.
        values: The size of what each head writes for each token, `[layer head key_pos]`, see
            `hooklab.analysis.patterns.value_norms`; a model finds its own, unless this is False.
        compare: A prompt of the source, by its key, or another source of the same heads, whose patterns are taken away.
        axes: For arrays: what the axes are, as in `"batch head query_pos key_pos"`, when they are not as above.
        title: What stands above.
        options: `mode` ("pattern", "value-weighted", "difference"), `first_token` ("shown", "left out" of the colours),
            `scale` ("all heads", "each head"), `direction` ("both", "looks at", "looked at by").

    Raises:
        ViewError: the source holds no patterns, or axes, tokens and heads do not fit it.

    Example:
        >>> import hooklab as hl
        >>> view = hl.view.attention(hl.load("lab"), "When Mary and John went", heads=["L2H1", (4, 0)])
        >>> view
        Attention(2 heads, 6 tokens)
        >>> print(view.select(layer=4, head=0, pos=-1).spec)
        prompt "When Mary and John went"
        show attention L4H0
    """
    patterns = read(source, prompt, tokens=tokens, heads=heads, values=values, axes=axes)
    if compare is not None and (isinstance(compare, Run) or not isinstance(compare, (str, int))):
        patterns, compare = joined(patterns, read(compare, tokens=None if isinstance(compare, Run) else tokens, heads=heads,
                                                   axes=axes if hasattr(compare, "shape") else None))
    spell = _of_spec(source.spec) if isinstance(source, Run) else _of_text(patterns)
    return Attention(patterns, title=title, source=source if isinstance(source, Run) else None, compare=compare, spell=spell,
                     **options)
