"""The words of the language as data: a `Spec` is a tuple of frozen statements, each of frozen parts.

Every node knows where it stood in the text (`span`), which is no part of what it means: two nodes that say the same
thing are equal wherever they were written. Indices stay as JSON would hold them: `5`, `"*"`, `"5:9"`, or a tuple of
those and of sweep variables, `(7, "0:3", "$l")`. Positions are the selectors of `hooklab.positions`.

>>> Zero(Target((Site("result", layer=9, head=6),))).target.sites[0].layer
9
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .actions import (
    Ablate,
    Attribute,
    Clamp,
    Cut,
    Freeze,
    Generate,
    Lens,
    Noise,
    Patch,
    ProjectOut,
    Run,
    Save,
    Scale,
    Score,
    Set,
    Show,
    Steer,
    Zero,
)
from .declarations import (
    Answer,
    Expect,
    Group,
    Header,
    Let,
    Mark,
    Metric,
    ModelName,
    Prompt,
    Sae,
    Seed,
    Statement,
    Sweep,
)
from .parts import (
    At,
    AtEach,
    Attr,
    Binary,
    Call,
    EachValue,
    Expr,
    Feature,
    Index,
    List,
    Name,
    Neg,
    Node,
    Num,
    Opt,
    Opts,
    Place,
    Py,
    PySite,
    Range,
    Ref,
    Site,
    Span,
    Str,
    Target,
    Where,
    Word,
)

if TYPE_CHECKING:
    from .freeze import Frozen

VERSION = 1


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

    def freeze(self, values: Mapping[str, Any]) -> Frozen:
        """The spec with values for its Python, by their source, so that it runs and can be stored without a notebook.

        Raises:
            SpecError: a hole has no value, a value has no hole, or a value cannot be stored.
        """
        from .freeze import freeze

        return freeze(self, values)


STATEMENTS: dict[str, type[Statement]] = {
    kind.verb: kind for kind in Statement.__subclasses__()
}

__all__ = [
    "STATEMENTS",
    "VERSION",
    "Ablate",
    "Answer",
    "At",
    "AtEach",
    "Attr",
    "Attribute",
    "Binary",
    "Call",
    "Clamp",
    "Cut",
    "EachValue",
    "Expect",
    "Expr",
    "Feature",
    "Freeze",
    "Generate",
    "Group",
    "Header",
    "Index",
    "Lens",
    "Let",
    "List",
    "Mark",
    "Metric",
    "ModelName",
    "Name",
    "Neg",
    "Node",
    "Noise",
    "Num",
    "Opt",
    "Opts",
    "Patch",
    "Place",
    "ProjectOut",
    "Prompt",
    "Py",
    "PySite",
    "Range",
    "Ref",
    "Run",
    "Sae",
    "Save",
    "Scale",
    "Score",
    "Seed",
    "Set",
    "Show",
    "Site",
    "Span",
    "Spec",
    "Statement",
    "Steer",
    "Str",
    "Sweep",
    "Target",
    "Where",
    "Word",
    "Zero",
]
