"""Features that a pass holds from where they are read to where they are written: transcoders, and errors that are dropped.

A dictionary that keeps the error at its own site needs nothing of this: each line reads the site as it stands and adds what
its change of the features writes. Here features are read once, every line changes what is held, and the site that they are
written to gets each change; with the error dropped it is first set to what all of them stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..sae.opening import decoded, encoded
from .store import Store, trouble

if TYPE_CHECKING:
    from .apply import Task


class Spliced:
    """The features of one dictionary in one pass. As a task it reads them, for every row and column of its site."""

    def __init__(self, sae: Any, name: str) -> None:
        self.sae, self.name = sae, name
        self.read: Tensor | None = None
        self.features: Tensor | None = None

    def __call__(self, value: Tensor, step: int = 0, offset: int = 0, where: Any = None) -> None:
        """Hold the features of `value` [batch pos d]."""
        self.read = value.clone()
        self.features = encoded(self.sae, self.read)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Features of some entries, [entry feature]."""
        assert self.features is not None
        return self.features[rows, columns]

    def stands_for(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the features of some entries stand for, in place of `x` [entry d]."""
        assert self.read is not None
        out = decoded(self.sae, self.at(rows, columns), self.read[rows, columns])
        self._check(out, x)
        return out

    def moved(self, x: Tensor, rows: Tensor, columns: Tensor, after: Tensor) -> Tensor:
        """`x` [entry d] once the features of its entries are `after`, which are held from now on."""
        assert self.read is not None and self.features is not None
        try:
            new: Tensor = self.sae.changed(x, self.at(rows, columns), after, like=self.read[rows, columns])
        except RuntimeError:
            self._check(decoded(self.sae, after, self.read[rows, columns]), x)
            raise
        self.features = self.features.index_put((rows.to(after.device), columns.to(after.device)), after)
        return new

    def _check(self, out: Tensor, x: Tensor) -> None:
        if out.shape != x.shape:
            raise trouble(f"the dictionary {self.name} writes vectors of {out.shape[-1]}, and its site has {x.shape[-1]}",
                          hint="a transcoder reads one site and writes to another: sae tc = {my_transcoder} at L3.ln2 to "
                               "L3.mlp_out")


def hold_features(store: Store, by_place: dict[tuple[str, int | None], list[Task]]) -> None:
    """Give tasks on features that are held what holds them, and put its reading before them.

    A transcoder reads its site after every line on it; where a dictionary is written to the site that it reads, it reads
    what the model has put there, before any line.
    """
    held: dict[str, Spliced] = {}
    for task in [task for tasks in by_place.values() for task in tasks]:
        spot = task.spot
        if spot.sae is None or spot.into is None:
            continue
        if spot.sae not in held:
            one = held[spot.sae] = Spliced(store.saes[spot.sae], spot.sae)
            own = spot.into == (spot.site, spot.layer)
            tasks = by_place.setdefault((spot.site, spot.layer), [])
            tasks.insert(0 if own else len(tasks), one)  # type: ignore[arg-type]
        task.spliced = held[spot.sae]


__all__ = ["Spliced", "hold_features"]
