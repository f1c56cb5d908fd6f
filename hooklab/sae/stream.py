"""The batches that a training reads, one after the other, whatever hands them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError

Pair = tuple[Tensor, Tensor]
Batches = Iterable[Any] | Callable[[int], Iterable[Any]]


class _Ended(ModelError):
    """There is no further batch."""


class Stream:
    """Batches as pairs (input [batch d_in], target [batch d_out]) in float32; the same tensor twice where one was given.

    Args:
        batches: An iterable of tensors [… d], or of pairs for a transcoder. One that can be gone through again (a list, a
            loader) is, when it ends. Or a function from the number of a batch to an iterable that starts with it.
        start: How many batches to pass over.
    """

    def __init__(self, batches: Batches, start: int = 0) -> None:
        self.batches, self._read = batches, start
        self._ahead: list[Pair] = []
        called = callable(batches)
        self._now: Iterator[Any] = iter(batches(start) if called else batches)  # type: ignore[operator, arg-type]
        for _ in range(0 if called else start):
            self._raw()

    def ahead(self, examples: int, most: int = 32) -> Tensor:
        """The first inputs, at least so many or `most` batches of them; they are handed out all the same."""
        while sum(len(x) for x, _ in self._ahead) < examples and len(self._ahead) < most:
            try:
                self._ahead.append(self._pair())
            except _Ended:
                if not self._ahead:
                    raise
                break
        sizes = {(x.shape[-1], y.shape[-1]) for x, y in self._ahead}
        if len(sizes) > 1:
            raise ModelError(f"batches are of one size, and now of several: {', '.join(map(str, sorted(sizes)))}")
        return torch.cat([x for x, _ in self._ahead])

    @property
    def paired(self) -> bool:
        """Whether, as far as was looked ahead, targets are others than inputs."""
        return any(x is not y for x, y in self._ahead)

    def targets(self) -> Tensor:
        """The targets of what `ahead` looked at."""
        return torch.cat([y for _, y in self._ahead])

    def next(self) -> Pair:
        """The next batch. Raises ModelError where there is none, or it cannot be trained on."""
        return self._ahead.pop(0) if self._ahead else self._pair()

    def _raw(self) -> Any:
        try:
            return next(self._now)
        except StopIteration:
            pass
        again = None if callable(self.batches) else iter(self.batches)
        if again is not None and again is not self._now:
            self._now = again
            for found in again:
                return found
        raise _Ended("the batches have come to an end before the training: give more of them, fewer steps, or a list, "
                         "which is gone through again")

    def _pair(self) -> Pair:
        found, number = self._raw(), self._read
        self._read += 1
        pair = tuple(found) if isinstance(found, tuple | list) else (found, found)
        if len(pair) != 2 or not all(isinstance(t, Tensor) and t.ndim >= 1 for t in pair):
            raise ModelError("a batch is a tensor [… d] of activations, or a pair for a transcoder: input and target")
        x = _plain(pair[0])
        y = x if pair[1] is pair[0] else _plain(pair[1])
        if len(x) != len(y) or not len(x):
            raise ModelError(f"batch {number} has {len(x)} inputs and {len(y)} targets")
        if not bool(x.isfinite().all() and y.isfinite().all()):
            raise ModelError(f"batch {number} holds what is not a finite number")
        return x, y


def _plain(t: Tensor) -> Tensor:
    """[example d] in float32, free of any graph."""
    with torch.inference_mode(False):
        t = t.clone() if t.is_inference() else t.detach()
        return t.reshape(-1, t.shape[-1]).to(torch.float32)
