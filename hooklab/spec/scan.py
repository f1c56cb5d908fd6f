"""Before the grammar: comments and Python holes, which no regular expression can find.

A hole may hold strings with braces in them, dictionaries and comprehensions; the scanner walks over Python's own
quotes to find its end. What it finds is replaced by filler of the same length, so that columns stay true.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field

from ..braces import closing
from ..problems import Problem

FILL = "\x01"
_OUTSIDE = re.compile(r"""[^"'#{\n]+|\n|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*|["'{]""")
MAX_HOLE = 20_000


@dataclass
class Scanned:
    """A text ready for the grammar.

    Attributes:
        text: The text with comments blanked and the insides of holes filled.
        holes: Offset of an opening brace -> the Python between the braces.
        problems: Holes that do not end, or hold no Python.
    """

    text: str
    holes: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def scan(text: str) -> Scanned:
    """Find comments and holes.

    >>> scanned = scan('steer L6.resid by {d["}"]}  # up')
    >>> scanned.holes, scanned.text.endswith("}      ")
    ({18: 'd["}"]'}, True)
    """
    found = Scanned(text)
    parts: list[str] = []
    at = 0
    while at < len(text):
        match = _OUTSIDE.match(text, at)
        piece = match[0] if match else text[at]
        if piece == "{":
            end = closing(text, at)
            if end is None:
                found.problems.append(at_offset(text, at, "syntax", "this brace has no closing brace",
                                                "Python goes between braces: {vec}, closing with }"))
                parts.append(re.sub(r"[^\n]", " ", text[at:]))
                break
            inside = text[at + 1:end]
            found.holes[at] = inside
            problem = _python_problem(text, at, inside)
            if problem is not None:
                found.problems.append(problem)
            parts.append("{" + re.sub(r"[^\n]", FILL, inside) + "}")
            at = end + 1
            continue
        parts.append(" " * len(piece) if piece.startswith("#") else piece.replace(FILL, "\ufffd"))
        at += len(piece)
    found.text = "".join(parts)
    return found


def _python_problem(text: str, at: int, source: str) -> Problem | None:
    """Why the text between braces is no Python expression, or None."""
    if not source.strip():
        return at_offset(text, at, "syntax", "there is nothing between the braces",
                         "write a Python expression: {vec}", width=len(source) + 2)
    if len(source) > MAX_HOLE:
        return at_offset(text, at, "syntax", "this Python expression is too long",
                         "compute it in a cell of its own and name it here: {vec}")
    lead = len(source) - len(source.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse("(" + source.strip() + "\n)", mode="eval")
    except SyntaxError as error:
        where = at + 1
        if error.lineno == 1 and error.offset:
            where = at + 1 + lead + min(max(error.offset - 2, 0), len(source.strip()))
        elif error.lineno == 2 and "\n" not in source.strip():
            where = at + 1 + len(source)
        return at_offset(text, where, "syntax", f"this is no Python expression: {error.msg}",
                         "between braces goes one Python expression, as in {4 * vec}")
    except (ValueError, RecursionError, MemoryError) as error:
        return at_offset(text, at, "syntax", f"this is no Python expression: {error or type(error).__name__}", "")
    return None


def at_offset(text: str, offset: int, kind: str, message: str, hint: str, width: int = 1) -> Problem:
    """A problem at a place of a text given by its offset."""
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return Problem(kind, message, line, column, width, hint)
