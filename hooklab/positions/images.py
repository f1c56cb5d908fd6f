"""Images among tokens: where each one stands, and its rows and columns.

In: `Tokens` and one example. Out: unpadded positions. What an image token is, the tokens say by their ids; no text is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PositionError
from .pieces import Span
from .select import ImageLine

if TYPE_CHECKING:
    from ..tokens import Tokens

IMAGE = frozenset({"image"})


def elsewhere(name: Any) -> str | None:
    """Why an image is not read, where its name is an address rather than that of a file.

    >>> elsewhere("cat.png"), elsewhere("https://example.org/cat.png")[:49]
    (None, "'https://example.org/cat.png' is an address, and ")
    """
    if not re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/", str(name)):
        return None
    return (f"{str(name)[:80]!r} is an address, and images are read from files only: nothing is fetched over HTTP, since "
            "what an address gives may change while it is read. Download them, and give the names of the files.")


def image_spans(ids: Sequence[Any], image: frozenset[Any], breaks: frozenset[Any] = frozenset(),
                length: int | None = None) -> tuple[Span, ...]:
    """Where each image stands, `start:stop`: runs of its tokens, and of breaks between its rows.

    Images with nothing between them are told apart by their length, where it is known and divides the run.

    >>> image_spans([1, 9, 9, 8, 9, 9, 2, 9, 9], frozenset({9}), frozenset({8}))
    ((1, 6), (7, 9))
    >>> image_spans([9, 9, 9, 9], frozenset({9}), length=2)
    ((0, 2), (2, 4))
    """
    found: list[Span] = []
    for p, n in enumerate(ids):
        if n not in image:
            continue
        joined = found and (found[-1][1] == p or (found[-1][1] == p - 1 and ids[p - 1] in breaks))
        found[-1:] = [(found[-1][0], p + 1)] if joined else [*found[-1:], (p, p + 1)]
    if not length:
        return tuple(found)
    return tuple((at, at + length) if (stop - start) % length == 0 else (start, stop) for start, stop in found
                 for at in (range(start, stop, length) if (stop - start) % length == 0 else (start,)))


def image_markers(ids: Sequence[Sequence[int]], pictures: Sequence[tuple[Span, ...]], markers: frozenset[int], *,
                  before: bool) -> tuple[tuple[int, ...], ...] | None:
    """The nearest marker before or after each image, up to the next image; None where the model knows no such marker.

    Its size may stand between an image and its marker. The marker's id elsewhere, in a text say, marks nothing.
    """
    if not markers:
        return None
    found = []
    for row, spans in zip(ids, pictures, strict=True):
        edges = [0, *(edge for span in spans for edge in span), len(row)]
        gaps = [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
        sides = [reversed(gap) for gap in gaps[:-1]] if before else gaps[1:]
        nearest = (next((p for p in side if row[p] in markers), None) for side in sides)
        found.append(tuple(p for p in nearest if p is not None))
    return tuple(found)


def image_places(tokens: Tokens, example: int) -> list[Span]:
    """Where each image of an example stands, without its markers."""
    known = tokens.images
    return list(image_spans(tokens.roles[example], IMAGE) if known is None else known[example])


def inside(tokens: Tokens, example: int, span: Span) -> list[int]:
    """The tokens of an image, without what stands between its rows."""
    return [p for p in range(*span) if tokens.roles[example][p] == "image"]


def numbered(found: Sequence[Any], which: int | str) -> list[Any]:
    """All of them with "*", or the one with a number; none where there are not so many.

    >>> numbered("abc", -1), numbered("abc", 3)
    (['c'], [])
    """
    if which == "*":
        return list(found)
    n = int(which)
    return [found[n]] if -len(found) <= n < len(found) else []


def image_line(tokens: Tokens, example: int, span: Span, line: ImageLine) -> list[int]:
    """A row or column of one image.

    Raises:
        PositionError: the image has not so many, or nothing says where its rows end.
    """
    runs = image_spans(tokens.roles[example][span[0] : span[1]], IMAGE)
    rows = [[span[0] + p for p in range(*run)] for run in runs]
    if len(rows) == 1:
        width = math.isqrt(len(rows[0]))
        if width * width != len(rows[0]):
            raise PositionError(f"{line}: nothing stands between the rows of the image at {span[0]}:{span[1]}, and its "
                                f"{len(rows[0])} tokens make no square")
        rows = [rows[0][at : at + width] for at in range(0, len(rows[0]), width)]
    if line.kind == "column" and len({len(row) for row in rows}) > 1:
        raise PositionError(f"{line}: the rows of the image at {span[0]}:{span[1]} are not equally long")
    lines = rows if line.kind == "row" else [list(column) for column in zip(*rows, strict=True)]
    if not -len(lines) <= line.n < len(lines):
        raise PositionError(f"{line}: the image at {span[0]}:{span[1]} has {len(lines)} {line.kind}s, counted from 0")
    return lines[line.n]
