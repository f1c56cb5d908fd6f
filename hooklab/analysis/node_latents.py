"""Active features of dictionaries as nodes: part of `hl.analysis.nodes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..address import Place
from ..compiler.plan.spots import Spot
from ..model import ports
from ..model.writes import norm_behind
from ..runtime.trace import places
from ..sae import SAE, attach
from ..sites import SITES
from .attribute import AttributionError
from .node_parts import Part, Pass
from .node_table import Kind
from .units import opened, stream_writes


def _place(seen: Pass, name: str) -> Place:
    """The site that a dictionary reads. Raises AttributionError when it is not one of vectors in one place."""
    address = seen.saes[name][1]
    found = places(seen.model, [address])
    if len(found) != 1 or found[0].neurons is not None or len(SITES[found[0].site].axes) != 3:
        raise AttributionError(f"{name}: a dictionary reads the vectors of one site, such as L2.resid_mid, not {address}")
    return found[0]


def spots(seen: Pass) -> list[Spot]:
    """The sites that dictionaries read, before the end."""
    found = [Spot(place.site, place.layer) for place in (_place(seen, name) for name in seen.saes)]
    return [spot for spot in found if spot.order <= seen.end.order]


def parts(seen: Pass) -> Iterator[Part]:
    """The active features of every dictionary."""
    for name in seen.saes:
        place = _place(seen, name)
        if Spot(place.site, place.layer).order <= seen.end.order:
            yield _active(seen, name, place)


def _active(seen: Pass, name: str, place: Place) -> Part:
    """Every feature that is not 0, at every position."""
    sae, spot = attach(seen.saes[name][0]), Spot(place.site, place.layer)
    x, grad = seen.values[spot], seen.grads[spot]
    with torch.no_grad():
        z = ports.wide(sae.encode(x)).to(x)
    feature, pos = z.T.nonzero(as_tuple=True)
    units = feature.unique()
    row = torch.searchsorted(units, feature)
    rows = opened(sae, units.tolist())[2] if len(units) else torch.zeros(0, x.shape[-1])
    stream = stream_writes(seen.model, place, rows, norm=False)[0]
    rows, amount = rows.to(x), z[pos, feature] * _scale(sae, x)[pos]  # amount: how much of a row is written

    def along(vectors: Tensor, goal: Tensor) -> Tensor:
        return amount * (goal @ vectors.to(x).T)[pos, row]

    carried = _carried(seen, place, x)  # [pos d_model] or [pos 1]
    numbers = {"activation": lambda: z[pos, feature], "act_grad": lambda: along(rows, grad)}
    if stream is not None:
        numbers |= {"write_norm": lambda: amount.abs() * (stream.to(x)[row] * carried[pos]).norm(dim=-1),
                    "direct_effect": lambda: along(stream, carried * seen.goal)}
    layer, none = (np.full(len(feature), number) for number in (-1 if place.layer is None else place.layer, -1))
    cells = np.stack([layer, feature.cpu().numpy(), pos.cpu().numpy(), none], 1).astype(np.int64)
    return Part(Kind("latents", name + ".F{unit}"), cells, numbers)


def _carried(seen: Pass, place: Place, x: Tensor) -> Tensor:
    """What the norm behind the MLP, if there is one, multiplies writes by."""
    if place.site != "mlp_post" or place.layer is None or norm_behind(seen.model, place.layer, "mlp_out") is None:
        return torch.ones_like(x[:, :1])
    out, bias = (ports.wide(part[place.layer]).to(x) for part in (seen.model.W.Out, seen.model.W.b_Out))
    return seen.carried(place.layer, "mlp_out", x @ out + bias)


def _scale(sae: Any, x: Tensor) -> Tensor:
    """What an input's own scale multiplies the decoder's rows by, beside the dictionary's one scale, [pos]."""
    if not isinstance(sae, SAE) or not sae.restore or sae.norm == "none":
        return torch.ones(len(x)).to(x)
    with torch.no_grad():
        return (sae.prepared(x).back.factor * sae.scale).to(x).reshape(-1).expand(len(x))


__all__ = ["parts", "spots"]
