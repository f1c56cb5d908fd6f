"""Lines whose words are all there, with other small words and signs between them than the verb has."""

from __future__ import annotations

import re

from ..positions.select import RESERVED
from ..problems import Problem
from .misreading import Misreading
from .scan import QUOTED
from .verbs import ABLATIONS, ATTRIBUTIONS, METRICS, SCORES

METHODS = {"ablate": ABLATIONS, "attribute": ATTRIBUTIONS, "score": SCORES}
_NUMBER = r"-?\d+(?:\.\d+)?"
_PLACE = re.compile(r"[LHN](?:[\d*]|\[)")
# Whole lines: what is said, what is wrong with it, and how its parts are put together. {0} is the first part.
_LINES = (
    (re.compile(r"(cut\s+[^\s@]+)\s+(?:from\s+)?@?(\"[^\"]*\"|[^\s@]+?)\s*(?:->|\bto\b|,|\band\b)\s*@?(\S+)"),
     "cut names keys and queries, with @ and an arrow", "{0} @{1} -> @{2}"),
    (re.compile(rf"(clamp\s+.*?)\s+(?:between|to|in|within|from)?\s*\[?({_NUMBER})\s*(?:\band\b|\bto\b|[,:\s])\s*({_NUMBER})\]?"),
     "clamp takes its bounds by name", "{0} min={1} max={2}"),
    (re.compile(r"(generate)\s*(?:\(|\w+\s*=)\s*(?:\w+\s*=\s*)?(\d+)\b[\s,]*([^)]*?)\)?"),
     "generate says first how many tokens", "{0} {1} {2}"),
    (re.compile(r"(save)\s+([^\W\d]\w*)\s*=\s*(.+)"), "save takes its name after `as`", "{0} {2} as {1}"),
    (re.compile(r"(show)\s+(L(?:[\d*]|\[).*?)\.(?:pattern|scores|attn)\b(.*)"), "show names a view first",
     "{0} attention {1}{2}"),
    (re.compile(r"(group\s+[^\W\d]\w*\s*=)\s*[(\[](.*)[)\]]"), "places stand without brackets", "{0} {1}"),
    (re.compile(rf"(metric\s+(?:\w+\s*=\s*)?)({'|'.join(METRICS)})\s+(?:of|for)?\s*({QUOTED})"),
     "what a metric is of stands between brackets", "{0}{1}({2})"),
    (re.compile(rf"(answer\s+(?:{QUOTED}))\s*(?:(?!vs\b)\w+|[-/|<>])\s*({QUOTED})"), "the wrong answer comes after `vs`",
     "{0} vs {1}"),
)


def whole_line(m: Misreading) -> Problem | None:
    """A line that means another one, word for word."""
    end = len(m.body.rstrip())
    for form, message, meant in _LINES:
        match = form.fullmatch(m.source[m.first:end])
        if match and (hint := m.remedy(m.first, end, meant.format(*match.groups()))):
            return m.problem(message, hint, width=max(1, len(m.found)))
    return None


def sign_of_verb(m: Misreading) -> Problem | None:
    """`prompt: "a"` and `metric = loss`."""
    sign = re.match(r"\w+\s*([:=])(?!=)\s*", m.body[m.first:])
    if m.verb is None or m.word == "run" or sign is None or m.at > m.first + sign.end():
        return None
    start, end = m.first + len(m.word), m.first + sign.end()
    return m.problem(f"no {sign[1]} stands after {m.word}", m.remedy(start, end, " ") or m.form(), m.first + sign.start(1))


def method(m: Misreading) -> Problem | None:
    """`ablate L2H3 zero`, `attribute L*H* by grad`, `score L*H* on induction`."""
    names = METHODS.get(m.word)
    if names is None or re.search(r"\bwith\b", m.before):
        return None
    start, _ = m.word_at_fault()
    found = re.match(rf"(?:(?:=|\w+(?<!from)(?<!over))\s*)??({'|'.join(names)})\b", m.body[start:])
    hint = m.remedy(start, start + found.end(), f"with {found[1]}") if found else ""
    return m.problem(f"how to {m.word} comes after `with`", hint, start, found.end()) if found and hint else None


def zero_method(m: Misreading) -> Problem | None:
    """`ablate L2H3 with 0`."""
    if m.word != "ablate" or not re.search(r"\bwith\s*$", m.before) or not re.match(r"0(?:\.0*)?(?![\w.])", m.rest):
        return None
    return m.problem("how to ablate is a word", m.remedy(m.at, m.at + len(m.found), "zero") or m.form(), width=len(m.found))


def late_each(m: Misreading) -> Problem | None:
    """`patch L*.resid each from clean`."""
    if m.verb is None or not re.match(r"each\b", m.rest) or re.search(r"\beach\b", m.before) or "PLACES" not in m.verb.form:
        return None
    after = m.first + len(m.word)
    line = f"{m.word} each{m.source[after:m.at]}{m.source[m.at + len('each'):].lstrip()}"
    hint = m.remedy(m.first, len(m.source), line)
    return m.problem("each stands before the places", hint, width=len("each")) if hint else None


def joined_places(m: Misreading) -> Problem | None:
    """`zero L0H0 & L0H1` and `zero L0H0 + L0H1`."""
    if m.verb is None or not re.match(r"[&+|/]\s*", m.rest) or any(re.search(rf"\b{w}\b", m.before) for w in m.prepositions):
        return None
    if not _PLACE.match(m.rest[1:].lstrip()):
        return None
    hint = m.remedy(len(m.before.rstrip()), m.at + 1, ",")
    return m.problem(f"places are separated by commas, not by {m.rest[0]}", hint) if hint else None


def numbers_in_row(m: Misreading) -> Problem | None:
    """`L2H3,4` and `@1,2`."""
    read = re.search(r"(?:\b[LHN]\d*[HN]?|[HN]|@)((?:-?\d+\s*,\s*)+)$", m.before)
    rest = re.match(r"-?\d+(?:\s*,\s*-?\d+)*", m.rest)
    if read is None or rest is None:
        return None
    start = read.start(1)
    if read[0][0] != "@":  # `L2H3,4`: the numbers of the last letter
        start = m.before.rindex(re.search(r"\d+[\d\s,]*$", m.before)[0])  # type: ignore[index]
    end = m.at + len(rest[0])
    said = ",".join(part.strip() for part in m.source[start:end].split(","))
    hint = m.remedy(start, end, f"[{said}]")
    return m.problem("several numbers stand between brackets", hint, start, end - start) if hint else None


def joined_positions(m: Misreading) -> Problem | None:
    """`@first and last` and `@" Mary" or " John"`."""
    start, _ = m.word_at_fault()
    read = re.search(rf"@({QUOTED}|[\w.-]+)\s*$", m.body[:start])
    more = re.match(rf"(?:and|or|&|\|)\s*@?({QUOTED}|-?\d+|\w+)", m.source[start:])
    if read is None or more is None or not (more[1][:1] in "\"'-" or more[1].isdigit() or more[1] in RESERVED):
        return None
    hint = m.remedy(read.start(), start + more.end(), f"@[{m.source[read.start(1):read.end(1)]}, {more[1]}]")
    return m.problem("several positions stand between brackets", hint, start, max(1, len(m.found))) if hint else None


def counted_back(m: Misreading) -> Problem | None:
    """`@last-1` and `@len-1`."""
    read, rest = re.search(r"@\s*(last|len|end)\s*$", m.before), re.match(r"-\s*(\d{1,9})\b", m.rest)
    if read is None or rest is None:
        return None
    number = int(rest[1]) + (read[1] != "len")
    hint = m.remedy(read.start(), m.at + len(rest[0]), f"@-{number}")
    return m.problem("positions from the end are negative numbers", hint, read.start(), m.at + len(rest[0]) - read.start())


def product(m: Misreading) -> Problem | None:
    """`by 3 sigma`, `by {v} x 4`."""
    start, word = m.word_at_fault()
    if m.verb is None or "VALUE" not in m.verb.form or not re.search(r"[\d}]\s*$", m.body[:start]):
        return None
    if word in m.verb.option_names or not (word or m.rest[:1] in "{("):
        return None
    end = start + len(word) if word in ("x", "times") else start
    hint = m.remedy(start, end, "*" if end > start else "* ")
    return m.problem("a product is written with *", hint, start, max(1, len(word))) if hint else None


def second_claim(m: Misreading) -> Problem | None:
    """`expect a < 1 and a > 0`."""
    start, word = m.word_at_fault()
    if m.word != "expect" or word not in ("and", "or"):
        return None
    return m.problem("one line holds one claim", "write expect once more, in a line of its own", start, len(word))


def split_name(m: Misreading) -> Problem | None:
    """`metric logit diff`."""
    start, word = m.word_at_fault()
    before = re.search(r"([^\W\d]\w*)\s+$", m.body[:start])
    if m.word != "metric" or before is None or f"{before[1]}_{word}" not in METRICS:
        return None
    hint = m.remedy(before.end(1), start, "_")
    return m.problem("the name of a metric is one word", hint, before.start(1), start + len(word) - before.start(1))


RULES = (sign_of_verb, method, zero_method, late_each, joined_places, numbers_in_row, joined_positions, counted_back,
         second_claim, split_name, whole_line, product)
