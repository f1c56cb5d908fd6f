"""What an `attribute` line attributes to when it is no metric: one activation of the run, as a number for each example.

    target="L5H2.pattern[7,3]"     how much query 7 attends to key 3
    target="L3N17 @last"           a neuron; so too a dimension, L3.resid_post[5], and a feature, enc.F12
    target={aim}                   aim = (place, direction), (place, function) or (place, dictionary, feature)

Without a position it is the last one, as for metrics; a function is given every position then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..families import PARALLEL
from ..positions import positions as selector
from ..problems import SpecError
from ..sites import SITES
from ..spec import ast
from ..spec.parser import read
from .context import Context
from .places import Sites
from .plan.reaches import Spread
from .plan.runs import RunPlan
from .plan.spots import Spot
from .positions import spread

ATTENTION = ("scores", "pattern")
FORMS = 'write target="L5H2.pattern[7,3]", target="L3N17 @last", or a place with a direction or a function in braces'
BESIDE: dict[str, tuple[str, ...]] = {
    "embed": ("pos_embed",), "q": ("k", "v", "rot_k"), "k": ("v", "rot_q"), "v": ("rot_q", "rot_k", "scores", "pattern"),
    "rot_q": ("rot_k",), "mlp_pre": ("mlp_pre_linear",)}
"""Sites that come later in the same layer and are not computed from this one."""
IN_ATTENTION = ("q", "k", "v", "rot_q", "rot_k", "scores", "pattern", "z", "result", "attn_out")
IN_MLP = ("ln2_scale", "ln2", "mlp_pre", "mlp_pre_linear", "mlp_post", "mlp_out")


@dataclass(frozen=True)
class Aim:
    """An activation as the target of attribution.

    Attributes:
        name: As it was written.
        spot: The site, narrowed to a head, a neuron, a dimension or a feature.
        at: Positions for each example (of attention: queries); None for all of them.
        keys: Of attention: the key positions.
        given: Source of the Python that says how to make a number of it; None where it is one.
    """

    name: str
    spot: Spot
    at: Spread | None
    keys: Spread | None = None
    given: str | None = None


def aim(ctx: Context, run: RunPlan, statement: ast.Attribute, value: Any, at: Spread | None, *, each: bool,
        spots: tuple[Spot, ...]) -> Aim:
    """The target of a line, checked against the places that are attributed to it."""
    opt = next(opt for opt in statement.opts if opt.name == "target")
    found = _aim(ctx, run, opt, value)
    for spot in spots:
        if comes_later(ctx, spot, found.spot):
            raise ctx.fail("value", f"{spot} has no influence on {found.name}: it comes after it, or beside it", opt,
                           f"attribute places before {found.spot}")
    if ctx.world.facts.causal and not each and at is not None and found.at is not None and all(
            min(mine) > max(theirs) for mine, theirs in zip(at, found.at, strict=True)):
        raise ctx.fail("value", f"{found.name} is at an earlier token than the places: they have no influence on it", opt,
                       "name tokens before it, or leave the @ out")
    return found


def comes_later(ctx: Context, spot: Spot, target: Spot) -> bool:
    """Whether a place cannot matter to a target, whatever the weights."""
    if (spot.site, spot.layer) == (target.site, target.layer):
        return False
    if spot.order > target.order:
        return True
    if spot.layer != target.layer:
        return False
    apart = target.site in BESIDE.get(spot.site, ())
    if PARALLEL not in (ctx.world.missing("resid_mid") or ""):
        return apart
    own_norm = spot.site in ("ln1", "ln1_scale") and ctx.world.missing("ln2") is None
    return apart or (target.site in IN_MLP and (spot.site in IN_ATTENTION or own_norm))


# Reading it --------------------------------------------------------------------------------------------------------


def _aim(ctx: Context, run: RunPlan, opt: ast.Opt, value: Any) -> Aim:
    parts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not parts or not isinstance(parts[0], str) or len(parts) > 3:
        raise ctx.fail("value", f"a {type(value).__name__} is no target", opt, FORMS)
    site = _site(ctx, opt, parts[0])
    given = opt.value.source if isinstance(opt.value, ast.Py) and len(parts) > 1 else None
    if given is not None:
        _check_given(ctx, opt, parts)
    name = parts[0] if len(parts) < 3 else f"{parts[0]} F{parts[2]}"
    called = len(parts) == 2 and callable(parts[1])
    if isinstance(site, ast.Site) and (site.comp in ATTENTION):
        return _edge(ctx, run, opt, site, name, given)
    spot = _one(ctx, opt, Sites(ctx, {}).spots(site))
    if given is None and not _is_number(ctx, spot):
        raise ctx.fail("value", f"{name} is no single number", opt, FORMS)
    return Aim(name, spot, _at(ctx, run, opt, site, called=called), given=given)


def _site(ctx: Context, opt: ast.Opt, text: str) -> ast.Site | ast.Feature:
    """The place of a target, read as the language reads it."""
    try:
        found, problems = read(f"save {text}\n")
    except SpecError as error:
        found, problems = (), list(error.problems)
    target = getattr(found[0], "target", None) if len(found) == 1 and not problems else None
    if target is None or len(target.sites) != 1 or target.to is not None or target.excluding or target.each:
        said = f": {problems[0].message}" if problems else ""
        raise ctx.fail("value", f"{text!r} is no place to attribute to{said}", opt, FORMS)
    site = target.sites[0]
    if not isinstance(site, ast.Site | ast.Feature):
        raise ctx.fail("value", f"{text!r} is a name, and a target is one place", opt, FORMS)
    return site


def _check_given(ctx: Context, opt: ast.Opt, parts: tuple[Any, ...]) -> None:
    if len(parts) == 3:
        if not callable(getattr(parts[1], "encode", None)) or isinstance(parts[2], bool) or not isinstance(parts[2], int):
            raise ctx.fail("value", "a target of three is (place, dictionary, feature number)", opt, FORMS)
    elif not callable(parts[1]) and not hasattr(parts[1], "__array__"):
        raise ctx.fail("value", f"a place goes with a direction or a function, not with a {type(parts[1]).__name__}", opt,
                       FORMS)


def _one(ctx: Context, opt: ast.Opt, spots: list[Spot]) -> Spot:
    if len(spots) != 1:
        raise ctx.fail("value", f"a target is one place, and this names {len(spots)}", opt, "name one layer")
    return spots[0]


def _is_number(ctx: Context, spot: Spot) -> bool:
    """Whether a place is one number at each position."""
    axes = SITES[spot.site].axes
    if spot.sae is not None:
        return spot.features is not None and len(spot.features) == 1
    one_head = not {"head", "kv_head"} & set(axes) or (spot.heads is not None and len(spot.heads) == 1)
    return one_head and (axes[-1] == "one" or (spot.units is not None and len(spot.units) == 1))


def _at(ctx: Context, run: RunPlan, opt: ast.Opt, site: Any, *, called: bool) -> Spread | None:
    """One position for each example; the last where none is named."""
    if site.at is None:
        return None if called else _last(ctx, run)
    if isinstance(site.at, ast.AtEach):
        raise ctx.fail("value", "a target is one number, and @each makes many", opt, "write @last, say")
    found = spread(ctx, site.at.pos, run.prompt, {}, opt)
    if not called and any(len(row) != 1 for row in found):
        raise ctx.fail("value", f"a target is at one token, and this names {max(map(len, found))}", opt,
                       "write @last, or give a function that makes one number of them")
    return found


def _last(ctx: Context, run: RunPlan) -> Spread:
    return tuple((length - 1,) for length in ctx.tokens(run.prompt).lengths)


def _edge(ctx: Context, run: RunPlan, opt: ast.Opt, site: ast.Site, name: str, given: str | None) -> Aim:
    """A cell of attention: `L5H2.pattern[7,3]` is query 7, key 3."""
    spot = _one(ctx, opt, Sites(ctx, {}).spots(replace(site, dims=None, at=None)))
    if given is not None and site.dims is None:
        return Aim(name, spot, _at(ctx, run, opt, site, called=True), given=given)
    if not (spot.heads is not None and len(spot.heads) == 1) or site.at is not None or given is not None:
        raise ctx.fail("value", "a cell of attention is of one head, and its query and key are its position", opt, FORMS)
    cell = list(_numbers(site.dims))
    if len(cell) != 2:
        raise ctx.fail("value", f"{name} names {len(cell)} positions; a cell of attention has a query and a key", opt, FORMS)
    query, key = (spread(ctx, selector(number), run.prompt, {}, opt) for number in cell)
    if ctx.world.facts.causal and any(k[0] > q[0] for q, k in zip(query, key, strict=True)):
        raise ctx.fail("value", f"{name} is never attended to: its key comes after its query", opt,
                       "the query comes first: pattern[query, key]")
    return Aim(name, spot, query, key)


def _numbers(given: ast.Index | None) -> Iterator[int]:
    for item in given if isinstance(given, tuple) else () if given is None else (given,):
        if isinstance(item, int):
            yield item
