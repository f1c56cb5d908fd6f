"""What a writer is given, fitted to the sites of its store: checked, without padding, in the type that is stored.

In: the values of an example, or of a batch. Out: a `Piece` per site. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import RecordError, did_you_mean
from .index import Row
from .layout import DTYPES, Layout, Piece, checked_axes, piece
from .room import Room

if TYPE_CHECKING:
    from ...tokens import Tokens


def fitted(kept: Row, values: Mapping[str, Tensor], sites: Mapping[str, Layout],
           positions: Sequence[int] | Mapping[str, Sequence[int]] | None, room: Room, *,
           copy: bool) -> tuple[dict[str, Layout], dict[str, Piece]]:
    """The sites, with sizes and types that the first example settles, and the piece of each.

    Args:
        kept: The example.
        values: The value of every site.
        sites: What a store holds.
        positions: Which tokens the rows belong to: for all sites that have positions, by site, or None for all tokens.
        room: Where values are copied to.
        copy: Whether all of them are; otherwise those that can go to the disk from where they are, are left there.

    Raises:
        RecordError: a value is missing, belongs to no site, or does not fit its layout.
    """
    sites = dict(sites)
    if unknown := [site for site in values if site not in sites]:
        raise RecordError(f"{unknown[0]} is not stored here.{did_you_mean(unknown[0], sites)} There are "
                          f"{', '.join(sites)}")
    if missing := [site for site in sites if site not in values]:
        raise RecordError(f"example {kept.id!r} lacks {', '.join(missing)}: every example has every site")
    if isinstance(positions, Mapping) and (odd := [site for site in positions if site not in sites]):
        raise RecordError(f"positions of {odd[0]}, which is not stored here.{did_you_mean(odd[0], sites)}")
    pieces = {}
    for site, layout in sites.items():
        value = values[site]
        checked_axes(site, layout, value)
        if layout.sizes is None or layout.dtype is None:
            sites[site] = layout = layout.settled(value)
        at = positions.get(site) if isinstance(positions, Mapping) else positions
        place = partial(room.take, site)
        if not copy and _stays(value, DTYPES[str(layout.dtype)]):
            value = value.detach() if value.requires_grad else value
            place = partial(_itself, value)
        try:
            pieces[site] = piece(site, layout, value, None if kept.tokens is None else len(kept.tokens), at, place)
        except RecordError as error:
            raise RecordError(f"example {kept.id!r}: {error}") from None
    return sites, pieces


def unpadded(site: str, layout: Layout | None, values: Tensor | Sequence[Tensor], tokens: Tokens, i: int) -> Tensor:
    """The value of the i-th example of a batch, without the padding of `tokens`.

    Raises:
        RecordError: the batch is not as wide as its tokens.
    """
    value = values[i]
    if layout is None or not isinstance(values, Tensor) or value.ndim != len(layout.axes):
        return value  # fitted says what is wrong, if anything is
    start, n = tokens.column(i, 0), tokens.lengths[i]
    for axis, word in enumerate(layout.axes):
        if word in ("pos", "query_pos", "key_pos"):
            if value.shape[axis] != tokens.width:
                raise RecordError(f"{site} has {value.shape[axis]} {word} for a batch padded to {tokens.width}: give "
                                  "one tensor per example, each with add(…, positions=…)")
            value = value.narrow(axis, start, n)
    return value


def _stays(value: Tensor, dtype: torch.dtype) -> bool:
    """Whether a value can go to the disk from where it is."""
    return (value.device.type == "cpu" and value.layout == torch.strided and value.dtype == dtype and value.is_contiguous()
            and not value.is_neg())


def _itself(value: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The room for a value that is not copied: where it is."""
    return value
