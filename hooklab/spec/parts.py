"""What statements are made of: values, arithmetic, sites and positions, each a frozen node that knows where it stood.

Values and places hold each other (`prob(" a") @last`, `scale L5.mlp by L3.resid`), so they live together. `ast` is where
everybody else imports them from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..positions.select import Selector

Index = int | str | tuple[int | str, ...]


@dataclass(frozen=True)
class Span:
    """A stretch of text; lines and columns count from 1, the end is excluded."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class Node:
    """Base of everything in a spec."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


# What: values and arithmetic ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Num(Node):
    """A number."""

    value: int | float


@dataclass(frozen=True)
class Str(Node):
    """Quoted text."""

    value: str


@dataclass(frozen=True)
class Word(Node):
    """A bare word as the value of an option: `renorm=false`."""

    id: str


@dataclass(frozen=True)
class Py(Node):
    """Python between braces, as source; it is a value only where somebody gives it one."""

    source: str


@dataclass(frozen=True)
class Name(Node):
    """A bare name in a value: a `let`, a sweep variable, a run or a prompt, or `sigma`."""

    id: str


@dataclass(frozen=True)
class Attr(Node):
    """A metric of a run: `baseline.logit_diff`."""

    run: str
    name: str


@dataclass(frozen=True)
class List(Node):
    """Several values: `[0, 2, 4]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Call(Node):
    """A function of values, perhaps read at positions: `prob(" a") @last`."""

    name: str
    args: tuple[Expr, ...] = ()
    named: tuple[Opt, ...] = ()
    at: Place | None = None


@dataclass(frozen=True)
class Binary(Node):
    """`left op right`, with op one of + - * /."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Neg(Node):
    """`-of`."""

    of: Expr


@dataclass(frozen=True)
class EachValue(Node):
    """`each [0, 1, 2]`: one value at a time, an axis of the result."""

    values: List | Py


@dataclass(frozen=True)
class Range(Node):
    """Whole numbers from a slice: `sweep l in 0:12`."""

    text: str


@dataclass(frozen=True)
class Opt(Node):
    """`name=value` at the end of a line."""

    name: str
    value: Expr


# Where: sites and positions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class At(Node):
    """Positions, all of them together."""

    pos: Selector


@dataclass(frozen=True)
class AtEach(Node):
    """Positions one at a time; all of them when `pos` is None."""

    pos: Selector | None = None


@dataclass(frozen=True)
class Site(Node):
    """A site: `L0:6H[0,2].z[3,7] @last`, perhaps of a named run.

    `comp` is a name of the glossary, or None where only layers and heads were named (`L9H6`): the verb decides then.
    """

    comp: str | None
    layer: Index | None = None
    head: Index | None = None
    neuron: Index | None = None
    dims: Index | None = None
    run: str | None = None
    at: Place | None = None


@dataclass(frozen=True)
class Feature(Node):
    """Features of an attached dictionary: `enc.F[1024,2087] @all`."""

    sae: str
    feature: Index
    run: str | None = None
    at: Place | None = None


@dataclass(frozen=True)
class Ref(Node):
    """A named group used as a place."""

    group: str
    at: Place | None = None


@dataclass(frozen=True)
class PySite(Node):
    """Places computed in Python: `{heads.top(3)} @last`."""

    source: str
    at: Place | None = None


@dataclass(frozen=True)
class Target(Node):
    """Where a verb acts: `each A, B except C -> D`."""

    sites: tuple[Where, ...]
    each: bool = False
    excluding: tuple[Where, ...] = ()
    to: Site | Feature | At | AtEach | None = None


Place = At | AtEach
Where = Site | Feature | Ref | PySite
Expr = Num | Str | Word | Py | Name | Attr | List | Call | Binary | Neg | EachValue | Range | Site | Feature
Opts = tuple[Opt, ...]
