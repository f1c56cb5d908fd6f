"""Colour tables [256 rgb], made by matplotlib, so that a canvas, a picture and a figure agree.

Both maps keep their order under the common kinds of colour blindness; the diverging one is palest at zero.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
NAMES = {"probability": SEQUENTIAL, "linear": SEQUENTIAL, "diverging": DIVERGING}


@cache
def table(name: str) -> np.ndarray:
    """The 256 colours of a matplotlib map, [256 3] uint8."""
    import matplotlib

    return np.ascontiguousarray(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3])


def for_codes(kind: str) -> np.ndarray:
    """A colour for every code of a scale, [256 4] uint8; masked cells are transparent, the other odd ones grey or ends.

    >>> for_codes("diverging")[130].tolist(), for_codes("linear")[0].tolist()
    ([247, 246, 246, 255], [0, 0, 0, 0])
    """
    from .wire import FIRST, HALF, MINUS, NAN, PLUS, STEPS, ZERO

    base = table(NAMES[kind])
    codes = np.arange(256)
    at = (127.5 + (codes - ZERO) / HALF * 127.5) if kind == "diverging" else (codes - FIRST) / STEPS * 255
    found = np.concatenate([base[np.clip(np.rint(at), 0, 255).astype(int)], np.full((256, 1), 255, np.uint8)], axis=1)
    found[:FIRST] = 0
    found[NAN], found[PLUS], found[MINUS] = (128, 128, 128, 255), (*base[255], 255), (*base[0], 255)
    return found
