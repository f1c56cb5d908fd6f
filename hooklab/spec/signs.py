"""Slips of signs: ranges, brackets, commas, and what other languages write otherwise."""

from __future__ import annotations

import re

from ..problems import Problem
from .misreading import Misreading, short

_RANGE = re.compile(r"(\d+)\s*(-|–|\.{2,}|…)\s*(\d+)")
OTHERWISE = {"==": "=", ":=": "=", "=>": "->", "→": "->", "⇒": "->", "×": "*", "·": "*", "−": "-", "÷": "/", "≈": "~=",
             "≤": "<=", "≥": ">=", "≠": "!=", "**": "*", "//": "/"}


def ranged(m: Misreading) -> Problem | None:
    """`0-5` and `0..5`."""
    for match in _RANGE.finditer(m.body):
        if match.start() <= m.at <= match.end():
            unit = re.search(r"[LHNF]$", m.body[:match.start()])
            meant = f"{unit[0] if unit else ''}{match[1]}:{_next(match[3])}"
            return m.problem("a range is written as a Python slice, its end left out", f"write {meant}", match.start(2),
                             len(match[2]))
    return None


def _next(number: str) -> str:
    return str(int(number) + 1) if len(number) < 18 else number


def not_whole(m: Misreading) -> Problem | None:
    """`generate 2.5`."""
    number = re.search(r"\d+$", m.before)
    rest = re.match(r"\.\d+", m.rest)
    if m.verb is None or number is None or rest is None:
        return None
    return m.problem(f"{m.word} needs a whole number", m.form(), number.start(), len(number[0]) + len(rest[0]))


def bracket(m: Misreading) -> Problem | None:
    """A bracket that closes nothing, or one around places."""
    if m.verb is None or m.rest[:1] not in ("(", "[", ")", "]", "}"):
        return None
    if m.rest[:1] in ")]}":
        return m.problem(f"this {m.rest[0]} closes nothing", "leave it out")
    if m.before[m.first:].strip() == m.word and "PLACES" in m.verb.form:
        pair = re.match(r"[(\[]([^()]*)[)\]]", m.rest)
        head = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", pair[1]) if pair else None
        if pair and head:
            return m.problem("a head is named by letters", m.remedy(m.at, m.at + pair.end(), f"L{head[1]}H{head[2]}"),
                             width=pair.end())
        return m.problem("places stand without brackets", f"write {m.replaced(m.at, m.at + pair.end(), pair[1])}" if pair
                         else m.form())
    return None


def comma(m: Misreading) -> Problem | None:
    """`answer " Mary", " John"` and `show attention L5, L6`."""
    if m.verb is None or m.rest[:1] != ",":
        return None
    if m.word == "answer":
        return m.problem("the wrong answer comes after `vs`", f"write {m.replaced(len(m.before.rstrip()), m.at + 1, ' vs')}")
    return m.problem("no comma here", f"write {m.replaced(m.at, m.at + 1, '')}")


def second_position(m: Misreading) -> Problem | None:
    """`@last @first`."""
    if m.verb is None or m.rest[:1] != "@" or "@" not in m.before:
        return None
    return m.problem("a place has one position", "for several positions write @[last, first]")


def foreign_sign(m: Misreading) -> Problem | None:
    """Signs of other languages."""
    sign = next((s for s in OTHERWISE if m.rest.startswith(s)), None)
    if sign is None and m.before[-1:] + m.rest[:1] in OTHERWISE:
        sign, start = m.before[-1:] + m.rest[:1], m.at - 1
    else:
        start = m.at
    if sign == ":=" and m.prepositions:
        return None  # `set X := 3`: the verb has a word for it
    if sign is not None:
        return m.problem(f'"{sign}" is no sign of this language', f"write {OTHERWISE[sign]}", start, len(sign))
    if m.word == "expect" and m.rest[:1] == "=":
        return m.problem("a claim compares", "write == for exactly, or ~= for about")
    if m.rest[:1] == ";":
        return m.problem("one line holds one statement", "start a new line instead of ;")
    return None


def equals(m: Misreading) -> Problem | None:
    """`let x 3`: the sign between a name and what it stands for."""
    head = re.match(r"(?:let|group|sae|mark)\s+[^\W\d]\w*(\s*:)?", m.body[m.first:])
    if head is None or m.accepts != {"EQUAL"}:
        return None
    at, end = m.first + head.end() - len(head[1] or ""), m.first + head.end()
    return m.problem("a name and what it stands for have = between them", f"write {m.replaced(at, end, ' =')}", at)


def python_call(m: Misreading) -> Problem | None:
    """`torch.randn(5)` without braces."""
    match = re.search(r"([^\W\d]\w*(?:\.\w+)*)\s*$", m.before)
    if m.rest[:1] != "(" or match is None or m.verb is None or match.start() == m.first:
        return None
    call = re.match(r"\((?:[^()]|\([^()]*\))*\)?", m.rest)
    shown = short(match[1] + (call[0] if call else "(…)"))
    return m.problem("this reads like Python", f"Python goes between braces: {{{shown}}}", match.start(1), len(shown))


def python_values(m: Misreading) -> Problem | None:
    """`sweep c in range(5)` and `sweep c in values`."""
    if m.word != "sweep" or not re.search(r"\bin\s*$", m.before) or not re.match(r"[^\W\d]", m.rest):
        return None
    said = m.rest.split("\n")[0].strip()
    counted = re.fullmatch(r"range\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", said)
    meant = f"{{{short(said)}}}" if counted is None else f"{counted[1]}:{counted[2]}" if counted[2] else f"0:{counted[1]}"
    return m.problem("a sweep goes over a list, a range or Python between braces",
                     f"write {m.replaced(m.at, m.at + len(said), meant)}", width=len(said))


def list_as_amount(m: Misreading) -> Problem | None:
    """`steer X by [0, 1]`."""
    if m.verb is None or m.rest[:1] != "[" or not re.search(r"\b(by|to)\s*$", m.before):
        return None
    return m.problem("a list is no amount", f"one value at a time is written: {m.replaced(m.at, m.at, 'each ')}")
