"""Colours under text: a tint laid over the page's own background, so that the page's own ink reads on all of it.

`up` grows from nothing at the low end, `down` (of numbers below zero) and `fall` from nothing at the high end, `both` from
nothing at zero. Even the strongest tint leaves the ink a contrast above 4.5 on white and on black pages.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..html import NEGATIVE, POSITIVE
from .wire import FIRST, HALF, MINUS, NAN, PLUS, STEPS, ZERO, Scale

STRONGEST = 0.78
ABOVE, BELOW = (tuple(map(int, one.split())) for one in (POSITIVE, NEGATIVE))
NAMES = ("up", "down", "both", "fall")


@cache
def table(name: str) -> np.ndarray:
    """A colour for every code of a scale, [256 rgba] uint8.

    >>> table("up")[[0, 4, 255]].tolist()
    [[0, 0, 0, 0], [230, 97, 1, 0], [230, 97, 1, 199]]
    """
    codes = np.arange(256, dtype=float)
    share = np.clip((codes - ZERO) / HALF, -1, 1) if name == "both" else np.clip((codes - FIRST) / STEPS, 0, 1)
    share = 1 - share if name in ("down", "fall") else share
    below = share < 0 if name == "both" else np.full(256, name == "down")
    found = np.where(below[:, None], np.array([*BELOW, 0]), np.array([*ABOVE, 0])).astype(np.uint8)
    found[:, 3] = np.rint(255 * STRONGEST * np.abs(share))
    found[:FIRST] = 0
    ends = (FIRST + 1, 255) if name == "both" else (FIRST, 255)
    found[NAN], found[MINUS], found[PLUS] = (128, 128, 128, 64), found[ends[0]], found[ends[1]]
    found.flags.writeable = False
    return found


def tint(scale: Scale) -> str:
    """The table for a scale: away from zero, on whichever side its numbers are.

    >>> tint(Scale("linear", -4.0, 0.0)), tint(Scale("diverging", -1.0, 1.0))
    ('down', 'both')
    """
    return "both" if scale.kind == "diverging" else "down" if scale.high <= 0 else "up"


def over(name: str, code: int, page: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> tuple[float, float, float]:
    """The colour of a code on a page, each part from 0 to 1: what a picture shows."""
    *rgb, alpha = (float(one) / 255 for one in table(name)[code])
    red, green, blue = (alpha * a + (1 - alpha) * b for a, b in zip(rgb, page, strict=True))
    return red, green, blue
