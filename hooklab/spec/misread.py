"""Why a line cannot be read, in words: what lark met, what was probably meant, how it is written.

    error of lark + the line ──Misreading──▶ first rule of RULES that knows the mistake ──▶ Problem
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..problems import Problem
from .misreading import Misreading, nearest_verb, short
from .scan import QUOTED
from .slips import IN_LINE, SITE, unquoted
from .verbs import ABLATIONS, SYNONYMS, VERBS

PYTHON = ("for", "if", "while", "import", "def", "class", "return", "with", "try", "elif", "else", "lambda")
_UNCLOSED = re.compile(rf"(?:[^\"']|{QUOTED})*")
_CURLY = dict.fromkeys("“”„«»", '"') | dict.fromkeys("‘’‚", "'")


def explain(error: Exception, text: str, body: str, open_bracket: int | None = None) -> Problem:
    """The problem behind an error of the parser.

    Args:
        error: What lark raised.
        text: A line of the spec as written; the problem counts from its start.
        body: The same line with comments blanked and holes filled.
        open_bracket: Offset of a bracket of the line that nothing closes.
    """
    if isinstance(error, RecursionError):
        return Problem("syntax", "this is nested too deeply", 1, 1, hint="name its parts: let part = …")
    misread = Misreading(text, body, error)
    if open_bracket is not None and (unclosed := misread.unclosed(open_bracket, body)) is not None:
        return unclosed
    return next(problem for rule in RULES if (problem := rule(misread)) is not None)


# Quotes and brackets -----------------------------------------------------------------------------------------------


def _curly_quote(m: Misreading) -> Problem | None:
    if m.rest[:1] not in _CURLY:
        return None
    straight = "".join(_CURLY.get(c, c) for c in m.source.strip().split("\n")[0])
    return m.problem("this is not a straight quote", f"write {short(straight, 90)}")


def _unclosed_quote(m: Misreading) -> Problem | None:
    match = _UNCLOSED.match(m.body)
    at = match.end() if match else len(m.body)
    if at >= len(m.body) or at > m.at or m.body[at] not in "\"'":
        return None
    if m.body[m.first + len(m.word):at].strip(" =") and (problem := unquoted(m)) is not None:
        return problem  # `prompt The cat's hat`
    return m.problem("this quote is not closed", f"text ends on its own line with {m.body[at]}; a line break in it is \\n",
                     at,
                     len(m.source[at:].split("\n")[0].rstrip()))


# The first word ----------------------------------------------------------------------------------------------------


def _assignment(m: Misreading) -> Problem | None:
    match = re.match(r"([^\W\d][\w.\[\]*:]*)\s*([-+*/:]?=)(?!=)\s*", m.body[m.first:])
    if m.verb is not None or match is None:
        return None
    name, sign, value = match[1], match[2], m.source[m.first + match.end():].strip().split("\n")[0]
    if SITE.match(name):
        line = f"zero {name}" if value in ("0", "0.0") else f"{'steer' if sign == '+=' else 'set'} {name} " \
            f"{'by' if sign == '+=' else 'to'} {short(value) or '{vec}'}"
    elif value.split(" ")[0] == "save":
        line = f"{short(value)} as {name}"
    elif re.match(r"[^\W\d]\w*(?:\.\w+)*[\[(]", value):
        line = f"let {name} = {{{short(value)}}}"
    else:
        line = f"{'prompt' if value[:1] in _CURLY or value[:1] in _CURLY.values() else 'let'} {name} = {short(value) or '…'}"
    return m.problem("a line starts with a verb", f"write {line}", m.first, len(name))


def _no_verb(m: Misreading) -> Problem | None:
    if m.verb is not None or m.at > m.first + len(m.word):
        return None
    word = m.word
    if not word:
        return _no_word(m)
    if word in PYTHON:
        return m.problem(f'"{word}" is Python, and a line starts with a verb',
                         "Python goes between braces, as a value; for several values write sweep c in [0, 2, 4]", m.first,
                         len(word))
    if SITE.match(word):
        place, _, last = m.source[m.first:].strip().split("\n")[0].rpartition(" ")
        line = f"{last} {short(place)}" if last in VERBS else f"zero {short(m.source[m.first:])}"
        return m.problem("a line starts with a verb, and then comes the place", f"write {line}", m.first, len(word))
    return m.problem(f'no verb "{short(word)}"', _meant(word, m)
                     or "lines start with prompt, save, zero, patch, steer, metric, show …; "
                     "%hook help lists all", m.first, len(word), "name")


def _meant(word: str, m: Misreading) -> str:
    """The remedy for a word that is no verb: its small letters, a forgotten space, a synonym, the nearest verb."""
    lower = word.lower()
    if (way := re.fullmatch(rf"({'|'.join(ABLATIONS)})_ablate\w*|ablate_({'|'.join(ABLATIONS)})", lower)) is not None:
        return _instead("ablate", m, f" with {way[1] or way[2]}")
    apart = re.match(r"\s+([^\W\d]\w*)", m.body[m.first + len(word):])
    whole = f"{lower}_{apart[1]}" if apart else ""
    if apart and (meant := whole if whole in VERBS else SYNONYMS.get(whole)):
        return _instead(meant, m, width=len(word) + apart.end()) or f"write {meant}: {VERBS[meant].example}"
    if lower in VERBS:
        return f"verbs are written in small letters: {lower}"
    if lower in SYNONYMS:
        return _instead(SYNONYMS[lower], m) or f"write {SYNONYMS[lower]}: {VERBS[SYNONYMS[lower]].example}"
    for verb in sorted(VERBS, key=len, reverse=True):
        rest = word[len(verb):].lstrip("_")
        if word.startswith(verb) and (SITE.match(rest) or (not rest and m.source[m.first + len(word):][:1] in "[*")):
            return f"write a space after the verb: {verb} {rest}{short(m.source[m.first + len(word):])}"
    close = nearest_verb(lower[:40], synonyms=True)
    return f"did you mean {close}? {_instead(close, m) or VERBS[close].example}" if close else ""


def _instead(verb: str, m: Misreading, more: str = "", width: int = 0) -> str:
    """The line with another verb, and more at its end, where that can be read."""
    from .parser import reads

    line = m.replaced(m.first, m.first + (width or len(m.word)), verb) + more
    return f"write {line}" if "…" not in line and not m.body[:m.first].strip() and reads(line) else ""


def _no_word(m: Misreading) -> Problem | None:
    text = m.source[m.first:]
    if text[:1] in "\"'" or text[:1] in _CURLY:
        return m.problem("a line starts with a verb", "write prompt before the text", m.first)
    if text.startswith("%"):
        return m.problem("a magic stands on the first line of a cell, and only there", "take this line out", m.first)
    if text.startswith(("//", "/*", "--", ";")):
        return m.problem("a line starts with a verb", "a comment starts with #", m.first)
    return m.problem(f'a line starts with a verb, not with "{text[:1]}"', "such as: zero L9H9", m.first)


RULES: tuple[Callable[[Misreading], Problem | None], ...] = (
    _curly_quote, _unclosed_quote, _assignment, _no_verb, *IN_LINE)
