"""Selectors as text: the canonical form that `parse` reads back to an equal selector.

The simple ones are the hook language's positions (`last`, `1:5`, `"Mary"[1]`, `subject.last`, `each`); the
algebra beyond it has one spelling here, which `positions` reads too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from . import select as s


def to_text(selector: s.Selector) -> str:
    """Canonical text, without the leading `@`.

    >>> to_text(s.SetOp("-", s.All(), s.Slice(0, 2)))
    'all - (0:2)'
    """
    return _PRINTERS[type(selector)](selector)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pick(which: int | str | None, default: str | None) -> str:
    return "" if which == default else f"[{which}]"


def _atom(selector: s.Selector) -> str:
    """The text of an operand, in brackets where it would not hold together."""
    open_ended = isinstance(selector, s.Each) and isinstance(selector.of, s.Several)
    return f"({selector})" if open_ended or isinstance(selector, (s.SetOp, s.Slice)) else str(selector)


def _slice(x: s.Slice) -> str:
    start, stop = ("" if n is None else str(n) for n in (x.start, x.stop))
    return f"{start}:{stop}" + ("" if x.step is None else f":{x.step}")


def _sample(x: s.Sample) -> str:
    return f"random({x.n}{'' if x.of == s.All() else f', of={x.of}'}, seed={x.seed})"


def _each(x: s.Each) -> str:
    if x.of == s.All():
        return "each"
    return f"each {x.of}" if isinstance(x.of, s.Several) else f"each({x.of})"


_PRINTERS: dict[type, Callable[[Any], str]] = {
    s.All: lambda x: "all",
    s.Index: lambda x: str(x.n),
    s.Slice: _slice,
    s.Ends: lambda x: x.side if x.k == 1 else f"{x.side}({x.k})",
    s.Several: lambda x: f"[{', '.join(map(str, x.items))}]",
    s.Role: lambda x: x.name + _pick(x.which, "*"),
    s.ImageLine: lambda x: f"{x.kind}({x.n}{'' if x.of == s.Role('image') else f', of={x.of}'})",
    s.Mark: lambda x: x.name,
    s.TokenText: lambda x: _quote(x.text) + _pick(x.which, None),
    s.Span: lambda x: f"span({_quote(x.pattern)}){_pick(x.which, '*')}",
    s.TurnOf: lambda x: f"turn({_quote(x.role)}){_pick(x.which, '*')}",
    s.Mask: lambda x: f"mask({', '.join(_quote(''.join('01'[bit] for bit in row)) for row in x.rows)})",
    s.Sample: _sample,
    s.SetOp: lambda x: f"{_atom(x.left)} {x.op} {_atom(x.right)}",
    s.Shift: lambda x: f"{_atom(x.of)}.offset({x.k})",
    s.Edge: lambda x: f"{_atom(x.of)}.{x.edge}",
    s.Each: _each,
    s.Hole: lambda x: f"{{{x.source}}}",
    s.Split: lambda x: f"split({x.at}{'' if x.keep == 'right' else f', keep={x.keep}'})",
    s.Part: lambda x: f"{x.of}[{x.n}]",
}
