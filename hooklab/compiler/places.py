"""Targets to spots: which layers, heads and units a place of the spec means on this model, together or one at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from ..sites import MODEL_SITES, SITES
from ..spec import ast
from .context import Context, Env
from .dictionaries import attached, written_into
from .given_places import from_python
from .indices import index, several
from .plan.cells import Axis
from .plan.spots import Spot
from .spot_sets import single, subtract


@dataclass(frozen=True)
class Choice:
    """Places, perhaps one at a time: `cells[index]` are the spots of one point of the axes, in row-major order."""

    axes: tuple[Axis, ...]
    cells: tuple[tuple[Spot, ...], ...]


class Sites:
    """Resolves the sites of one target; `default` says what a bare layer or head means."""

    def __init__(self, ctx: Context, env: Env, default: str | None = None) -> None:
        self.ctx, self.env, self.default = ctx, env, default

    def spots(self, where: ast.Where) -> list[Spot]:
        """A place as spots, one for each layer."""
        return [spot for cell in self._grid(where)[1].values() for spot in cell]

    def single(self, where: ast.Where) -> list[Spot]:
        """A place as spots of one head or unit each."""
        return [part for spot in self.spots(where) for part in single(spot)]

    def _grid(self, where: ast.Where) -> tuple[list[Axis], dict[tuple[int, ...], list[Spot]]]:
        """Spots by layer number; the axes that the place was written with."""
        if isinstance(where, ast.Site):
            return self._site(where)
        if isinstance(where, ast.Feature):
            return self._feature(where)
        spots: list[Spot] = []
        for inner in self.inner(where):
            spots += self.spots(inner)
        return [], {(i,): [spot] for i, spot in enumerate(spots)}

    def inner(self, where: ast.Ref | ast.PySite) -> list[ast.Where]:
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
                found.append(replace(from_python(item), span=where.span))
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
        whole = Sites(ctx, {})
        base = attached(whole, sae.site)
        features = None
        if where.feature != "*":
            features = index(ctx, where.feature, ctx.world.sae_size(where.sae), "feature",
                             self.env, where)
        return [], {(): [replace(base, sae=where.sae, features=features, into=written_into(whole, sae))]}

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
            features = first.features or tuple(range(self.ctx.world.sae_size(where.sae)))
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


def _as_site(spot: Spot) -> ast.Site:
    return ast.Site(spot.site, spot.layer, spot.heads, None, spot.units)


def _text(layer: Any) -> str:
    return str(layer) if isinstance(layer, (int, str)) else "5"
