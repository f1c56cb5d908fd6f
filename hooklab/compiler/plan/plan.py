"""The plan itself: every run of a spec, in an order that can be run, with the prompts and values that they use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .claims import Claim
from .runs import RunPlan
from .spots import Spot
from .views import View


@dataclass(frozen=True, repr=False)
class Plan:
    """A compiled spec.

    Attributes:
        text: The spec as text.
        runs: In an order in which each comes after those that it needs.
        prompts: Prompt name -> the input, ready for the model.
        saes: Name -> (source, site).
        values: Python source -> its value.
        claims, views: The `expect` and `show` lines.
        seed: What random numbers derive from.
        about: The model, as the compiler knows it.
    """

    text: str
    runs: tuple[RunPlan, ...]
    prompts: dict[str, Any]
    saes: dict[str, tuple[Any, Spot]]
    values: dict[str, Any]
    claims: tuple[Claim, ...]
    views: tuple[View, ...]
    seed: int
    about: Any = None

    def run(self, name: str) -> RunPlan:
        """The run of a name."""
        return next(run for run in self.runs if run.name == name)

    def __str__(self) -> str:
        from ..describe import describe

        return describe(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
