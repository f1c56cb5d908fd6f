"""Positions: the tokens that an `@` means in each example of a prompt."""

from __future__ import annotations

from typing import Any

from ..errors import HooklabError, LayerError
from ..positions import groups, resolve
from ..positions import select as s
from ..spec import ast
from .context import Context, Env, Stop
from .plan.reaches import Reach, Spread


def place_of(ctx: Context, target: ast.Target) -> ast.Place | None:
    """The positions of a target, on which all of its places must agree; a group's own count where it is named bare."""
    found: list[ast.Place | None] = []
    for where in target.sites:
        if isinstance(where, ast.Ref) and where.at is None and where.group in ctx.groups:
            found.append(place_of(ctx, ctx.groups[where.group].target))
        else:
            found.append(where.at)
    if len(set(found)) > 1:
        raise ctx.fail("value", "these places name different positions", target,
                       "give each its own line, or the same @ to all")
    return found[0]


def spread(ctx: Context, selector: Any, prompt: str, env: Env, where: Any) -> Spread:
    """The positions that a selector means in each example of a prompt."""
    key = ("spread", selector, prompt, tuple(env.items()))
    return ctx.once(key, lambda: _spread(ctx, selector, prompt, env, where))


def _spread(ctx: Context, selector: Any, prompt: str, env: Env, where: Any) -> Spread:
    with ctx.catch(where):
        try:
            found = resolve(ctx.filled(selector, where), ctx.tokens(prompt), marks=ctx.marks_of(prompt, env))
        except HooklabError as error:
            raise type(error)(f"in prompt {prompt}: {error}" if len(ctx.inputs) > 1 else str(error)) from None
        return tuple(tuple(row) for row in found)
    raise Stop


def spread_groups(ctx: Context, at: ast.AtEach, prompt: str, env: Env) -> tuple[tuple[Spread, ...], tuple[str, ...]]:
    """The groups of positions that are taken one at a time, and their labels."""
    key = ("groups", at, prompt, tuple(env.items()))
    return ctx.once(key, lambda: _groups(ctx, at, prompt, env))


def _groups(ctx: Context, at: ast.AtEach, prompt: str, env: Env) -> tuple[tuple[Spread, ...], tuple[str, ...]]:
    tokens = ctx.tokens(prompt)
    selector = s.Each(ctx.filled(at.pos, at)) if at.pos is not None else s.Each()
    with ctx.catch(at):
        found = groups(selector, tokens, marks=ctx.marks_of(prompt, env))
        counts = {len(row) for row in found}
        if len(counts) > 1:
            longest = ", ".join(f"{len(row)} in example {i}" for i, row in enumerate(found[:6]))
            raise LayerError(f"@each makes different numbers of positions: {longest}. Use prompts of one length, or "
                             f"name what they share: @each[subject, last]")
        n = counts.pop()
        cells = tuple(tuple(tuple(row[i]) for row in found) for i in range(n))
        return cells, tuple(_label(tokens, found, i, at) for i in range(n))
    raise Stop


def _label(tokens: Any, found: list[list[list[int]]], i: int, at: ast.AtEach) -> str:
    if isinstance(at.pos, s.Several):
        return str(at.pos.items[i])
    group = found[0][i]
    same = all(row[i] == group and [tokens.pieces[e][p] for p in row[i]] == [tokens.pieces[0][p] for p in group]
               for e, row in enumerate(found))
    name = f"{group[0]}" if len(group) == 1 else f"{group[0]}:{group[-1] + 1}"
    return f"{name}: {''.join(tokens.pieces[0][p] for p in group).strip()}" if same else name


def reach(ctx: Context, at: ast.At | None, prompt: str, env: Env, *, writing: bool) -> Reach:
    """The tokens that an `@` means; without one, all of them."""
    if at is None or at.pos == s.All():
        return Reach(None, True, True)  # new tokens too, if this run or one stacked on it writes any
    pos = at.pos
    if pos == s.Role("prompt"):
        return Reach(None, True, False)
    if pos == s.Role("new"):
        if not writing:
            raise ctx.fail("value", "@new are tokens that are written on, and this run writes none", at,
                           "add a line: generate 20")
        return Reach(None, False, True)
    return Reach(spread(ctx, pos, prompt, env, at))
