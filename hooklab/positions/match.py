"""Text → tokens: where a text or a pattern occurs in an example, in whole tokens.

A text is searched in the prompt, not in single pieces, so "Eiffel Tower" finds the tokens that spell it
together. An occurrence counts where it starts and ends between tokens.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from ..errors import PositionError, TokenError
from .select import Span, TokenText

if TYPE_CHECKING:
    from ..tokens import Tokens

Run = tuple[int, int]  # positions start:stop

SHOWN = 40


def find_text(tokens: Tokens, example: int, wanted: TokenText) -> list[Run]:
    """The occurrences that `wanted` chooses; raises TokenError when it finds none, or too many to tell.

    The exact text comes first. Where it does not occur, one leading space is ignored: `"Mary"` finds ` Mary`.
    """
    found = occurrences(tokens, example, wanted.text)
    if not found:
        raise TokenError(_absent(tokens, example, wanted.text))
    if wanted.which == "*":
        return found
    listed = "; ".join(f"[{i}] {_context(tokens, example, run)}" for i, run in enumerate(found))
    quoted = TokenText(wanted.text)
    if wanted.which is None:
        if len(found) > 1:
            raise TokenError(
                f"{quoted} occurs {len(found)} times: {listed}. "
                f"Choose one with {quoted}[0], or take all with {quoted}[*]"
            )
        return found
    return [_choose(found, int(wanted.which), f"{wanted}", listed)]


def find_span(tokens: Tokens, example: int, wanted: Span) -> list[Run]:
    """The tokens that each match of a pattern touches; empty when nothing matches."""
    text, spans = surface(tokens, example)
    runs = [_touched(spans, *m.span()) for m in re.finditer(wanted.pattern, text) if m.end() > m.start()]
    found = [run for run in runs if run is not None]
    if wanted.which == "*" or not found:
        return found
    listed = "; ".join(f"[{i}] {_context(tokens, example, run)}" for i, run in enumerate(found))
    return [_choose(found, int(wanted.which), f"{wanted}", listed)]


def occurrences(tokens: Tokens, example: int, text: str) -> list[Run]:
    """Every occurrence of `text` in whole tokens, exactly or else up to one leading space."""
    exact = _aligned(tokens, example, text)
    if exact or text == " ":
        return exact
    if text.startswith(" "):
        # Without its space the text must still start a word: " cat" is not in "tomcat".
        whole, spans = surface(tokens, example)
        return [
            (a, b)
            for a, b in _aligned(tokens, example, text[1:])
            if spans[a][0] == 0 or whole[spans[a][0] - 1].isspace() or whole[spans[a][0]].isspace()
        ]
    return _aligned(tokens, example, " " + text)


def surface(tokens: Tokens, example: int) -> tuple[str, list[Run]]:
    """The text that is searched, and the characters of it that each token stands for."""
    offsets = tokens.offsets[example]
    if offsets is not None:
        return tokens.text[example], list(offsets)
    spans, at = [], 0
    for piece in tokens.pieces[example]:
        spans.append((at, at + len(piece)))
        at += len(piece)
    return "".join(tokens.pieces[example]), spans


def _aligned(tokens: Tokens, example: int, text: str) -> list[Run]:
    """Occurrences of exactly `text` that start and end between tokens, in reading order."""
    whole, spans = surface(tokens, example)
    found = set()
    at = whole.find(text)
    while at >= 0:
        run = _touched(spans, at, at + len(text))
        if run and all(at <= a and b <= at + len(text) for a, b in spans[run[0] : run[1]] if a < b):
            found.add(run)
        at = whole.find(text, at + 1)
    # A template's special tokens are not in the text; they go by their own name.
    found |= {(p, p + 1) for p, (a, b) in enumerate(spans) if a == b and tokens.pieces[example][p] == text}
    return sorted(found)


def _touched(spans: list[Run], start: int, stop: int) -> Run | None:
    """The run of tokens that stand for any of the characters start:stop."""
    inside = [p for p, (a, b) in enumerate(spans) if a < b and a < stop and start < b]
    return (inside[0], inside[-1] + 1) if inside else None


def _choose(found: list[Run], which: int, name: str, listed: str) -> Run:
    if not -len(found) <= which < len(found):
        times = "occurs once" if len(found) == 1 else f"occurs {len(found)} times"
        raise PositionError(f"{name}: it {times}: {listed}")
    return found[which]


def _context(tokens: Tokens, example: int, run: Run) -> str:
    """An occurrence with its position and its neighbours: `at 3 " and|Mary| went"`."""
    pieces = tokens.pieces[example]
    start, stop = run
    before, after = "".join(pieces[max(0, start - 2) : start]), "".join(pieces[stop : stop + 2])
    where = f"{start}" if stop == start + 1 else f"{start}:{stop}"
    return f"at {where} {before + '|' + ''.join(pieces[start:stop]) + '|' + after!r}"


def listing(tokens: Tokens, example: int) -> str:
    """The numbered pieces of an example, as shown in errors."""
    pieces = tokens.pieces[example]
    shown = " ".join(f"{p}:{piece!r}" for p, piece in enumerate(pieces[:SHOWN]))
    return shown + (f" … and {len(pieces) - SHOWN} more" if len(pieces) > SHOWN else "")


def _absent(tokens: Tokens, example: int, text: str) -> str:
    quoted = str(TokenText(text))
    whole, spans = surface(tokens, example)
    at = whole.find(text)
    run = _touched(spans, at, at + len(text)) if at >= 0 else None
    if run:
        cut = " ".join(f"{p}:{tokens.pieces[example][p]!r}" for p in range(*run))
        return f"{quoted} starts or ends inside a token: {cut}. Name whole tokens"
    if not any(tokens.text) and tokens.offsets[example] is None:
        return f"{quoted} cannot be found: these tokens were made from ids without a tokenizer"
    pieces = list(dict.fromkeys(piece for piece in tokens.pieces[example] if piece.strip()))
    lowered = {piece.strip().lower(): piece for piece in pieces}
    near = difflib.get_close_matches(text.strip().lower(), lowered, n=1, cutoff=0.5)
    hint = f" Did you mean {TokenText(lowered[near[0]])}?" if near else ""
    return f"{quoted} is not in it.{hint} Tokens: {listing(tokens, example)}"
