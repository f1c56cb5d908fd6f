"""Where Python between braces ends: the one thing about Python that the hook language must know."""

from __future__ import annotations

import re

_PYTHON = re.compile(r'''[^"'{}\#]+|"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\''''
                     r'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*|.''', re.S)


def closing(text: str, opening: int) -> int | None:
    """The offset of the brace that closes the one at `opening`, or None; braces in Python's strings do not count.

    >>> closing('by {d["}"]} * 2', 3)
    10
    """
    depth, at = 0, opening
    while at < len(text):
        match = _PYTHON.match(text, at)
        piece = match[0] if match else text[at]
        if piece == "{":
            depth += 1
        elif piece == "}":
            depth -= 1
            if depth == 0:
                return at
        at += len(piece)
    return None
