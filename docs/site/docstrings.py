"""Docstrings as the site shows them: examples become code, and parameters told together each get a line."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n(?:(?![ ]*$)(?![ ]*>>> ).*\n?)*)+", re.MULTILINE)
TOGETHER = re.compile(r"^(    +)(\w+(?:, \w+)+): ", re.MULTILINE)


class Readable(Extension):
    """Rewrites docstrings before they are read for the site."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Of every module, class, function and constant."""
        if obj.docstring:
            obj.docstring.value = apart(fenced(obj.docstring.value))


def fenced(text: str) -> str:
    """Examples for doctest in fences, so that they are not taken for quotations."""
    def block(found: re.Match[str]) -> str:
        indent = re.match(r" *", found[0])[0]  # type: ignore[index]
        lines = "\n".join(line.removeprefix(indent) for line in found[0].rstrip("\n").splitlines())
        return "".join(f"{indent}{line}\n" for line in f"```pycon\n{lines}\n```".splitlines())

    return EXAMPLE.sub(block, text + "\n")


def apart(text: str) -> str:
    """`clean, corrupt: ...` as a line for each, the earlier ones pointing to the last.

    >>> print(apart("    clean, corrupt: Two prompts."))
        clean: See `corrupt`.
        corrupt: Two prompts.
    """
    def each(found: re.Match[str]) -> str:
        *others, last = found[2].split(", ")
        return "".join(f"{found[1]}{name}: See `{last}`.\n" for name in others) + f"{found[1]}{last}: "

    return TOGETHER.sub(each, text)
