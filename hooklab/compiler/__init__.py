"""Spec and model facts to plan, with no torch in sight; `compile_spec` is the one thing to call.

    compile ─▶ runs ─┬▶ sweeps ─▶ statements, paths ─┐
                     ├▶ reads ─▶ attributions, aims ─┼▶ places, positions, lower (values and metrics)
                     └▶ keeps, writing               ┘

`plan/` is what comes out; `packing/` says where the cells of its sweeps depart from a pass that they share.
"""

from .compile import compile_spec
from .plan.plan import Plan

__all__ = ["Plan", "compile_spec"]
