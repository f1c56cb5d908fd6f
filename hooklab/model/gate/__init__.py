"""`gate`: a small Chameleon whose way from image to text is known, made when it is opened; `gate-null` has no such way.

Its weights are set by hand from a seed, so there is nothing to download (`planted`). Pictures are striped across or down
(`drawing`), and the model is asked which (`words`). Importing this package loads neither torch nor transformers.

    >>> import hooklab as hl
    >>> from hooklab.model.gate import picture
    >>> tokens = hl.load("gate").tokens("<image> these stripes run", images=picture("down", 0))
    >>> tokens.roles[0].count("image"), tokens.roles[0].count("text")
    (16, 3)
"""

from __future__ import annotations

from ...lazy import lazily

_HOME = {
    "KINDS": "drawing",
    "picture": "drawing",
    "pictures": "drawing",
    "processor": "words",
    "build": "planted",
    "GATHER": "planted",
    "READ": "planted",
    "NAMES": "planted",
    "WIDTH": "planted",
}
"""Where each name lives."""

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME)
