"""The answer in a reply: the line after a tag, the letter of a choice, a text brought to one form.

In: text that a model wrote. Out: the part that answers, or None where there is none; `graders.py` scores it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import ascii_uppercase

from ...errors import RecordError

TAG = "FINAL ANSWER:"
Extractor = Callable[[str], str | None]

# A second letter makes the first no answer; "I" is a word ("B, I think").
_SPLIT = r"(?![)\].*]*\s*(?:or|and|/|,|&)\s*[(\[*]*[A-HJ-Z](?![\w']))"
_STATED = re.compile(r"\b(?i:answer|choice|option)\b\W{0,4}(?i:is|:|=)?\W{0,4}(?i:option|choice)?\s*"
                     r"[(\[*]*(?:(?P<upper>[A-Z])(?![\w'])|(?P<lower>[a-z])(?=\s*(?:[)\].*]|$)))" + _SPLIT, re.MULTILINE)
_MARKED = re.compile(r"[(\[]([A-Za-z])[)\]]|^\W*([A-Za-z])[.):](?!\w)")
_ALONE = re.compile(r"\W*([A-Za-z])\W*")


def after_tag(text: str, tag: str = TAG) -> str | None:
    """What stands after the last tag that anything stands after, up to the end of its line; None without one.

    The tag may be in capitals or not, and the answer in bold. When its own line is empty, the answer is the line below.

    >>> after_tag("FINAL ANSWER: A\\nWait.\\n**Final answer:** (B)\\nHope this helps!")
    '(B)'
    """
    pattern = re.compile(re.escape(tag.strip()).replace(":", r"[*`]*:"), re.IGNORECASE)
    last = None
    for found in pattern.finditer(text):
        lines = [line.strip(" \t\r*`") for line in text[found.end():].split("\n")[:2]]
        stated = next((line for line in lines if line and not pattern.search(line)), None)
        last = stated if stated is not None else last
    return last


def last_match(text: str, pattern: str | re.Pattern[str]) -> str | None:
    """The last match of a pattern: its first group if it has one; None without a match.

    >>> last_match("3 + 4 = 7, so 14", r"\\d+")
    '14'
    """
    last = None
    for found in re.finditer(pattern, text):
        last = found
    if last is None:
        return None
    answer = last[1] if last.re.groups else last[0]
    return answer.strip() if answer is not None else None


def extractor(how: str | re.Pattern[str] | Extractor | None = TAG) -> Extractor:
    """How to find the answer in a reply, as a function: after a tag, by a compiled pattern, a function as it is, or all.

    Args:
        how: A text is a tag; a compiled pattern gives its last match; None takes the whole reply.
    """
    if how is None:
        return lambda text: text.strip() or None
    if isinstance(how, re.Pattern):
        return lambda text: last_match(text, how)
    if isinstance(how, str):
        if not how.strip():
            raise RecordError("a tag is the text before the answer; it is empty. None takes the whole reply")
        return lambda text: after_tag(text, how)
    if not callable(how):
        raise RecordError(f"an answer is found by a tag, a compiled pattern or a function, not {how!r}")
    return how


def letter(text: str, choices: int = 26) -> str | None:
    """The letter of the choice that a reply names, as a capital; None where it names none, or several.

    `B`, `(b)`, `B.`, `B) Paris`, `Answer: B`, `The answer is (B)`, `I choose (B)`. A word is no letter: "A dog" names none.

    Args:
        text: The reply, or the part of it that answers.
        choices: How many there are; later letters are none.

    >>> letter("The answer is (C)."), letter("b) Paris"), letter("A dog"), letter("A or B")
    ('C', 'B', None, None)
    """
    text = text.strip()
    valid = ascii_uppercase[:choices]
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone[1].upper() if alone[1].upper() in valid else None
    stated = [(one["upper"] or one["lower"]).upper() for one in _STATED.finditer(text)]
    if stated:
        return stated[-1] if stated[-1] in valid else None
    marked = {(one[1] or one[2]).upper() for one in _MARKED.finditer(text)} & set(valid)
    return marked.pop() if len(marked) == 1 else None


def plain(text: str) -> str:
    """A text without capitals, with single blanks, for comparing.

    >>> plain("  New\\n York ")
    'new york'
    """
    return " ".join(text.casefold().split())
