"""What comes too late in a run: a value asked for after the model had gone past it, an edit that it did not see."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor

from ..errors import HooklabWarning, TraceError


class OrderError(TraceError, OutOfOrderError):
    """A value asked for after the model had gone past it."""


@dataclass
class Handed:
    """A tensor that a block was given, to notice a change that comes too late."""

    tensor: weakref.ref[Tensor]
    version: int
    address: str


def too_late(name: str, last: str) -> str:
    """What to say of a site that was asked for too late, where `last` was the last one served before, or empty."""
    last = last if last != name else ""
    after = f" after {last}" if last else ""
    return (f"{name} was asked for{after}, but the model had already gone past it (or never came by). Inside a "
            f"trace, read and write in the order of the forward pass: put {name} before {last or 'later sites'}; "
            f"or use model.capture(...), where order does not matter.")


def warn_of_late_edits(handed: Iterable[Handed]) -> None:
    """Warn of tensors that a block changed in place after the model had gone past them."""
    for one in handed:
        tensor = one.tensor()
        if tensor is not None and tensor._version != one.version:
            warnings.warn(
                f"{one.address} was changed in place after the model had gone past it, so the run did not see "
                f"the change. Write before you read a later site; to compute with a copy, use x.clone().",
                HooklabWarning, stacklevel=2)
