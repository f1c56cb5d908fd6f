"""Warnings about a prompt: of words that its tokenizer does not know, at the line of the user's that gave the prompt."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabWarning

if TYPE_CHECKING:
    from ..tokens import Tokens

_told: ContextVar[set[str] | None] = ContextVar("told", default=None)


def warn_of_unknown(tokenizer: Any, tokens: Tokens) -> None:
    """Say which words a tokenizer does not know: the model reads them all as one and the same token."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or unknown == getattr(tokenizer, "eos_token_id", None):
        return
    rows = zip(tokens.ids, tokens.text, tokens.offsets, strict=True)
    lost = dict.fromkeys(text[a:b] for ids, text, offsets in rows if offsets is not None
                         for i, (a, b) in zip(ids, offsets, strict=True) if i == unknown and a < b)
    told = _told.get()
    words = [word for word in dict.fromkeys(map(_shown, lost))
             if word != repr(tokenizer.unk_token) and (told is None or word not in told)]
    if words:
        warn_user(f"This model's tokenizer does not know {', '.join(words)}: the model sees {tokenizer.unk_token!r} there.")
        if told is not None:
            told.update(words)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Inside, a word is warned of once, in however many prompts it is read: those of questions with their choices."""
    if _told.get() is not None:  # inside another
        yield
        return
    before = _told.set(set())
    try:
        yield
    finally:
        _told.reset(before)


def warn_user(message: str) -> None:
    """Warn at the nearest line that is neither hooklab's nor of what it runs in, however deep inside the fault was found."""
    frame, level, outside = sys._getframe().f_back, 2, 0
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            outside = outside or level
            if not name.startswith(_BETWEEN):
                break
        frame, level = frame.f_back, level + 1
    else:
        level = outside or 2
    warnings.warn(message, HooklabWarning, stacklevel=level)


def _shown(word: str) -> str:
    blanks = len(word) if set(word) == {" "} else 0
    return f"{word!r} (a space)" if blanks == 1 else f"{word!r} ({blanks} spaces)" if blanks else repr(word.strip() or word)


def _folders(*packages: str) -> tuple[str, ...]:
    found = (find_spec(name) for name in packages)
    return tuple(f"{folder}/" for spec in found if spec for folder in spec.submodule_search_locations or ())


_OWN = (str(Path(__file__).parents[1]) + "/",)
_BETWEEN = (*_folders("nnsight", "IPython"), contextlib.__file__)
