"""Dictionaries: where an autoencoder reads and writes, and whether runs go on without what it misses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..sites import SITES
from ..spec import ast
from .context import Context
from .options import options
from .plan.spots import Spot

if TYPE_CHECKING:
    from .places import Sites


def attached(sites: Sites, end: ast.Site | ast.PySite) -> Spot:
    """The one whole site at which a dictionary reads, or to which it writes."""
    ctx = sites.ctx
    inner = sites.inner(end) if isinstance(end, ast.PySite) else [end]
    if any(isinstance(where, ast.Feature) for where in inner):
        raise ctx.fail("value", "a dictionary is attached to a site, not to a feature", end, 'give an address such as '
                       '"L8.resid_pre"')
    found = [spot for where in inner for spot in sites.spots(where)]
    if len(found) != 1:
        raise ctx.fail("value", "a dictionary is attached to one layer", end, "write L8.resid_pre")
    if isinstance(end, ast.PySite) and (found[0].heads is not None or found[0].units is not None
                                        or len(SITES[found[0].site].axes) != 3):
        raise ctx.fail("value", f"a dictionary reads a whole vector of the stream, not {found[0]}", end,
                       'give an address such as "L8.resid_pre"')
    return found[0]


def written_into(sites: Sites, sae: ast.Sae) -> tuple[str, int | None] | None:
    """Where a run writes the features that it holds beside a site; None for a dictionary that only adds to its own site."""
    ctx = sites.ctx
    spots = [attached(sites, site) for site in (sae.site, sae.to) if site is not None]
    read, write = spots[0], spots[-1]
    if sae.to is not None and write.order <= read.order:
        raise ctx.fail("value", f"{write} is not after {read}: a transcoder reads first and writes later", sae.to,
                       f"write at {write} to {read}" if write.order < read.order else "leave `to` out")
    misfit = getattr(ctx.world, "sae_misfit", lambda *_: None)(sae.name, read.site, write.site)
    if misfit is not None:
        raise ctx.fail("value", misfit, sae.to or sae.site, "attach it where it was trained; a transcoder, from the site "
                       "that it reads to the one that it writes: at L3.ln2 to L3.mlp_out")
    return (write.site, write.layer) if sae.to is not None or drops(ctx, sae) else None


def drops(ctx: Context, sae: ast.Sae) -> bool:
    """Whether runs go on with what a dictionary's features stand for alone."""
    error = options(ctx, sae.opts, "sae").get("error", "keep")
    if error not in ("keep", "drop"):
        raise ctx.fail("value", f"error= is keep or drop, not {error!r}", next(iter(sae.opts)))
    return bool(error == "drop")
