"""Completions inside `%%hook` cells and after `%hook`: what the language offers, handed to IPython's completer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
    provisionalcompleter,
)

from ..errors import HooklabError, HooklabWarning
from ..sites import SITES
from ..spec.candidates import SHIPPED, Context, Item, prompt_texts
from ..spec.completer import complete
from ..spec.reference import topics
from . import commands
from .files import ENDING
from .line import Form
from .session import Session, is_model, is_open

_CELL = re.compile(r"\s*%%hook(?=\s|\Z)")
_LINE = re.compile(r"\s*%hook(?=\s|\Z)")
MOST_TOKENS = 200


class Matcher:
    """Completes hook cells of one shell."""

    def __init__(self, shell: Any, session: Session, form: Form) -> None:
        self.shell, self.session, self.form = shell, session, form

        @context_matcher(priority=2000, identifier="hooklab.hook")
        def match(context: CompletionContext) -> SimpleMatcherResult:
            return self.complete(context)

        self.match = match

    def complete(self, context: CompletionContext) -> SimpleMatcherResult:
        """Completions at a cursor; nothing outside of hook cells."""
        text, lines = context.full_text, context.full_text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[:context.cursor_line]) + context.cursor_position
        cell = _CELL.match(text)
        if cell is None:
            line = lines[context.cursor_line][:context.cursor_position]
            found = _LINE.match(line)
            return self._line(line[found.end():]) if found and line[found.end():found.end() + 1] == " " else _nothing()
        end = text.find("\n", cell.end())
        if end < 0 or cursor <= end:
            return self._first_line(text[cell.end():cursor]) if cursor > cell.end() else _nothing()
        return self._body(text[cell.end():end], text[end + 1:], cursor - end - 1)

    # The first line, and the line magic ---------------------------------------------------------------------------

    def _first_line(self, before: str) -> SimpleMatcherResult:
        word = before.split(" ")[-1]
        items = [Item(name, "option", flag.does) for flag in self.form.flags for name in flag.names]
        named = [one for one in before.split()[:-1 if word else None] if not one.startswith("-")]
        if before.split()[-2 if word else -1:][:1] in (["-o"], ["--output"]):
            return _silence()
        return _offered(word, [*(self._models() if not named else []), *items])

    def _models(self) -> list[Item]:
        variables = [name for name, value in self.shell.user_ns.items() if not name.startswith("_") and is_model(value)]
        known = [str(key[0]) for key in self.session.models]
        return [Item(name, "model") for name in dict.fromkeys([*variables, *known, *SHIPPED])]

    def _line(self, before: str) -> SimpleMatcherResult:
        parts = before.split()
        word = "" if before.endswith(" ") else parts.pop()
        if not parts:
            return _offered(word, [Item(name, "command", one.does) for name, one in commands.COMMANDS.items()])
        command = commands.COMMANDS.get(parts[0])
        if command is None:
            return _nothing()
        items = [Item(name, "option", flag.does) for flag in command.form.flags for name in flag.names]
        if parts[0] == "help":
            items = [Item(topic, "topic") for topic in topics()]
        elif "FILE" in command.form.words and len(parts) == 1 and parts[0] != "save":
            items = [*(Item(name, "file") for name in _files(word)), *items]
        elif parts[0] == "save" and len(parts) == 1 and not word.startswith("-"):
            return _nothing()
        elif parts[0] == "run" and len(parts) == 2:
            items = [*self._models(), *items]
        elif parts[0] == "sites":
            count = self.session.last.facts.n_layers if is_open(self.session.last) else 1
            items = [Item(f"L{n}", "site") for n in range(count)]
        return _offered(word, items)

    # The body -----------------------------------------------------------------------------------------------------

    def _body(self, line: str, body: str, cursor: int) -> SimpleMatcherResult:
        found = complete(body, cursor, self._context(line, body))
        if found.python is not None:
            return self._python(found.python)
        return _result(body[found.start:cursor], found.items)

    def _context(self, line: str, body: str) -> Context:
        named = [word for word in line.split() if not word.startswith("-")]
        model = self.shell.user_ns.get(named[0]) if named else self.session.last
        if named and not is_model(model):
            model = self.session.models.get((named[0],))
        models = tuple(dict.fromkeys([*(str(key[0]) for key in self.session.models), *SHIPPED]))
        if not is_model(model) or not is_open(model):
            return Context(models=models)
        missing = frozenset(name for name in SITES if model.sites.missing(name) is not None)
        return Context(model.facts.n_layers, model.facts.n_heads, missing, _tokens(model, body), models)

    def _python(self, source: str) -> SimpleMatcherResult:
        """What IPython's own completer offers for the Python of an open brace."""
        with provisionalcompleter():
            found = list(self.shell.Completer.completions(source, len(source)))
        if not found:
            return _silence()
        start = min(one.start for one in found)
        offered = [SimpleCompletion(source[start:one.start] + one.text, type=one.type or "python") for one in found]
        return {"completions": offered, "suppress": True, "matched_fragment": source[start:], "ordered": True}


def _tokens(model: Any, body: str) -> tuple[str, ...]:
    """The tokens of the cell's prompts, as their texts; empty where they cannot be told."""
    try:
        with warnings.catch_warnings():  # running the cell is the time to warn, not typing it
            warnings.simplefilter("ignore", HooklabWarning)
            pieces = [piece for text in prompt_texts(body)[:8] for row in model.tokens(text).pieces for piece in row]
    except (HooklabError, ValueError, TypeError, AttributeError):
        return ()
    return tuple(dict.fromkeys(piece for piece in pieces if piece.strip()))[:MOST_TOKENS]


def _files(word: str) -> list[str]:
    folder, _, start = word.rpartition("/")
    base = Path(folder or ("/" if word.startswith("/") else ".")).expanduser()
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in base.iterdir()
                       if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix == ENDING))
    except OSError:
        return []
    return [f"{folder}/{name}" if "/" in word else name for name in names if name.startswith(start)]


class _Silence:
    """An answer without completions. It claims to have one: IPython asks Python's completers when an answer is empty."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SimpleCompletion]:
        return iter(())


def _nothing() -> SimpleMatcherResult:
    """No answer, so that IPython's own completers are asked; IPython writes into it, so each has its own."""
    return {"completions": [], "suppress": False}


def _silence() -> SimpleMatcherResult:
    """The answer that there is nothing to offer, neither here nor by others."""
    return {"completions": cast("Sequence[SimpleCompletion]", _Silence()), "suppress": True, "matched_fragment": ""}


def _offered(word: str, items: Iterable[Item]) -> SimpleMatcherResult:
    return _result(word, [item for item in items if item.text.startswith(word)])


def _result(fragment: str, items: Iterable[Item]) -> SimpleMatcherResult:
    offered = [SimpleCompletion(item.text, type=item.kind) for item in items]
    if not offered:
        return _silence()
    return {"completions": offered, "suppress": True, "matched_fragment": fragment, "ordered": True}

