"""The words of the language as data: a `Spec` is a tuple of frozen statements, each of frozen parts.

Every node knows where it stood in the text (`span`), which is no part of what it means: two nodes that say the same
thing are equal wherever they were written. Indices stay as JSON would hold them: `5`, `"*"`, `"5:9"`, or a tuple of
those and of sweep variables, `(7, "0:3", "$l")`. Positions are the selectors of `hooklab.positions`.

>>> Zero(Target((Site("result", layer=9, head=6),))).target.sites[0].layer
9
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..positions.select import Selector

VERSION = 1

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


# Statements --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement(Node):
    """A line. `verb` is the word that it starts with."""

    verb: ClassVar[str]


@dataclass(frozen=True)
class Header(Statement):
    """The version of the language that the rest is written in."""

    verb = "hookspec"
    version: int


@dataclass(frozen=True)
class ModelName(Statement):
    """The model that the spec is for."""

    verb = "model"
    name: str
    opts: Opts = ()


@dataclass(frozen=True)
class Prompt(Statement):
    """An input: text, texts, ids, chat messages, or generated."""

    verb = "prompt"
    name: str | None
    value: Str | List | Py | Call
    opts: Opts = ()


@dataclass(frozen=True)
class Mark(Statement):
    """A name for positions, resolved in every prompt, or in one."""

    verb = "mark"
    name: str
    pos: Selector
    prompt: str | None = None


@dataclass(frozen=True)
class Answer(Statement):
    """The right next token, and the wrong one."""

    verb = "answer"
    value: Str | List | Py | Call
    against: Str | List | Py | Call | None = None


@dataclass(frozen=True)
class Sae(Statement):
    """A dictionary of features, attached to a site."""

    verb = "sae"
    name: str
    source: Py | Str
    site: Site


@dataclass(frozen=True)
class Let(Statement):
    """A name for a value."""

    verb = "let"
    name: str
    value: Expr


@dataclass(frozen=True)
class Group(Statement):
    """A name for places."""

    verb = "group"
    name: str
    target: Target


@dataclass(frozen=True)
class Sweep(Statement):
    """A variable that takes several values, an axis of every run that uses it."""

    verb = "sweep"
    name: str
    values: List | Range | Py


@dataclass(frozen=True)
class Seed(Statement):
    """The seed that all randomness derives from."""

    verb = "seed"
    value: int


@dataclass(frozen=True)
class Metric(Statement):
    """A number computed from the logits of every run."""

    verb = "metric"
    name: str | None
    value: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Expect(Statement):
    """A claim that is checked when everything has run."""

    verb = "expect"
    left: Expr
    op: str
    right: Expr


@dataclass(frozen=True)
class Save(Statement):
    """Keep activations."""

    verb = "save"
    target: Target
    name: str | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Zero(Statement):
    """Set to zero."""

    verb = "zero"
    target: Target
    opts: Opts = ()


@dataclass(frozen=True)
class Ablate(Statement):
    """Replace by zero, a mean, or another example's value."""

    verb = "ablate"
    target: Target
    method: str | None = None
    over: Name | Py | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Patch(Statement):
    """Replace by another run's value."""

    verb = "patch"
    target: Target
    source: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Freeze(Statement):
    """Hold at the value of the untouched run, or of another."""

    verb = "freeze"
    target: Target
    to: str | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Steer(Statement):
    """Add a vector."""

    verb = "steer"
    target: Target
    amount: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Scale(Statement):
    """Multiply."""

    verb = "scale"
    target: Target
    amount: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Set(Statement):
    """Replace by a value."""

    verb = "set"
    target: Target
    amount: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Clamp(Statement):
    """Keep between two bounds."""

    verb = "clamp"
    target: Target
    opts: Opts = ()


@dataclass(frozen=True)
class ProjectOut(Statement):
    """Remove the component along a direction."""

    verb = "project_out"
    target: Target
    along: Expr
    opts: Opts = ()


@dataclass(frozen=True)
class Noise(Statement):
    """Add Gaussian noise of a given standard deviation."""

    verb = "noise"
    target: Target
    amount: Expr | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Cut(Statement):
    """Remove attention edges, from key positions to query positions."""

    verb = "cut"
    target: Target
    opts: Opts = ()


@dataclass(frozen=True)
class Attribute(Statement):
    """Say how much each place contributes to a metric."""

    verb = "attribute"
    target: Target
    metric: str | None = None
    method: str | None = None
    source: str | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Score(Statement):
    """Rate attention heads."""

    verb = "score"
    target: Target
    method: Word | Py
    opts: Opts = ()


@dataclass(frozen=True)
class Lens(Statement):
    """Read the stream through the unembedding."""

    verb = "lens"
    target: Target | At | AtEach | None = None
    opts: Opts = ()


@dataclass(frozen=True)
class Generate(Statement):
    """Write on, token by token."""

    verb = "generate"
    count: int
    opts: Opts = ()


@dataclass(frozen=True)
class Show(Statement):
    """Draw a view of the result."""

    verb = "show"
    view: str
    count: int | None = None
    sites: tuple[Where, ...] = ()
    opts: Opts = ()


@dataclass(frozen=True)
class Run(Statement):
    """A named pass over a prompt, or on top of another run, with its own verbs."""

    verb = "run"
    name: str | None
    on: str
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Spec:
    """A whole experiment.

    Attributes:
        body: The statements, in the order written.
        text: What it was parsed from, comments included; None for one that was built.
    """

    body: tuple[Statement, ...]
    text: str | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        from .printer import to_text

        return to_text(self)

    def to_json(self) -> dict[str, Any]:
        """The spec as plain data for `json.dumps`; `hooklab.spec.schema` describes it."""
        from .jsonform import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> Spec:
        """Read what `to_json` made, or the same as JSON text.

        Raises:
            SpecError: it is no spec, or one of a newer version of the language.
        """
        from .jsonform import from_json

        return from_json(data)


STATEMENTS: dict[str, type[Statement]] = {
    kind.verb: kind for kind in Statement.__subclasses__()
}
