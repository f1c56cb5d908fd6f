"""Slips of those who come from other libraries: their paths of modules, spoken places, Python's strings, other comments."""

from __future__ import annotations

import re

from ..problems import Problem
from .misreading import PREPOSITIONS, Misreading, short
from .othernames import PATH, place, translated
from .scan import QUOTED

_SPOKEN = re.compile(r"\b(?:layer|block)s?\s*(\d+)(?:[\s,.]*\bheads?\s*(\d+))?(?:[\s.]+([^\W\d]\w*))?", re.I)
_HEAD_FIRST = re.compile(r"\bheads?\s*(\d+)(?:\s+(?:in|of|at|from)\s+(?:layer|block)\s*(\d+))?", re.I)
_PREFIX = re.compile(r"(?<!\w)[fFrRbBuU]{1,2}$")


def path(m: Misreading) -> Problem | None:
    """`blocks.5.attn.hook_z`, `model.layers[3].mlp`, `transformer.h.3.attn`."""
    for match in PATH.finditer(m.body):
        if match.start() <= m.at <= match.end():
            meant = place(match[0]) or f"L{match[1] or match[2]}.resid_post, say"
            return m.problem("sites have short names here", f"write {meant}", match.start(), len(match[0]))
    return None


def spoken(m: Misreading) -> Problem | None:
    """`layer 3 resid`, `layer 2 head 3` and `head 3 in layer 2`."""
    if m.verb is None or not re.search("PLACES|HEADS", m.verb.form) or re.search("[\"']", m.body):
        return None
    for match in _HEAD_FIRST.finditer(m.body):
        if match.start() <= m.at <= match.end():
            hint = f"write L{match[2]}H{match[1]}" if match[2] else f"write its layer too: L0H{match[1]}"
            return m.problem("a head is named by its layer and its number", hint, match.start(), len(match[0]))
    for match in _SPOKEN.finditer(m.body):
        if match.start() <= m.at <= match.end():
            layer, head, word = match.groups()
            site = translated([word]) if word and word not in PREPOSITIONS else None
            meant = f"L{layer}H{head}" if head else f"L{layer}.{site or 'resid'}"
            width = match.end() - match.start() if site or not word else match.start(3) - match.start()
            return m.problem("a layer is written L and its number", f"write {meant}", match.start(), width)
    return None


def quoted_place(m: Misreading) -> Problem | None:
    """`zero "L1.mlp"` and `save 'blocks.1.hook_mlp_out'`."""
    text = re.match(QUOTED, m.rest)
    if m.verb is None or text is None or "PLACES" not in m.verb.form or m.before[m.first:].strip() != m.word:
        return None
    inside = text[0][1:-1]
    hint = m.remedy(m.at, m.at + len(text[0]), place(inside) or inside)
    return m.problem("places stand without quotes", hint, width=len(text[0])) if hint else None


def python_string(m: Misreading) -> Problem | None:
    """`prompt f"…"` and `prompt "a" + "b"`."""
    text, prefix = re.match(QUOTED, m.rest), _PREFIX.search(m.before)
    if text is not None and prefix is not None:
        start, end = prefix.start(), m.at + len(text[0])
        only = re.fullmatch(r"[fF]\S\{([^{}]+)\}\S", m.source[start:end]) if m.word != "prompt" else None
        meant = f"{{{only[1] if only else m.source[start:end]}}}"
        return m.problem("this is a string of Python", m.remedy(start, end, meant) or f"write {short(meant)}", start,
                         end - start)
    head = re.match(r"prompt\s*(?:[^\W\d]\w*\s*=\s*)?(?=[\"'])", m.body[m.first:])
    if head is None or m.rest[:1] not in ("+", "%", "*", "."):
        return None
    start, end = m.first + head.end(), len(m.body.rstrip())
    hint = m.remedy(start, end, f"{{{m.source[start:end]}}}")
    return m.problem("this reads like Python", hint, start, end - start) if hint else None


def comment(m: Misreading) -> Problem | None:
    """`zero L0H0 // note` and `-- note`."""
    if m.verb is None or "VALUE" in m.verb.form or not m.rest.startswith(("//", "--")):
        return None
    return m.problem("a comment starts with #", f"write {m.replaced(m.at, m.at + 2, '#')}", width=2)


def one_word(m: Misreading) -> Problem | None:
    """`L 1.mlp`."""
    gap = re.search(r"\b[LHN](\s+)$", m.before)
    if gap is None or not m.rest[:1].isdigit():
        return None
    hint = m.remedy(gap.start(1), gap.end(1), "")
    return m.problem("a layer and its number are one word", hint, gap.start(), gap.end() - gap.start()) if hint else None


RULES = (python_string, path, spoken, quoted_place, comment, one_word)
