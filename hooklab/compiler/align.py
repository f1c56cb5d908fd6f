"""Positions of one prompt matched with those of another: by name, by index, or by token."""

from __future__ import annotations

import difflib
from typing import Any

from .context import Context
from .plan.reaches import Spread


def all_positions(ctx: Context, prompt: str) -> Spread:
    """Every position of every example."""
    return tuple(tuple(range(n)) for n in ctx.tokens(prompt).lengths)


def alignment(ctx: Context, how: str, source: str, target: str, wanted: Spread, where: Any) -> Spread:
    """For each wanted position of the target prompt, the position of the source prompt that answers to it."""
    theirs, ours = ctx.tokens(source), ctx.tokens(target)
    found = []
    for example, row in enumerate(wanted):
        other = example if len(theirs) > 1 else 0
        n = theirs.lengths[other]
        if how == "token":
            found.append(_by_token(ctx, theirs.ids[other], ours.ids[example], row, ours.pieces[example], where))
            continue
        if how == "name" and n != ours.lengths[example]:
            raise ctx.fail("value", f"{source} has {n} tokens and {target} has {ours.lengths[example]}", where,
                           f"name a position that both have (@last), or say how they match: align=token\n"
                           f"  {source}: {_shown(theirs, other)}\n  {target}: {_shown(ours, example)}")
        if row and max(row) >= n:
            raise ctx.fail("value", f"{source} has no position {max(row)}", where,
                           f"  {source}: {_shown(theirs, other)}\n  {target}: {_shown(ours, example)}")
        found.append(row)
    return tuple(found)


def _by_token(ctx: Context, theirs: tuple[int, ...], ours: tuple[int, ...], row: tuple[int, ...], pieces: Any,
              where: Any) -> tuple[int, ...]:
    """Positions with the same token, in the longest common order; all of them must have a partner."""
    matched: dict[int, int] = {}
    for a, b, size in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        matched.update((a + i, b + i) for i in range(size))
    lost = [p for p in row if p not in matched]
    if lost:
        raise ctx.fail("value", "no token answers to " + ", ".join(f"{p}:{pieces[p]!r}" for p in lost[:4]), where,
                       "name positions that both prompts share")
    return tuple(matched[p] for p in row)


def check_counts(ctx: Context, source: str, chosen: Spread, target: str, wanted: Spread, where: Any) -> None:
    """Refuse a position that means different numbers of tokens in the two prompts."""
    theirs, ours = ctx.tokens(source), ctx.tokens(target)
    for example, row in enumerate(wanted):
        other = example if len(chosen) > 1 else 0
        count = len(chosen[other]) if other < len(chosen) else 0
        if count != len(row):
            raise ctx.fail("value", f"the position is {count} tokens in {source} and {len(row)} in {target}", where,
                           f"name positions of the same number\n  {source}: {_shown(theirs, other)}\n"
                           f"  {target}: {_shown(ours, example)}")


def check_keys(ctx: Context, source: str, target: str, align: str | None, where: Any) -> None:
    """Refuse to carry attention between prompts of other lengths: the keys of a row are positions as well."""
    theirs, ours = ctx.tokens(source), ctx.tokens(target)
    for example in range(len(ours)):
        other = example if len(theirs) > 1 else 0
        if theirs.lengths[other] != ours.lengths[example]:
            raise ctx.fail("value", f"attention over {theirs.lengths[other]} keys in {source} does not fit the "
                           f"{ours.lengths[example]} of {target}", where,
                           "take prompts of one length, or patch the head's output\n"
                           f"  {source}: {_shown(theirs, other)}\n  {target}: {_shown(ours, example)}")
    if align == "token":
        raise ctx.fail("value", "align=token moves queries but not keys", where, "leave it out, or patch the head's output")


def _shown(tokens: Any, example: int) -> str:
    return " ".join(f"{i}:{piece!r}" for i, piece in enumerate(tokens.pieces[example][:40]))
