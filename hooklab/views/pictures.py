"""Figures as files: the suffix says what is written, and nothing is written over."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ViewError
from .page import write_new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = ("png", "svg", "pdf")


def suffix(path: str | Path | None) -> str:
    """What a picture is written as, told by the name of its file; PNG where there is none.

    >>> suffix("heads.PDF"), suffix(None)
    ('pdf', 'png')

    Raises:
        ViewError: a picture is never written as that.
    """
    if path is None:
        return SUFFIXES[0]
    found = Path(path).suffix
    if found[1:].lower() not in SUFFIXES:
        said = f"{found} is none of them" if found else f"{Path(path).name} has no suffix"
        raise ViewError(f"a picture is written as {', '.join(f'.{one}' for one in SUFFIXES)}, told by the file's suffix, "
                        f"and {said}; .to_html(path) writes a page")
    return found[1:].lower()


def written(figure: Figure, path: str | Path | None, dpi: int) -> bytes:
    """A figure as a picture, also in a file that is not there yet.

    Raises:
        ViewError: a suffix of no picture.
        RecordError: the file exists, or cannot be written.
    """
    target = io.BytesIO()
    figure.savefig(target, format=suffix(path), dpi=dpi, bbox_inches="tight")
    if path is not None:
        write_new(Path(path), target.getvalue())
    return target.getvalue()
