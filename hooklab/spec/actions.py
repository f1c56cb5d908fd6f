"""Lines that read, change and show something, and `Run`, which holds them."""

from __future__ import annotations

from dataclasses import dataclass

from .declarations import Statement
from .parts import At, AtEach, Expr, Name, Opts, Py, Target, Where, Word


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
    """Read the stream, what is written to it, or heads, through the unembedding."""

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
