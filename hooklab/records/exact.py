"""Exact sameness of results: what `==` between records means."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a torch tensor, told without loading torch.

    >>> is_tensor(np.zeros(2))
    False
    """
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def same(old: Any, new: Any) -> bool:
    """Whether two values are the same bit for bit, types and dtypes included; a nan is the same as a nan.

    >>> same({"a": (1.0, float("nan"))}, {"a": (1.0, float("nan"))}), same((1,), [1])
    (True, False)
    """
    if is_tensor(old) or is_tensor(new):
        return is_tensor(old) and is_tensor(new) and _same_tensor(old, new)
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and _same_array(old, new)
    if isinstance(old, float) and isinstance(new, float):
        return old == new or (math.isnan(old) and math.isnan(new))
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(same(value, new[key]) for key, value in old.items())
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(same, old, new))
    if is_dataclass(old):
        return all(same(getattr(old, f.name), getattr(new, f.name)) for f in fields(old))
    return bool(old == new)


def _same_tensor(old: Tensor, new: Tensor) -> bool:
    if old.dtype != new.dtype or old.shape != new.shape:
        return False
    return bool(raw(old).equal(raw(new)))


def _same_array(old: np.ndarray, new: np.ndarray) -> bool:
    if old.shape != new.shape or old.dtype.kind != new.dtype.kind:
        return False
    if old.dtype.kind in "OU":  # text: how wide the array's cells are is no difference
        return same(old.tolist(), new.tolist())
    return old.dtype == new.dtype and old.tobytes() == new.tobytes()


def raw(tensor: Tensor) -> Tensor:
    """The bytes of a tensor's values [bytes], in order, on the CPU."""
    import torch

    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return plain.reshape(-1).view(torch.uint8)
