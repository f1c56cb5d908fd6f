"""Targets to spots: which layers, heads, units and positions a place of the spec means on this model."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..address import check_index
from ..address import parse as parse_address
from ..errors import HooklabError, LayerError, SiteError
from ..positions import groups, resolve
from ..positions import select as s
from ..sites import MODEL_SITES, SITES
from ..spec import ast
from .context import Context, Stop
from .plan import Axis, Reach, Spot, Spread

Env = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Places, perhaps one at a time: `cells[index]` are the spots of one point of the axes, in row-major order."""

    axes: tuple[Axis, ...]
    cells: tuple[tuple[Spot, ...], ...]


def index(ctx: Context, given: ast.Index, size: int | None, word: str, env: Env, where: Any) -> tuple[int, ...]:
    """The numbers that an index names among `size` things."""
    with ctx.catch(where):
        if size is None:
            raise LayerError(f"this model has no {word}s")
        found: list[int] = []
        for item in given if isinstance(given, tuple) else (given,):
            found += _item(ctx, item, size, word, env, where)
        return tuple(dict.fromkeys(found))
    raise Stop


def _item(ctx: Context, item: int | str, size: int, word: str, env: Env, where: Any) -> list[int]:
    if isinstance(item, str) and item.startswith("$"):
        if item[1:] not in env:
            raise ctx.fail("name", f"{item[1:]!r} is no sweep variable", where,
                           f"declare it above: sweep {item[1:]} in 0:{size}")
        item = env[item[1:]]
    if isinstance(item, int):
        return [check_index(item, size, word)]
    if item == "*":
        return list(range(size))
    if not isinstance(item, str):
        raise LayerError(f"{item!r} is no {word} number")
    chosen = list(range(size))[slice(*(int(part) if part else None for part in item.split(":")))]
    if not chosen:
        raise LayerError(f"{word} range {item} names none of the {size} {word}s")
    return chosen


def several(given: ast.Index | None) -> bool:
    """Whether an index was written as more than one thing: it makes an axis."""
    return given is not None and not isinstance(given, int) and not (
        isinstance(given, tuple) and len(given) == 1 and (isinstance(given[0], int) or str(given[0]).startswith("$")))


class Sites:
    """Resolves the sites of one target; `default` says what a bare layer or head means."""

    def __init__(self, ctx: Context, env: Env, default: str | None = None) -> None:
        self.ctx, self.env, self.default = ctx, env, default

    def spots(self, where: ast.Where) -> list[Spot]:
        """A place as spots, one for each layer."""
        return [spot for cell in self._grid(where)[1].values() for spot in cell]

    def single(self, where: ast.Where) -> list[Spot]:
        """A place as spots of one head or unit each."""
        return [part for spot in self.spots(where) for part in _split(spot, where)]

    def _grid(self, where: ast.Where) -> tuple[list[Axis], dict[tuple[int, ...], list[Spot]]]:
        """Spots by layer number; the axes that the place was written with."""
        if isinstance(where, ast.Site):
            return self._site(where)
        if isinstance(where, ast.Feature):
            return self._feature(where)
        spots: list[Spot] = []
        for inner in self._inner(where):
            spots += self.spots(inner)
        return [], {(i,): [spot] for i, spot in enumerate(spots)}

    def _inner(self, where: ast.Ref | ast.PySite) -> list[ast.Where]:
        """What a group, or Python, stands for."""
        ctx = self.ctx
        if isinstance(where, ast.Ref):
            group = ctx.groups.get(where.group)
            if group is None:
                raise ctx.fail("name", f"there is no place {where.group!r}", where, "name a site such as L5.resid_post, "
                               "or declare a group: group movers = L9H9, L9H6")
            if not group.target.excluding:
                return list(group.target.sites)
            spots = [spot for w in group.target.sites for spot in self.spots(w)]
            return [_as_site(spot) for spot in self.without(spots, group.target)]
        value = ctx.given(where.source, where)
        items = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        found: list[ast.Where] = []
        for item in items:
            with ctx.catch(where, "value"):
                found.append(_from_python(item))
        if not found:
            raise ctx.fail("value", f"{{{where.source}}} names no place", where)
        return found

    def _site(self, site: ast.Site) -> tuple[list[Axis], dict[tuple[int, ...], list[Spot]]]:
        ctx, facts = self.ctx, self.ctx.world.facts
        comp = site.comp or self._comp(site)
        reason = ctx.world.missing(comp)
        if reason is not None:
            raise ctx.fail("model", reason, site)
        axes = SITES[comp].axes
        units = self._units(site, comp)
        if comp in MODEL_SITES:
            return [], {(): [Spot(comp, None, None, units)]}
        layers = index(ctx, site.layer if site.layer is not None else "*", facts.n_layers, "layer", self.env, site)
        heads = None
        if site.head is not None:
            kv = "kv_head" in axes
            size = facts.n_kv_heads if kv else facts.n_heads
            heads = index(ctx, site.head, size, "kv_head" if kv else "head", self.env, site)
        found = [Axis("layer", layers)] if several(site.layer) else []
        return found, {(layer,): [Spot(comp, layer, heads, units)] for layer in layers}

    def _comp(self, site: ast.Site) -> str:
        if self.default is not None:
            return self.default
        if site.head is not None:
            return "result"
        if site.neuron is not None:
            return "mlp_post"
        raise self.ctx.fail("syntax", "this names a layer but no site", site, f"write L{_text(site.layer)}.resid_post, say")

    def _units(self, site: ast.Site, comp: str) -> tuple[int, ...] | None:
        facts, axes = self.ctx.world.facts, SITES[comp].axes
        if site.neuron is not None:
            return index(self.ctx, site.neuron, facts.d_mlp, "neuron", self.env, site)
        if site.dims is None:
            return None
        size = getattr(facts, axes[-1], None)
        if size is None:
            raise self.ctx.fail("value", f"{comp} has no dimensions to choose from (its axes are {' '.join(axes)})", site,
                                "positions are chosen with @")
        return index(self.ctx, site.dims, size, "dimension", self.env, site)

    def _feature(self, where: ast.Feature) -> tuple[list[Axis], dict[tuple[int, ...], list[Spot]]]:
        ctx = self.ctx
        if where.sae not in ctx.saes:
            raise ctx.fail("name", f"there is no dictionary {where.sae!r}", where,
                           f"attach one: sae {where.sae} = {{my_sae}} at L8.resid_pre")
        sae = ctx.saes[where.sae]
        base = self.spots(sae.site)
        if len(base) != 1:
            raise ctx.fail("value", "a dictionary is attached to one layer", sae.site, "write L8.resid_pre")
        features = None
        if where.feature != "*":
            features = index(ctx, where.feature, ctx.world.sae_size(where.sae), "feature",  # type: ignore[attr-defined]
                             self.env, where)
        return [], {(): [replace(base[0], sae=where.sae, features=features)]}

    # Targets

    def choice(self, target: ast.Target, window: int | None = None) -> Choice:
        """The places of a target: all together, or one at a time; `window` adds the layers around the one at hand."""
        if window is not None and not _one_layer(target):
            raise self.ctx.fail("value", "window= widens a sweep over the layers of one site, and this is none", target,
                                "write each L*.mlp_out … window=3")
        if not target.each:
            spots = [spot for where in target.sites for spot in self.spots(where)]
            if window is not None:
                spots = self._around(spots[0], window)
            return Choice((), (tuple(self.without(spots, target)),))
        if len(target.sites) == 1 and not target.excluding and isinstance(target.sites[0], (ast.Site, ast.Feature)):
            return self._product(target.sites[0], window)
        parts = self.without([part for where in target.sites for part in self.single(where)], target)
        return Choice((Axis("site", tuple(map(str, parts))),), tuple((part,) for part in parts))

    def without(self, spots: list[Spot], target: ast.Target) -> list[Spot]:
        """Spots less those that a target excepts; an exception that names nothing of them is a problem."""
        ctx = self.ctx
        for where in target.excluding:
            if getattr(where, "at", None) is not None:
                raise ctx.fail("value", "an exception is a place, without a position", where,
                               "give the position to what stands before except")
            # `except L0H1` means that head of whatever is acted on.
            bare = isinstance(where, ast.Ref) or (isinstance(where, ast.Site) and where.comp is None)
            comps = list(dict.fromkeys(spot.site for spot in spots)) if bare else [self.default]
            if isinstance(where, ast.Ref):
                comps = [comp for comp in comps if "head" in SITES[str(comp)].axes] or [self.default]
            gone = [spot for comp in comps for spot in self._excepted(where, comp)]
            left = subtract(spots, gone, ctx.world.facts)
            if left == spots:
                raise ctx.fail("value", "this takes nothing away from what stands before except", where)
            spots = left
        if not spots:
            raise ctx.fail("value", "nothing is left after except", target)
        return spots

    def _excepted(self, where: ast.Where, comp: str | None) -> list[Spot]:
        """The spots of one exception; one that a site has no such part of takes nothing from it."""
        if isinstance(where, ast.Site) and where.comp is None and comp is not None:
            axes = SITES[comp].axes
            if (where.head is not None and not {"head", "kv_head"} & set(axes)) or (
                    where.neuron is not None and "d_mlp" not in axes):
                return []
        return Sites(self.ctx, self.env, comp).spots(where)

    def _product(self, where: ast.Site | ast.Feature, window: int | None) -> Choice:
        """One site, by layer and by head or unit."""
        axes, by_layer = self._grid(where)
        spots = {key: cell[0] for key, cell in by_layer.items()}
        first = next(iter(spots.values()))
        kv = "kv_head" if "kv_head" in first.axes else "head"
        inner: list[tuple[str, str, tuple[int, ...]]] = []
        if isinstance(where, ast.Site) and first.heads is not None and several(where.head):
            inner.append((kv, "heads", first.heads))
        if isinstance(where, ast.Site) and first.units is not None:
            inner.append(("neuron" if where.neuron is not None else first.axes[-1], "units", first.units))
        if isinstance(where, ast.Feature):
            features = first.features or tuple(range(self.ctx.world.sae_size(where.sae)))  # type: ignore[attr-defined]
            inner.append(("feature", "features", features))
        cells: list[tuple[Spot, ...]] = []
        for key in spots:
            around = [spots[key]] if window is None else self._around(spots[key], window)
            for picked in itertools.product(*(numbers for _, _, numbers in inner)):
                changes: dict[str, Any] = {name: (n,) for (_, name, _), n in zip(inner, picked, strict=True)}
                cells.append(tuple(replace(spot, **changes) for spot in around))
        return Choice((*axes, *(Axis(name, numbers) for name, _, numbers in inner)), tuple(cells))


    def _around(self, spot: Spot, window: int) -> list[Spot]:
        """The same spot in the layers around its own."""
        assert spot.layer is not None
        low = spot.layer - window // 2
        layers = range(max(0, low), min(self.ctx.world.facts.n_layers, low + window))
        return [replace(spot, layer=layer) for layer in layers]


def _one_layer(target: ast.Target) -> bool:
    """Whether a target is one site, in one layer at a time."""
    site = target.sites[0]
    if len(target.sites) != 1 or target.excluding or not isinstance(site, ast.Site) or site.layer is None:
        return False
    return target.each or not several(site.layer)


def together(spots: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """Spots that act together, each place once: heads, or units, of one site are joined.

    >>> [str(spot) for spot in together((Spot("z", 0, (1,)), Spot("z", 1), Spot("z", 0, (1, 2))))]
    ['L0H[1,2].z', 'L1.z']
    """
    found: dict[Any, Spot] = {}
    for spot in spots:
        # What is narrowed in two ways at once is joined with its like only.
        shape = (spot.units, spot.features) if spot.heads is not None else ((), ())
        key = (spot.site, spot.layer, spot.sae, shape if spot.units or spot.features else None)
        known = found.get(key)
        found[key] = spot if known is None else replace(
            known, heads=_joined(known.heads, spot.heads), units=_joined(known.units, spot.units),
            features=_joined(known.features, spot.features))
    made = list(found.values())
    return tuple(spot for spot in made if not any(other is not spot and _covers(other, spot) for other in made))


def _covers(a: Spot, b: Spot) -> bool:
    """Whether one spot holds all of another."""
    return (a.site, a.layer, a.sae) == (b.site, b.layer, b.sae) and all(
        whole is None or (part is not None and set(part) <= set(whole))
        for whole, part in ((a.heads, b.heads), (a.units, b.units), (a.features, b.features)))


def _joined(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if a is None or b is None else tuple(dict.fromkeys((*a, *b)))


def _split(spot: Spot, where: Any) -> list[Spot]:
    parts = [spot]
    if spot.heads is not None:
        parts = [replace(part, heads=(n,)) for part in parts for n in spot.heads]
    if spot.units is not None:
        parts = [replace(part, units=(n,)) for part in parts for n in spot.units]
    if spot.features is not None:
        parts = [replace(part, features=(n,)) for part in parts for n in spot.features]
    return parts


def subtract(spots: list[Spot], gone: list[Spot], facts: Any) -> list[Spot]:
    """Spots less others: whole ones, or some heads or units of them."""
    for out in gone:
        left = []
        for spot in spots:
            if (spot.site, spot.layer, spot.sae) != (out.site, out.layer, out.sae):
                left.append(spot)
                continue
            rest = _less(spot, out, facts)
            if rest is not None:
                left.append(rest)
        spots = left
    return spots


def _less(spot: Spot, out: Spot, facts: Any) -> Spot | None:
    """One spot without the heads, units or features of another; None when nothing is left."""
    axes = SITES[spot.site].axes
    sizes = {"heads": facts.n_kv_heads if "kv_head" in axes else facts.n_heads, "units": getattr(facts, axes[-1], 0),
             "features": 0}
    for name, size in sizes.items():
        mine, theirs = getattr(spot, name), getattr(out, name)
        if theirs is None:
            continue
        kept = tuple(n for n in (mine if mine is not None else range(size)) if n not in theirs)
        changed: dict[str, Any] = {name: kept}
        return replace(spot, **changed) if kept else None
    return None


def _as_site(spot: Spot) -> ast.Site:
    return ast.Site(spot.site, spot.layer, spot.heads, None, spot.units)


def _from_python(item: Any) -> ast.Where:
    """A place that Python computed: an address, or a pair (layer, head)."""
    if isinstance(item, str):
        parsed = parse_address(item)
        site = ast.Site(parsed.site, _index_text(parsed.layers), _index_text(parsed.heads), _index_text(parsed.neurons))
        return site
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(n, int) for n in item):
        return ast.Site("result", item[0], item[1])
    if isinstance(item, dict) and isinstance(item.get("layer"), int) and isinstance(item.get("head"), int):
        return ast.Site("result", item["layer"], item["head"])
    if isinstance(item, tuple) and item and isinstance(item[0], dict):  # what Scores.top gives
        return _from_python(item[0])
    raise SiteError(f'{reprlib.repr(item)} is no place; give addresses such as "L9H6" or pairs (layer, head)')


def _index_text(text: str | None) -> ast.Index | None:
    if text is None:
        return None
    if text.startswith("["):
        return tuple(int(p) if p.strip().lstrip("-").isdigit() else p.strip() for p in text[1:-1].split(","))
    return int(text) if text.lstrip("-").isdigit() else text


def _text(layer: Any) -> str:
    return str(layer) if isinstance(layer, (int, str)) else "5"


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


# Positions ---------------------------------------------------------------------------------------------------------


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
