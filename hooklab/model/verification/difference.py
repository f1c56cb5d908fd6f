"""How far two tensors that should be equal are apart: the number in every row of a report."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import SiteError


def difference(value: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value where that exceeds one; masked entries left out."""
    value, expected = value.float(), expected.float()
    visible = expected.abs() < torch.finfo(torch.bfloat16).max / 4
    if not bool(visible.any()):
        raise SiteError("There is nothing to compare.")
    scale = max(1.0, float(expected[visible].abs().max()))
    return float((value - expected)[visible].abs().max()) / scale
