"""Names for the folders of stores."""

from __future__ import annotations

import hashlib
import re

from ...errors import RecordError

_LONGEST = 80
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{word}{n}" for word in ("com", "lpt") for n in range(1, 10))}


def folder_name(text: str) -> str:
    """A name for a folder that every file system takes, with a digest of the text where it had to be changed.

    >>> folder_name("runs-1"), folder_name("a/b: c?")
    ('runs-1', 'a_b_c-ffa60210')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._ ")[:_LONGEST]
    if plain == text and plain.split(".")[0].lower() not in _WINDOWS:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.strip('._ ') or 'store'}-{digest}"


def named(text: str) -> str:
    """The name of a folder that text asks for. Raises RecordError where it asks for none, or for a place."""
    if not text.strip(". "):
        raise RecordError(f"{text!r} is no name for a store")
    if "/" in text or "\\" in text:
        raise RecordError(f"{text!r} is a path, and text is taken for a name beside where the store is: "
                          f"Path({text!r}) moves it there, {folder_name(text)!r} names it")
    return folder_name(text)
