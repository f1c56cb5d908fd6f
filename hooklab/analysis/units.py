"""What a feature dashboard looks at: features of a dictionary, a site's own units, or directions. Part of `dashboard`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import Place, check_index
from ..errors import HooklabError
from ..model import ports
from ..model.writes import gained, norm_behind
from ..runtime.trace import places
from ..sae import SAE, Attached, Dictionary, attach
from ..sites import SITES
from ..spec.printer import quote

if TYPE_CHECKING:
    from ..model.model import Model

STREAM = ("embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites whose values stand in the stream: what a dictionary writes there reaches the unembedding as it is."""


class DashboardError(HooklabError, ValueError):
    """Features, texts or places of which no dashboard can be made."""


Read = Callable[[Tensor], Tensor]
"""From activations [… d] to features [… feature]."""


@dataclass(frozen=True)
class Units:
    """Features of a site: how to read them, [… d] to [… feature], and what each writes to the stream, [feature d_model]."""

    name: str
    word: str
    place: Place
    origin: str
    keys: tuple[int, ...]
    read: Read
    norms: Tensor
    writes: Tensor | None
    note: str = ""


def units_of(model: Model, source: Any, at: str | None, features: Iterable[int] | None) -> Units:
    address = source if at is None else at
    if at is None and not (isinstance(source, str) and _is_address(source)):
        raise DashboardError("say with at= which site the features read, such as at=\"L2.resid_post\"")
    found = places(model, [address])
    if len(found) != 1:
        raise DashboardError(f"{address} names {len(found)} sites: a dashboard looks at one")
    place = found[0]
    axes = SITES[place.site].axes
    if len(axes) != 3 or axes[-1] not in ("d_model", "d_mlp"):
        raise DashboardError(f"{place} has the axes {' '.join(axes)}: a dashboard takes sites of batch, pos and d_model or "
                             "d_mlp")
    width = int(getattr(model.facts, axes[-1]) or 0)
    if at is None:
        return _own(model, place, width, features)
    if place.neurons is not None:
        raise DashboardError(f"at={at!r} names single neurons: give the whole site, {place.key}")
    if isinstance(source, (Tensor, np.ndarray)):
        return _directions(model, place, width, torch.as_tensor(source).detach(), features)
    return _dictionary(model, place, width, source, features)


def _own(model: Model, place: Place, width: int, features: Iterable[int] | None) -> Units:
    """The units of a site itself: neurons, or dimensions of the stream."""
    word = "neuron" if SITES[place.site].axes[-1] == "d_mlp" else "dims"
    inside = list(place.neurons) if place.neurons is not None else None
    keys = _keys(features if features is not None else inside, width, word)
    picked = torch.tensor(keys)
    rows = torch.eye(width)[picked]
    writes, note = stream_writes(model, place, rows)
    norms = writes.norm(dim=-1) if writes is not None else torch.full((len(keys),), torch.nan)
    return Units(place.key, word, place, "", keys, lambda x: x[..., picked.to(x.device)], norms, writes, note)


def _directions(model: Model, place: Place, width: int, given: Tensor, features: Iterable[int] | None) -> Units:
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != width:
        raise DashboardError(f"directions of shape {tuple(given.shape)} do not fit {place}: give [{width}] or [feature "
                             f"{width}]")
    keys = _keys(features, len(given), "feature")
    rows = ports.wide(given[list(keys)])
    writes, note = stream_writes(model, place, rows)
    return Units(f"directions at {place.key}", "feature", place, "", keys,
                  lambda x: x @ rows.to(x).mT, rows.norm(dim=-1), writes, note)


def _dictionary(model: Model, place: Place, width: int, source: Any, features: Iterable[int] | None) -> Units:
    sae = attach(source)
    keys = _keys(features, sae.n_features, "feature")
    reads, read, rows, note = opened(sae, list(keys))
    if reads not in (None, width):
        raise DashboardError(f"the dictionary reads vectors of {reads}, and {place} has {width}: attach it where it was "
                             "trained")
    if rows.shape[-1] == width:
        writes, why = stream_writes(model, place, rows)
    else:
        writes, why = None, f"; it writes vectors of {rows.shape[-1]} elsewhere, so there are no logits"
    origin = quote(str(source)) if isinstance(source, (str, Path)) else "{sae}"
    return Units(f"dictionary at {place.key}", "feature", place, origin, keys, read, rows.norm(dim=-1), writes, note + why)


def opened(sae: SAE | Dictionary | Attached, picked: list[int]) -> tuple[int | None, Read, Tensor, str]:
    """How wide a dictionary's input is, how to read some features, what an activation of 1 adds, and a note."""
    if isinstance(sae, SAE):
        scaled = sae.restore and sae.norm != "none"
        rows = ports.wide(sae.decoder.detach()[picked]) / (sae.scale if sae.restore else 1)
        note = "; what is written has the scale of each input beside the decoder's row" if scaled else ""
        return sae.d_in, lambda x: sae.encode(x, picked), rows.cpu(), note
    if isinstance(sae, Dictionary):
        part = Dictionary(sae.w_enc[:, picked], sae.b_enc[picked], sae.w_dec[picked], sae.b_dec)
        return int(part.w_enc.shape[0]), part.encode, ports.wide(part.w_dec.detach()).cpu(), ""
    rows = torch.cat([_unit_writes(sae, picked[i:i + 256]) for i in range(0, len(picked), 256)])
    return None, lambda x: sae.encode(x)[..., picked], rows, ""


def _unit_writes(sae: Any, picked: list[int]) -> Tensor:
    """What an activation of 1 adds, feature by feature, [feature d]."""
    units = torch.zeros(len(picked) + 1, sae.n_features)
    units[torch.arange(len(picked)), picked] = 1
    decoded = ports.wide(sae.decode(units)).cpu()
    return decoded[:-1] - decoded[-1]


def stream_writes(model: Model, place: Place, rows: Tensor, *, norm: bool = True) -> tuple[Tensor | None, str]:
    """What the stream gets when a site changes by each row, [feature d_model]; None, and why, where it is not linear.

    `norm` has it go through a norm behind the MLP; what that divides by depends on the token, and is left out.
    """
    rows = ports.wide(rows).cpu()
    if place.site in STREAM:
        return rows, ""
    if place.site == "mlp_post" and place.layer is not None and model.W.missing("Out") is None:
        written = rows @ ports.wide(model.W.Out[place.layer]).cpu()
        if not norm or norm_behind(model, place.layer, "mlp_out") is None:
            return written, ""
        return gained(model, place.layer, "mlp_out", written).detach(), "; the norm behind the MLP divides it further"
    return None, f"; {place.site} does not write to the stream, so there are no logits"


def _keys(features: Iterable[int] | None, size: int, word: str) -> tuple[int, ...]:
    try:
        keys = tuple(range(size)) if features is None else tuple(check_index(index(one), size, word) for one in features)
    except TypeError as error:
        raise DashboardError(f"features are whole numbers: {error}") from None
    if not keys or len(set(keys)) < len(keys):
        raise DashboardError("features must be at least one, and each only once")
    return keys


def _is_address(text: str) -> bool:
    return text.startswith("L") or text in SITES
