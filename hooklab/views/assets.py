"""The built front end: what `widgets/` makes, and the form in which a view carries it.

Every instance of a view carries its module, and a saved notebook keeps it once for each. So it travels deflated, in a few
lines that unpack it; the files themselves are plain.
"""

from __future__ import annotations

import base64
import os
import zlib
from functools import cache
from pathlib import Path

from ..errors import ViewError

STATIC = Path(__file__).parent / "static"
MOST_CARRIED = 30 * 2**10
"""Bytes of a module, as an instance carries it."""

UNPACKED = """const packed = Uint8Array.from(atob("{packed}"), (character) => character.charCodeAt(0));
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
const address = URL.createObjectURL(new Blob([await new Response(stream).text()], {{ type: "text/javascript" }}));
const view = await import(address);
URL.revokeObjectURL(address);
export default view.default;
"""


@cache
def asset(name: str) -> str:
    """A built file of the front end as text.

    Raises:
        ViewError: it was not built.
    """
    try:
        return (STATIC / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ViewError(f"{name} is missing: install hooklab again or, in a checkout, build it: cd widgets && npm ci && "
                        "npm run build") from error


@cache
def carried(kind: str) -> str:
    """A view's module as each instance carries it.

    >>> len(carried("attention")) < MOST_CARRIED
    True
    """
    packed = base64.b64encode(zlib.compress(asset(f"{kind}.js").encode(), 9)).decode()
    return UNPACKED.format(packed=packed)


def watched() -> bool:
    """Whether the front end is being worked on: its files are then watched, and views follow them."""
    return os.environ.get("ANYWIDGET_HMR") == "1"
