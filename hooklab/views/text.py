"""Text of models and users as a view shows it: nothing acts, nothing hides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..html import printable

LONGEST = 120
JOINERS = "\u200c\u200d"


def shown(text: Any, longest: int = LONGEST) -> str:
    """Text on one line: outer spaces as `·`, line ends and what does not print as escapes, a very long one cut, saying so.

    Joiners stay, because Persian words and many emoji need them.

    >>> shown(" Mary"), shown("a\\n"), shown("<b>"), shown("x" * 500)[-22:]
    ('·Mary', 'a\\\\n', '<b>', 'xxxx… (500 characters)')
    """
    text = str(text)
    cut = text if len(text) <= longest else text[:longest]
    core = cut.strip(" ")
    left = len(cut) - len(cut.lstrip(" "))
    visible = "".join(c if c in JOINERS else printable(c) for c in core)
    more = f"… ({len(text)} characters)" if len(text) > longest else ""
    return "·" * left + visible + "·" * (len(cut) - left - len(core)) + more


def all_shown(texts: Iterable[Any]) -> list[str]:
    """The same for each of several."""
    return [shown(text) for text in texts]
