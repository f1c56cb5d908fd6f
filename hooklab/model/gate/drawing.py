"""The pictures that the model is asked about: noisy stripes, across or down."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import PromptError, did_you_mean

KINDS = ("across", "down")
"""What stripes do, and what the model is to say of them."""
SIDE = 40


def picture(kind: str, seed: int) -> Any:
    """A noisy striped picture, 40 by 40 pixels.

    Args:
        kind: `"across"` or `"down"`.
        seed: Of the noise, the shade and where the stripes begin.

    Raises:
        PromptError: there is no such kind.

    >>> picture("down", 0).size
    (40, 40)
    """
    from PIL import Image

    if kind not in KINDS:
        raise PromptError(f"stripes run across or down, not {kind!r}.{did_you_mean(str(kind), KINDS)}")
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * (np.arange(SIDE) + rng.uniform(0, 0.2)) / 8)
    striped = np.broadcast_to(wave[:, None] if kind == "across" else wave[None], (SIDE, SIDE))
    shade = striped[..., None] * rng.uniform(90, 100) + 128 + rng.normal(0, 1.5, (SIDE, SIDE, 3))
    return Image.fromarray(shade.clip(0, 255).astype(np.uint8))


def pictures(count: int, seed: int = 0) -> tuple[list[str], list[Any]]:
    """Kinds in turn, and a picture of each; another seed, other pictures.

    >>> pictures(3)[0]
    ['across', 'down', 'across']
    """
    kinds = [KINDS[i % 2] for i in range(count)]
    return kinds, [picture(kind, 1000 * (seed + 1) + i) for i, kind in enumerate(kinds)]
