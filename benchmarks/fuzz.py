"""Throw damaged specs at the reader of the hook language: it must answer each with a `Spec` or with a `SpecError`.

    python benchmarks/fuzz.py 100000 [SEED]

What is accepted must also survive being printed and read again, and being written as JSON and read again; every problem
must have words, a remedy, and a caret that stands in the text. Prints counts, and every text that went wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CELLS = ROOT / "tests" / "cells"
_WORD = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|\s+|[A-Za-z_]\w*|\d+|.", re.S)
SIGNS = [*"{}[]()@:;,.*+-/=<>!~|&#%$^'\"\\", "->", "==", "~=", "::", "..", "\n", "\n    ", "\t", "\r\n", "\x00", "\x01", "é",
         "“",
         "→", "\u2028", "9" * 20, "1e999", "0.5", "-1", "L", "H", "N", "F", "L9H9", "L*", "L0:6", "L[l]", "each ", "@last ",
         "@each ", "{v}", '" a"', "''", '"\\u12', " from ", " by ", " with ", " -> ", " except ", "min=", "hookspec 9\n",
         "   ",
         "run on main:\n"]


def cells(name: str = "valid.txt") -> list[str]:
    """The texts of a file of cells."""
    text = (CELLS / name).read_text(encoding="utf-8")
    return [cell.split("\n", 1)[1] for cell in re.split(r"^=== ", text, flags=re.M)[1:]]


class Mutator:
    """Makes damaged texts, the same ones for the same seed.

    >>> Mutator(["zero L9H9"], seed=1).text() == Mutator(["zero L9H9"], seed=1).text()
    True
    """

    def __init__(self, sources: list[str], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.sources = sources
        self.words = sorted({word for text in sources for word in _WORD.findall(text)})

    def text(self) -> str:
        """A damaged text."""
        text = self.piece()
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            text = self.random.choice((self.words_changed, self.words_changed, self.characters_changed,
                                       self.lines_changed))(text)
        return text

    def piece(self) -> str:
        """A whole cell now and then; mostly its prompts and a few of its lines."""
        source = self.random.choice(self.sources)
        if self.random.random() < 0.25:
            return source
        lines = source.split("\n")
        start = self.random.randrange(len(lines))
        head = [line for line in lines[:start] if line.startswith(("prompt", "answer", "metric"))]
        return "\n".join([*head, *lines[start:start + self.random.randint(1, 4)]])

    def words_changed(self, text: str) -> str:
        """One word left out, doubled, exchanged, replaced or put in."""
        words = _WORD.findall(text) or [""]
        at, other = self.random.randrange(len(words)), self.random.randrange(len(words))
        new = self.random.choice(self.words if self.random.random() < 0.6 else SIGNS)
        change = self.random.randrange(5)
        if change == 0:
            words[at] = ""
        elif change == 1:
            words[at] *= 2
        elif change == 2:
            words[at], words[other] = words[other], words[at]
        elif change == 3:
            words[at] = new
        else:
            words.insert(at, new)
        return "".join(words)

    def characters_changed(self, text: str) -> str:
        """One character left out, put in, or a stretch repeated."""
        at = self.random.randrange(len(text) + 1)
        end = min(len(text), at + self.random.choice((1, 1, 1, 2, 5, 30)))
        new = self.random.choice(SIGNS) if self.random.random() < 0.5 else chr(self.random.choice((32, 127, 255, 0x2FF,
                                                                                                   0xFFFF)))
        return text[:at] + self.random.choice(("", new, text[at:end] * 2, new + text[at:end],
                                               text[at:end] * 40)) + text[end:]

    def lines_changed(self, text: str) -> str:
        """Lines exchanged, joined, indented, taken from another cell."""
        lines = text.split("\n")
        at, other = self.random.randrange(len(lines)), self.random.randrange(len(lines))
        change = self.random.randrange(5)
        if change == 0:
            lines[at], lines[other] = lines[other], lines[at]
        elif change == 1:
            lines[at] = self.random.choice((" ", "    ", "\t")) + lines[at]
        elif change == 2:
            lines[at] = lines[at].strip()
        elif change == 3 and at + 1 < len(lines):
            lines[at:at + 2] = [lines[at] + self.random.choice((" ", "", ";")) + lines[at + 1]]
        else:
            lines[at:at] = self.random.choice(self.sources).split("\n")[:self.random.randint(1, 4)]
        return "\n".join(lines)


def verdict(text: str) -> str:
    """`accepted`, `refused`, or what went wrong."""
    from hooklab.problems import SpecError
    from hooklab.spec.parser import parse

    try:
        spec = parse(text)
    except SpecError as error:
        lines = text.split("\n")
        return next(filter(None, (fault(problem, lines) for problem in error.problems)), "refused")
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"[:200]
    try:
        printed = str(spec)
        if parse(printed) != spec:
            return f"reads differently when printed: {printed[:200]!r}"
        if spec.from_json(json.dumps(spec.to_json())) != spec:
            return f"reads differently from JSON: {printed[:200]!r}"
    except Exception as error:
        return f"accepted, but cannot be written and read: {type(error).__name__}: {error}"[:400]
    return "accepted"


def fault(problem: Any, lines: list[str]) -> str:
    """What a problem lacks: words, a remedy, or a caret that stands in the text; empty when it has all."""
    if not problem.message or not problem.hint:
        return f"a problem without words: {problem}"
    if not 1 <= problem.line <= len(lines) or not 1 <= problem.column <= len(lines[problem.line - 1]) + 1:
        return f"a problem without place: {problem}"
    if problem.width > max(1, len(lines[problem.line - 1]) - problem.column + 1):
        return f"a caret wider than its line: {problem}"
    return ""


def main() -> int:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    options.add_argument("count", type=int)
    options.add_argument("seed", type=int, nargs="?", default=0)
    given = options.parse_args()
    sys.path.insert(0, str(ROOT))
    mutator = Mutator(cells("valid.txt") + cells("invalid.txt"), given.seed)
    found: Counter[str] = Counter()
    verdict("")  # builds the parser
    slowest, started = (0.0, ""), time.perf_counter()
    try:
        for _ in range(given.count):
            text = mutator.text()
            begun = time.process_time()
            outcome = verdict(text)
            slowest = max(slowest, (time.process_time() - begun, text))
            found[outcome if outcome in ("accepted", "refused") else "failed"] += 1
            if outcome not in ("accepted", "refused"):
                print(f"{outcome}\n    {text!r}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    seconds, worked = time.perf_counter() - started, time.process_time()
    print(f"{found.total()} texts: {found['accepted']} accepted, {found['refused']} refused, {found['failed']} failed, "
          f"in {seconds:.0f} s, {worked:.0f} s of one core; the slowest took {1000 * slowest[0]:.0f} ms: "
          f"{slowest[1][:100]!r}")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
