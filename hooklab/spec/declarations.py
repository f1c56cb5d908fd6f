"""Lines that say what there is: prompts, names, values, metrics, claims; and `Statement`, the base of every line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..positions.select import Selector
from .parts import Call, Expr, List, Node, Opts, Py, PySite, Range, Site, Str, Target


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
    """A dictionary of features, attached to a site; a transcoder reads there and writes `to` another."""

    verb = "sae"
    name: str
    source: Py | Str
    site: Site | PySite
    to: Site | PySite | None = None
    opts: Opts = ()


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
