"""Spots: a site of one layer, or a part of it, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ...address import Place
from ...sites import SITES


@dataclass(frozen=True)
class Spot:
    """One site of one layer, or a part of it.

    Attributes:
        heads: Which heads; None for all, or for a site without heads.
        units: Which entries of the last axis: neurons, or dimensions of the stream; None for all.
        sae: Name of the dictionary whose `features` are meant, encoded from this site.
        into: Where its features are written, if a run holds them beside the site: for a transcoder, and where the error is
            dropped. None for a dictionary that adds its changes to the site that it reads.
    """

    site: str
    layer: int | None = None
    heads: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None
    sae: str | None = None
    features: tuple[int, ...] | None = None
    into: tuple[str, int | None] | None = None

    @property
    def written(self) -> Spot:
        """The whole site that an edit of this place changes."""
        return Spot(*(self.into or (self.site, self.layer)))

    @property
    def whole(self) -> Place:
        """The site that this is a part of."""
        return Place(self.site, self.layer)

    @property
    def key(self) -> str:
        """The address of the whole site."""
        return self.whole.key

    @property
    def order(self) -> tuple[int, int]:
        """The order in which a forward pass comes by."""
        return self.whole.order

    @property
    def axes(self) -> tuple[str, ...]:
        """Axis words of the value."""
        axes = SITES[self.site].axes
        return (*axes[:-1], "feature") if self.sae else axes

    def __str__(self) -> str:
        if self.sae is not None:
            return f"{self.sae}.F{_picked(self.features)}"
        neurons = SITES[self.site].axes[-1] == "d_mlp" and self.units is not None
        place = Place(self.site, self.layer, self.heads, self.units if neurons else None)
        return str(place) + ("" if neurons or self.units is None else f"[{','.join(map(str, self.units))}]")


def _picked(numbers: tuple[int, ...] | None) -> str:
    if numbers is None:
        return "*"
    return str(numbers[0]) if len(numbers) == 1 else f"[{','.join(map(str, numbers))}]"
