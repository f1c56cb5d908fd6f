"""What is known of each feature after a stream of activations: how often, how strongly and when last it was active.

    stats = FeatureStats(sae.n_features)
    for x in batches:
        stats.add(sae.encode(x))
    stats.frequency, stats.dead(after=100_000)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ModelError


class FeatureStats:
    """Statistics of features over examples, batch by batch; how the stream was cut into batches makes no difference.

    >>> stats = FeatureStats(2).add(torch.tensor([[0.0, 1.0], [0.0, 3.0]])).add(torch.tensor([[0.0, 0.0]]))
    >>> stats.frequency.tolist(), stats.since.tolist(), stats.dead().tolist()
    ([0.0, 0.6666666666666666], [3, 1], [True, False])

    Attributes:
        count: Examples so far.
        active: [feature], examples in which each was not 0.
        total: [feature], sum of its values (float64).
        squares: [feature], sum of their squares.
        last: [feature], the latest example in which it was active, counted from 0; -1 where there was none.
        highest: [rank feature], its largest values; -inf where there were fewer examples.
        where: [rank feature], in which examples those were, the earlier first among equal ones; -1 likewise.
    """

    def __init__(self, n_features: int, top: int = 1) -> None:
        self.count = 0
        self.active = torch.zeros(n_features, dtype=torch.long)
        self.total = torch.zeros(n_features, dtype=torch.float64)
        self.squares = torch.zeros(n_features, dtype=torch.float64)
        self.last = torch.full((n_features,), -1)
        self.highest = torch.full((top, n_features), -torch.inf)
        self.where = torch.full((top, n_features), -1)

    def add(self, features: Tensor, mask: Tensor | None = None) -> FeatureStats:
        """Take in more features, [… feature], in the order of their axes. Returns itself.

        Args:
            features: [… feature].
            mask: [… ], which examples count; padding should not.

        Raises:
            ModelError: another number of features, a mask that does not fit, or a value that is no finite number; nothing
                of the batch is counted.
        """
        features = features.detach()
        if features.shape[-1:] != self.active.shape:
            raise ModelError(f"these statistics are of {len(self.active)} features, not of shape {tuple(features.shape)}")
        rows = features.reshape(-1, features.shape[-1])
        if mask is not None:
            if mask.shape != features.shape[:-1]:
                raise ModelError(f"a mask of {tuple(features.shape[:-1])} examples was expected, not {tuple(mask.shape)}")
            rows = rows[mask.reshape(-1).bool().to(rows.device)]
        if not len(rows):
            return self
        if not bool(rows.isfinite().all()):
            raise ModelError("the batch holds what is not a finite number")
        self._count(rows)
        self._extremes(rows)
        self.count += len(rows)
        return self

    def _count(self, rows: Tensor) -> None:
        active = rows != 0
        wide = rows.double()
        self.active += active.sum(0).cpu()
        self.total += wide.sum(0).cpu()
        self.squares += wide.square().sum(0).cpu()
        place = torch.arange(1, len(rows) + 1, device=rows.device)[:, None]
        latest = (active * place).amax(0).cpu()
        self.last = torch.where(latest > 0, self.count + latest - 1, self.last)

    def _extremes(self, rows: Tensor) -> None:
        """Merge the batch's largest values in, one rank at a time."""
        left = torch.cat([self.highest, rows.float().cpu()])
        names = torch.cat([self.where, (self.count + torch.arange(len(rows)))[:, None].expand(-1, rows.shape[1])])
        high, where = [], []
        column = torch.arange(rows.shape[1])
        for _ in range(len(self.highest)):
            value = left.amax(0)
            first = torch.where(left == value, torch.arange(len(left))[:, None], len(left)).amin(0)
            high.append(value)
            where.append(torch.where(value == -torch.inf, -1, names[first, column]))
            left[first, column] = -torch.inf
        self.highest, self.where = torch.stack(high), torch.stack(where)

    @property
    def frequency(self) -> Tensor:
        """[feature], the share of examples in which each was active (float64)."""
        return self.active.double() / max(self.count, 1)

    @property
    def mean(self) -> Tensor:
        """[feature], over all examples."""
        return self.total / max(self.count, 1)

    @property
    def mean_square(self) -> Tensor:
        """[feature], over all examples."""
        return self.squares / max(self.count, 1)

    @property
    def maximum(self) -> Tensor:
        """[feature], the largest value; -inf before any example."""
        return self.highest[0]

    @property
    def since(self) -> Tensor:
        """[feature], examples since each was last active; `count` where it never was."""
        return self.count - 1 - self.last

    def dead(self, after: int | None = None) -> Tensor:
        """[feature], which were not active in the last `after` examples; by default in any.

        Raises:
            ModelError: fewer examples than that have been seen, so nothing can be said.
        """
        if self.count == 0 or (after is not None and not 1 <= after <= self.count):
            raise ModelError(f"{self.count} examples cannot tell which features were silent for {after or 'all'} of them")
        return self.since >= (self.count if after is None else after)

    def tensors(self) -> dict[str, Tensor]:
        """What `SAE.statistics` keeps: frequency, mean_square, maximum and examples since last active."""
        return {"frequency": self.frequency, "mean_square": self.mean_square, "maximum": self.maximum.clone(),
                "last_active": self.since}
