"""Images in the rows of a task: found in their columns, and given a place in the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import PromptError, RecordError
from . import values as value
from .rows import Row

IMAGE = "\ufffc"
"""Where an image stands in a prompt: the same character as in the text of an example (`inputs.sources`)."""


def images_of(row: Row, columns: str | Sequence[str] | None) -> dict[str, tuple[Any, ...]]:
    """Column -> its images, names of files made whole; none where the row has no value there.

    Raises:
        RecordError: a file is not there, a value is no image, or the row lacks a column that was asked for.
    """
    if columns is None:
        names = [name for name in ("image", "images") if name in row.values]
    else:
        names = [columns] if isinstance(columns, str) else list(columns)
    if not names:
        return {}
    from ..inputs.sources import _missing, _pictures

    found: dict[str, tuple[Any, ...]] = {}
    for name in names:
        given = value.column(row, name)
        try:
            found[name] = () if _missing(given) else _pictures(given, row.folder, name)
        except PromptError as error:
            raise RecordError(str(error)) from None
    return found


def placed(prompt: str, shown: Mapping[str, tuple[Any, ...]], named: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """A prompt with its images, those that the template does not name before it; and the images in their order.

    >>> text, images = placed("What is it?", {"image": ("cat.png",)}, ["question"])
    >>> text == IMAGE + "\\nWhat is it?", images
    (True, ('cat.png',))

    Raises:
        RecordError: a column holds the character that stands for an image.
    """
    inside = [one for name in named for one in shown.get(name, ())]
    before = [one for name, some in shown.items() if name not in named for one in some]
    if (inside or before) and prompt.count(IMAGE) != len(inside):
        raise RecordError("a text holds the character U+FFFC, which stands for an image")
    return (IMAGE * len(before) + "\n" if before else "") + prompt, (*before, *inside)
