"""`generate` lines: what may stand in their options, whoever computed it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..errors import HooklabWarning
from ..spec import ast
from .context import Context
from .options import options
from .plan.runs import Writing


def _number(low: float, high: float = float("inf"), *, open_: bool = False) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        """Whether a value is a number within the bounds."""
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        return known and (low < value if open_ else low <= value) and value <= high

    return fits


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def _texts(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, str) and item for item in value))


FITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (_number(0), "a number from 0 up"),
    "top_k": (_whole(1), "a whole number from 1 up"),
    "top_p": (_number(0, 1, open_=True), "a number above 0, up to 1"),
    "samples": (_whole(1), "a whole number from 1 up"),
    "seed": (_whole(0), "a whole number"),
    "stop": (_texts, "a text, or a list of texts"),
    "stream": (lambda value: isinstance(value, bool), "true or false"),
}


def writing(ctx: Context, statements: list[ast.Generate], prompt: str) -> Writing | None:
    """The one `generate` line of a run, checked; None when it has none."""
    if not statements:
        return None
    statement = statements[-1]
    if len(statements) > 1:
        raise ctx.fail("value", "a run writes on once, and this is its second generate", statement,
                       "write each in a run of its own")
    if not ctx.world.facts.causal or ctx.world.missing("logits"):
        raise ctx.fail("model", "this model cannot write on: it does not predict the next token", statement)
    longest, room = max(ctx.tokens(prompt).lengths), ctx.world.facts.n_ctx
    if room and longest + statement.count - 1 > room:
        raise ctx.fail("value", f"{longest} tokens and {statement.count} more do not fit: this model has {room} positions",
                       statement, f"write at most generate {max(0, room - longest + 1)}")
    opts = options(ctx, statement.opts, "generate")
    for opt in statement.opts:
        fits, wanted = FITS[opt.name]
        if not fits(opts[opt.name]):
            raise ctx.fail("value", f"{opt.name}= takes {wanted}, not {opts[opt.name]!r}", opt,
                           "a sweep variable cannot stand here" if str(opts[opt.name]) in ctx.sweeps else "")
    if "seed" in opts and not draws(opts):
        warnings.warn("generate takes the likeliest token each time, so seed= changes nothing; temperature= draws.",
                      HooklabWarning, stacklevel=2)
    return Writing(statement.count, tuple(opts.items()), statement.span)


def draws(opts: dict[str, Any]) -> bool:
    """Whether tokens are drawn: a temperature above 0, or without one, an option that only draws make sense of."""
    temperature = opts.get("temperature")
    if temperature is not None:
        return bool(temperature > 0)
    return "top_k" in opts or "top_p" in opts or int(opts.get("samples", 1)) > 1
