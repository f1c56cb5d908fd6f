"""Slips inside a line that starts with a verb: each rule knows one, and how it is written instead."""

from __future__ import annotations

import re

from ..errors import nearest
from ..positions.select import RESERVED
from ..problems import Problem
from ..sites import LAYER_SITES
from . import foreign, mixups, signs
from .misreading import MARKS, PREPOSITIONS, Misreading, short
from .scan import QUOTED
from .tree_places import ALIASES

STRAY = ("using", "into", "of", "for", "and", "against", "onto", "until", "via", "than", "is", "be", *PREPOSITIONS)
_QUOTED = re.compile(QUOTED)
SITE = re.compile(r"[LHNF](?:[\d*]|\[|:)")

# Words at the wrong place ------------------------------------------------------------------------------------------


def unquoted(m: Misreading) -> Problem | None:
    """`prompt The cat sat`, `answer Mary` and `prompt clean "text"`."""
    if m.word not in ("prompt", "answer"):
        return None
    head = re.match(r"prompt\s*(?:[^\W\d]\w*\s*=)?\s*" if m.word == "prompt" else r"answer\s*", m.body[m.first:])
    start = m.first + (head.end() if head else 0)
    if m.word == "answer" and (against := re.compile(r"\bvs\s+").search(m.body, start, m.at)):
        start = against.end()
    text = m.source[start:].split("\n")[0].strip()
    glued = re.match(r"([^\W\d]\w*)\s*:?\s*(?=[\"'])", text)
    if m.word == "prompt" and glued:
        return m.problem("a name and its text have = between them", f"write prompt {glued[1]} = {short(text[glued.end():])}",
                         start + len(glued[1]))
    if not re.match(r"[^\W_]|[<$]", text) or re.match(r"\w+\(", text):
        return None
    said = (text.split(" vs ")[0] if m.word == "answer" else text).strip()
    inside = said.strip("\"'").replace('"', '\\"')
    shown = f'"{short(inside, 60)}"' if m.word == "prompt" else f'" {short(inside)}"'
    return m.problem("text goes between quotes", f"write {m.source[m.first:start].rstrip()} {shown}", start, len(said))


def _preposition(m: Misreading) -> Problem | None:
    """`steer X with v`, `steer X += v`: another small word than the verb has."""
    start, word = m.word_at_fault()
    sign = re.match(r"[-+*/:]?=(?!=)", m.rest)
    if m.verb is None or (word not in STRAY and not (sign and m.word != "expect")):
        return None
    if word == "and":
        return m.problem('places are separated by commas, not by "and"', f"write {m.replaced(start - 1, start + 3, ',')}",
                         start, 3)
    own = m.prepositions
    wanted = [name[1:].lower() for name in sorted(m.accepts) if name[1:].lower() in own] or \
        [w for w in own if not re.search(rf"\b{w}\b", m.body[m.first:start]) and not sign]
    if sign and wanted:
        return m.problem(f"{m.word} goes with `{wanted[0]}`, not with {sign[0]}",
                         f"write {m.replaced(m.at, m.at + len(sign[0]), wanted[0])}", width=len(sign[0]))
    to_run = wanted and "RUN" in m.verb.form and not re.match(rf"\w+\s+(?:{'|'.join(RESERVED)}|[-\d\"'])", m.body[start:])
    if word in ("at", "on") and "at" not in own and not to_run and (place := re.match(r"\w+\s+", m.body[start:])):
        return m.problem("positions are written with @", f"write {m.replaced(start, start + place.end(), '@')}", start, 2)
    if word in own and word not in wanted:
        return m.problem(f'"{word}" is here twice', m.form(), start, len(word))
    if not wanted or sign:
        return None
    hint = m.remedy(start, start + len(word), wanted[0]) or m.form()
    return m.problem(f"{m.word} goes with `{'` or `'.join(wanted)}`, not with `{word}`", hint, start, len(word))


def _no_place(m: Misreading) -> Problem | None:
    """`steer by {v}`: the place is forgotten."""
    match = re.match(r"\w+\s+(?:" + "|".join(PREPOSITIONS) + r")\b", m.body[m.first:])
    if m.verb is None or match is None or "PLACES" not in m.verb.form:
        return None
    start = m.first + len(m.word)
    return m.problem(f"{m.word} needs a place", m.form(), start + 1, match.end() - len(m.word) - 1)


def _dotted_head(m: Misreading) -> Problem | None:
    match = re.search(r"L(\d+)\s*\.\s*$", m.before)
    head = re.match(r"\d+", m.rest)
    if match and head:
        return m.problem("layer and head are letters and numbers, not a decimal", f"write L{match[1]}H{head[0]}",
                         width=len(head[0]))
    return None


def _no_dot(m: Misreading) -> Problem | None:
    """`L5resid`, `L9 H6`, `blocks.5.hook_resid_post`."""
    start, word = m.word_at_fault()
    read = m.body[:start]
    site = re.search(r"[LHNF](?:[\d*:-]+|\[[^\]]*\])(?:[HN](?:[\d*:-]+|\[[^\]]*\]))?(\s*)$", read)
    if site is None or not word or word in PREPOSITIONS or word in ("except", "each"):
        return None
    extra = re.match(r"([HN])\d+$", word)
    if extra and re.search(r"[HN]", site[0]):
        return m.problem("one head or one neuron, not two", f"for several write {site[0].rstrip()[:2]}{extra[1]}[1,2]",
                         start,
                         len(word))
    if not site[1] or (word in LAYER_SITES and not extra) or word in ALIASES:
        return m.problem("a dot stands between a layer and its part", f"write {site[0].rstrip()}.{short(word)}", start,
                         len(word))
    if SITE.match(word + m.body[start + len(word):][:1]):
        glue = word[0] in "HN" and "H" not in site[0] and "N" not in site[0]
        whole = re.match(r"[\w*:\[\],.-]+", m.body[start:])
        meant = f"{site[0].rstrip()}{'' if glue else ', '}{short(whole[0] if whole else word)}"
        return m.problem("layer and head are one word" if glue else "places are separated by commas", f"write {meant}",
                         start,
                         len(word))
    return None


# What is missing ---------------------------------------------------------------------------------------------------


def _colon(m: Misreading) -> Problem | None:
    if m.word != "run":
        return None
    if not re.search(r"\bon\b", m.body):
        names = re.findall(r"[^\W\d]\w*", m.body[m.first + len("run"):].split(":")[0])
        names = [name for name in names if name not in STRAY]
        shown = " ".join(["run", *names[:-1][:1], "on", *names[-1:]])
        return m.problem("a run says on which prompt", f"write {short(shown) if names else 'run on main'}:",
                         width=len(m.found))
    if m.accepts != {"COLON"}:
        return None
    start = len(m.before.rstrip())
    return m.problem("a run's first line ends with `:`", f"write {short(m.source[:start].strip())}:", start)


def _no_lines(m: Misreading) -> Problem | None:
    if m.word == "run" and not m.found and m.body.rstrip().endswith(":"):
        return m.problem("a run has at least one line", "write verbs below it, indented, or one after the colon")
    if m.verb is not None and m.body.rstrip().endswith(":") and m.at >= len(m.body.rstrip()) - 1 and m.word != "run":
        end = len(m.body.rstrip()) - 1
        return m.problem("only run has lines below it",
                         f"write {m.replaced(end, end + 1, '')}, and no line indented below it", end)
    return None


def _text_as_amount(m: Misreading) -> Problem | None:
    if m.verb is None or not _QUOTED.match(m.body, m.at) or not re.search(r"\b(by|to|along|over|with|let\s+\w+\s*=)\s*$",
                                                                          m.before):
        return None
    return m.problem(f"{m.word} takes a value, not text",
                     "a value is a number, a place such as clean.L6.resid @last, or Python "
                     "between braces: {vec}", width=len(m.found))


def _number(m: Misreading) -> Problem | None:
    """A number that must be whole, or must not be negative."""
    if m.accepts != {"INT"}:
        return None
    found = re.match(r"-?\d+(?:\.\d+)?|\S*", m.rest)
    shown = f', not "{short(found[0])}"' if found and found[0] else ""
    return m.problem(f"{m.word} needs a whole number{shown}", m.form(), width=len(found[0]) if found else 1)


def _option_value(m: Misreading) -> Problem | None:
    match = re.search(r"([^\W\d]\w*)\s*=\s*$", m.before)
    if m.verb is None or match is None or ("NEGINT" not in m.accepts and "NEGFLOAT" not in m.accepts):
        return None
    return m.problem(f"{match[1]}= needs a value", "a value is a number, a word, text in quotes or {python}",
                     width=len(m.found))


def _end(m: Misreading) -> Problem | None:
    """The line ends too early."""
    if m.verb is None or m.found or m.accepts == {"EQUAL"}:
        return None
    expected = _expected(m)
    if m.before.rstrip().endswith(",") and expected == "a place":
        return m.problem("a place follows a comma", "leave the comma out, or name one more place")
    return m.problem(f"{m.word} needs {expected or 'more'}" + ("" if expected else " than this"), m.form())


def _expected(m: Misreading) -> str:
    """What must come next, where that is one thing."""
    words = [MARKS.get(name, name[1:].lower() if name.startswith("_") and not name.startswith("__") else "")
             for name in sorted(m.accepts)]
    if m.word == "show" and "NAME" in m.accepts and "PY" not in m.accepts and m.before[m.first:].strip() == "show":
        return "a view"
    known = [word for word in words if word in MARKS.values() or word in PREPOSITIONS]
    if len(m.accepts) == 1 and known:
        return f"`{known[0]}`" if len(known[0]) < 6 else known[0]
    own = [word for word in known if word in PREPOSITIONS and m.verb and re.search(rf"(?<!\[){word}\b", m.verb.form)]
    if own and "_NL" not in m.accepts:
        return f"`{own[0]}`"
    if {"PY", "_LAYER"} <= m.accepts:
        return "a value" if "INT" in m.accepts else "a place"
    return ""


# What is left ------------------------------------------------------------------------------------------------------


def _superfluous(m: Misreading) -> Problem | None:
    """A word where the line could have ended."""
    start, word = m.word_at_fault()
    if m.verb is None or not ("_NL" in m.accepts or m.accepts == {"EQUAL"}) or not (m.found or word):
        return None
    hint = f"leave it out; {m.form()}"
    if word in RESERVED:
        hint = f"positions are written with @: @{word}"
    elif m.word == "answer":
        hint = f"write {m.replaced(start, start + len(word), f'vs {chr(34)} {word}{chr(34)}')}"
    elif m.accepts == {"EQUAL"} and m.verb.options:
        close = nearest(word[:40], m.verb.option_names)
        names = ", ".join(f"{name}=" for name in m.verb.option_names)
        value = re.match(r"\s+([\w.]+)\s*$", m.body[start + len(word):])
        meant = close and (value or word[:3] == close[:3])
        hint = f"did you mean {close}={value[1] if value else '…'}?" if meant else f"what may follow is {names}; {m.form()}"
    end = ": expected end of line" if m.accepts <= {"_NL"} or m.accepts == {"EQUAL"} else ""
    shown = f'"{short(word)}"' if word else m.shown
    return m.problem(f"{shown} does not belong here{end}", hint, start, len(word or m.found))


def _otherwise(m: Misreading) -> Problem:
    expected = _expected(m)
    if not m.found:
        return m.problem("this line is not finished", m.form() or "such as: zero L9H9")
    hint = m.form() or "such as: zero L9H9"
    if expected.strip("`") in PREPOSITIONS:
        word = expected.strip("`") + " "
        hint = m.remedy(m.at, m.at, word) or m.remedy(m.at, m.at + 1, word.strip()) or hint
    elif expected == MARKS["STRING"] and re.match(r"\w", m.found):
        said = m.rest.split()[0]
        hint = f'write {m.replaced(m.at, m.at + len(said), f"{chr(34)}{said}{chr(34)}")}'
    wanted = f"; expected {expected}" if expected else ""
    return m.problem(f"{m.shown} does not belong here{wanted}", hint, width=len(m.found))


IN_LINE = (*foreign.RULES, *mixups.RULES, unquoted, signs.ranged, signs.not_whole, _dotted_head, signs.foreign_sign, _colon,
           signs.equals, _no_lines, _no_place, _no_dot, _preposition, _text_as_amount, signs.list_as_amount, _number,
           _option_value, signs.python_values, signs.python_call, signs.bracket, signs.comma, signs.second_position, _end,
           _superfluous, _otherwise)
