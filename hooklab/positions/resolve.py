"""Selector + Tokens → numbers: per example, on the unpadded sequence, and the padded columns they lie in.

One rule per kind of selector; each returns positions in reading order, except that lists and slices keep the
order they state. Every error names what was asked, what there is, and the example if there are several.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError, PositionError, did_you_mean
from . import select as s
from .build import positions
from .images import image_line, image_places, inside, numbered
from .match import find_span, find_text

if TYPE_CHECKING:
    from ..tokens import Tokens


def resolve(
    selector: Any, tokens: Tokens, *, marks: Mapping[str, Any] | None = None, allow_empty: bool = False
) -> list[list[int]]:
    """The positions that `selector` (anything `positions` takes) means in each example.

    Positions count unpadded tokens, come in reading order (lists and slices: in theirs) and only once. Raises
    PositionError for what an example lacks, TokenError for a text that is absent or ambiguous. An empty
    selection is an error unless `allow_empty`.

    >>> from hooklab.tokens import Tokens
    >>> resolve("last", Tokens.from_ids([[5, 6, 7], [8]]))
    [[2], [0]]
    """
    chosen = positions(selector)
    return [view.checked(lambda v: v.some(chosen)) for view in _views(tokens, marks, allow_empty)]


def columns(
    selector: Any, tokens: Tokens, marks: Mapping[str, Any] | None = None, *, allow_empty: bool = False
) -> list[list[int]]:
    """As `resolve`, in columns of the batch padded on `tokens.padding_side`."""
    found = resolve(selector, tokens, marks=marks, allow_empty=allow_empty)
    return [[tokens.column(i, p) for p in row] for i, row in enumerate(found)]


def groups(
    selector: Any, tokens: Tokens, *, marks: Mapping[str, Any] | None = None, allow_empty: bool = False
) -> list[list[list[int]]]:
    """Per example, the groups that `selector` takes one at a time.

    `each` gives one position a group, `each [a, b]` one item, a split one part; anything else is one group.

    >>> from hooklab.tokens import Tokens
    >>> groups("each", Tokens.from_ids([5, 6])), groups("split(1)", Tokens.from_ids([5, 6, 7]))
    ([[[0], [1]]], [[[0], [1, 2]]])
    """
    chosen = positions(selector)
    return [view.checked(lambda v: _groups(chosen, v)) for view in _views(tokens, marks, allow_empty)]


def explain(selector: Any, tokens: Tokens, *, marks: Mapping[str, Any] | None = None) -> str:
    """The tokens that `selector` chooses, one line per example."""
    found = resolve(selector, tokens, marks=marks, allow_empty=True)
    head = f"@{positions(selector)}"
    return "\n".join(
        f"{head}  example {i}: " + (" ".join(f"{p}:{tokens.pieces[i][p]!r}" for p in row) or "nothing")
        for i, row in enumerate(found)
    )


@dataclass(frozen=True)
class _View:
    """One example as the rules see it."""

    tokens: Tokens
    example: int
    marks: Mapping[str, s.Selector]
    allow_empty: bool
    open_marks: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return self.tokens.lengths[self.example]

    def checked(self, find: Callable[[_View], Any]) -> Any:
        """What `find` finds; its errors name this example when there are several."""
        try:
            return find(self)
        except HooklabError as e:
            prefix = f"example {self.example}: " if len(self.tokens) > 1 else ""
            raise type(e)(f"{prefix}{e}") from None

    def all(self, selector: s.Selector) -> list[int]:
        """The positions of a selection, each once; perhaps none."""
        return list(dict.fromkeys(_RULES[type(selector)](selector, self)))

    def some(self, selector: s.Selector) -> list[int]:
        """The positions of a selection, which must not be empty unless empty ones are allowed."""
        found = self.all(selector)
        if not found and not self.allow_empty:
            raise PositionError(_why_empty(selector, self))
        return found


def _views(tokens: Tokens, marks: Mapping[str, Any] | None, allow_empty: bool) -> list[_View]:
    named = {}
    for name, value in (marks or {}).items():
        named[s.Mark(name).name] = positions(value)
    return [_View(tokens, i, named, allow_empty) for i in range(len(tokens))]


def _index(x: s.Index, view: _View) -> list[int]:
    if not -view.n <= x.n < view.n:
        raise PositionError(_out_of_range(f"position {x.n}", view))
    return [x.n % view.n]


def _out_of_range(what: str, view: _View) -> str:
    n = view.n
    have = (
        f"{n} tokens: 0 to {n - 1}, or {-n} to -1 from the end" if n > 1 else "1 token: 0, or -1 from the end"
    )
    return f"{what} is out of range; there {'are' if n > 1 else 'is'} {have}"


def _ends(x: s.Ends, view: _View) -> list[int]:
    if x.k > view.n:
        raise PositionError(_out_of_range(str(x), view))
    return list(range(x.k) if x.side == "first" else range(view.n - x.k, view.n))


def _several(x: s.Several, view: _View) -> list[int]:
    return [p for item in x.items for p in view.some(item)]


def _role(x: s.Role, view: _View) -> list[int]:
    tokens, i = view.tokens, view.example
    given = tokens.n_prompt[i]
    if x.name == "prompt":
        return list(range(given))
    if x.name == "new":
        return list(range(given, view.n))
    if x.name in ("bos", "boi", "eoi"):
        known = getattr(tokens, x.name)
        found = list(known[i]) if known else []
        return numbered(found, x.which)
    if x.which != "*":
        return [p for span in numbered(image_places(tokens, i), x.which) for p in inside(tokens, i, span)]
    return [p for p, role in enumerate(tokens.roles[i]) if role == x.name]


def _image_line(x: s.ImageLine, view: _View) -> list[int]:
    if not view.some(x.of):
        return []
    spans = numbered(image_places(view.tokens, view.example), x.of.which)  # type: ignore[attr-defined]
    return [p for span in spans for p in image_line(view.tokens, view.example, span, x)]


def _mark(x: s.Mark, view: _View) -> list[int]:
    if x.name not in view.marks:
        known = [*view.marks, *s.RESERVED]
        raise PositionError(
            f'no position or mark "{x.name}"; there are {", ".join(known)}.{did_you_mean(x.name, known)}'
        )
    if x.name in view.open_marks:
        raise PositionError(f"mark {x.name} is defined by itself: {' → '.join((*view.open_marks, x.name))}")
    return replace(view, open_marks=(*view.open_marks, x.name)).all(view.marks[x.name])


def _token_text(x: s.TokenText, view: _View) -> list[int]:
    return sorted({p for run in find_text(view.tokens, view.example, x) for p in range(*run)})


def _span(x: s.Span, view: _View) -> list[int]:
    return sorted({p for run in find_span(view.tokens, view.example, x) for p in range(*run)})


def _turn(x: s.TurnOf, view: _View) -> list[int]:
    if view.tokens.turns is None:
        raise PositionError(f"{x}: these tokens carry no chat turns; give chat messages as the prompt")
    turns = view.tokens.turns[view.example]
    found = [t for t in turns if t.role == x.role]
    if not found:
        speakers = list(dict.fromkeys(t.role for t in turns))
        raise PositionError(
            f"no turn of {x.role!r}; speakers: {', '.join(speakers)}.{did_you_mean(x.role, speakers)}"
        )
    if x.which != "*":
        k = int(x.which)
        if not -len(found) <= k < len(found):
            raise PositionError(f"{x}: there {'is' if len(found) == 1 else 'are'} {len(found)} of {x.role!r}")
        found = [found[k]]
    return [p for t in found for p in range(t.start, t.stop)]


def _mask(x: s.Mask, view: _View) -> list[int]:
    if len(x.rows) not in (1, len(view.tokens)):
        raise PositionError(f"a mask of {len(x.rows)} rows does not fit {len(view.tokens)} examples")
    row = x.rows[view.example if len(x.rows) > 1 else 0]
    if len(row) != view.n:
        raise PositionError(
            f"the mask has {len(row)} entries, but a mask counts unpadded tokens: {view.n} here"
        )
    return [p for p, bit in enumerate(row) if bit]


def _sample(x: s.Sample, view: _View) -> list[int]:
    found = sorted(view.some(x.of))
    if x.n > len(found):
        raise PositionError(f"{x}: there {'is' if len(found) == 1 else 'are'} only {len(found)} to draw from")
    return sorted(random.Random(x.seed).sample(found, x.n))


def _set_op(x: s.SetOp, view: _View) -> list[int]:
    # An operand may be empty: `all - image` is all of a text-only prompt.
    left, right = set(view.all(x.left)), set(view.all(x.right))
    return sorted(left | right if x.op == "|" else left & right if x.op == "&" else left - right)


def _shift(x: s.Shift, view: _View) -> list[int]:
    return [_moved(p + x.k, x, view) for p in view.some(x.of)]


def _edge(x: s.Edge, view: _View) -> list[int]:
    found = view.some(x.of)
    if not found:
        return []
    at = {"first": min(found), "last": max(found), "next": max(found) + 1, "prev": min(found) - 1}[x.edge]
    return [_moved(at, x, view)]


def _moved(p: int, x: s.Selector, view: _View) -> int:
    if not 0 <= p < view.n:
        raise PositionError(f"{x} would be position {p}; there are only 0 to {view.n - 1}")
    return p


def _hole(x: s.Hole, view: _View) -> list[int]:
    raise PositionError(f"{x} has no value here: it is Python, evaluated in the notebook that it was written in")


def _parts(x: s.Split, view: _View) -> list[list[int]]:
    """The parts of a split, none of them empty."""
    if isinstance(x.at, s.TokenText):
        pivots = find_text(view.tokens, view.example, x.at)
    else:
        pivots = [(p, p + 1) for p in sorted(view.some(x.at))]
    cut = {"right": lambda a, b: (a, a), "left": lambda a, b: (b, b), "drop": lambda a, b: (a, b)}[x.keep]
    edges = [0, *(edge for a, b in pivots for edge in cut(a, b)), view.n]
    parts = [list(range(start, stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return [part for part in parts if part]


def _part(x: s.Part, view: _View) -> list[int]:
    parts = _parts(x.of, view)
    if not -len(parts) <= x.n < len(parts):
        raise PositionError(f"{x}: the split makes {len(parts)} part{'s' * (len(parts) != 1)}")
    return parts[x.n]


def _groups(x: s.Selector, view: _View) -> list[list[int]]:
    if isinstance(x, s.Mark):
        view.all(x)  # raises for an unknown or circular mark
        return _groups(view.marks[x.name], view)
    if isinstance(x, s.Split):
        return _parts(x, view)
    if isinstance(x, s.Each):
        if isinstance(x.of, s.Several):
            return [view.some(item) for item in x.of.items]
        return _parts(x.of, view) if isinstance(x.of, s.Split) else [[p] for p in view.some(x.of)]
    return [view.some(x)]


def _why_empty(x: s.Selector, view: _View) -> str:
    """Why a selection is empty, in words that say what there is instead."""
    roles = view.tokens.roles[view.example]
    name = x.name if isinstance(x, s.Role) else ""
    if name in ("image", "boi", "eoi") and "image" not in roles:
        return f"@{name}: there are no image tokens, the prompt is text only"
    if name in s.OF_IMAGES and (n := len(image_places(view.tokens, view.example) if name == "image" else
                                         view.all(s.Role(name)))):
        return f"@{x}: there {'is' if n == 1 else 'are'} {n} of @{name}, counted from 0"
    if name in ("boi", "eoi"):
        return f"@{name}: no such marker is known here; use image.first, image.last, image.prev or image.next"
    if name == "bos":
        return "@bos: the prompt does not start with a bos token"
    if name == "new":
        return "@new: there are no generated tokens, only the prompt"
    return f"@{x} selects nothing; there are {view.n} tokens"


_RULES: dict[type, Callable[[Any, _View], list[int]]] = {
    s.All: lambda x, view: list(range(view.n)),
    s.Index: _index,
    s.Slice: lambda x, view: list(range(view.n))[x.start : x.stop : x.step],
    s.Ends: _ends,
    s.Several: _several,
    s.Role: _role,
    s.ImageLine: _image_line,
    s.Mark: _mark,
    s.TokenText: _token_text,
    s.Span: _span,
    s.TurnOf: _turn,
    s.Mask: _mask,
    s.Sample: _sample,
    s.SetOp: _set_op,
    s.Shift: _shift,
    s.Edge: _edge,
    s.Each: lambda x, view: view.some(x.of),
    s.Split: lambda x, view: [p for part in _parts(x, view) for p in part],
    s.Part: _part,
    s.Hole: _hole,
}
