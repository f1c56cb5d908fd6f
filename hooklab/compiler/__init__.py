"""Spec and model facts to plan, with no torch in sight; `compile_spec` is the one thing to call."""

from .compile import compile_spec
from .plan import Plan

__all__ = ["Plan", "compile_spec"]
