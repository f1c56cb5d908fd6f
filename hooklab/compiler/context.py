"""What every part of the compiler looks things up in: the spec's names, the model's facts, the problems found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from zlib import crc32

from ..errors import HooklabError, did_you_mean
from ..problems import Problem
from ..spec import ast

BASELINE = "baseline"
MAIN = "main"
IMPLICIT = "hooked"

Env = Mapping[str, Any]
"""Values of the sweep variables in force."""


class World(Protocol):
    """What the compiler may ask of a model; the runtime gives it, and tests may give a stand-in."""

    facts: Any
    itemsize: int  # bytes of one number of the model

    def missing(self, site: str) -> str | None:
        """Why the model lacks a site, or None."""

    def prompt(self, value: Any, *, image: Any = None, chat: bool = False) -> Any:
        """An input made ready: `.tokens` and `.size`. Raises HooklabError."""

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text that stands alone, without special ones. Raises HooklabError."""

    def piece(self, token: int) -> str:
        """The text of a token."""

    def vocabulary(self) -> Sequence[int]:
        """Tokens that random prompts are drawn from."""

    def sae_size(self, name: str) -> int:
        """How many features the dictionary of a name has."""

    def sae_itemsize(self, name: str) -> int:
        """Bytes of one of its features."""

    def opening(self) -> tuple[int, ...]:
        """What the tokenizer puts before every prompt."""


class Stop(Exception):
    """What is being compiled cannot go on; its problem has been noted."""


@dataclass
class Context:
    """The state of one compilation."""

    world: World
    values: Mapping[str, Any]
    prompts: dict[str, ast.Prompt] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    lets: dict[str, ast.Let] = field(default_factory=dict)
    groups: dict[str, ast.Group] = field(default_factory=dict)
    sweeps: dict[str, ast.Sweep] = field(default_factory=dict)
    saes: dict[str, ast.Sae] = field(default_factory=dict)
    marks: list[ast.Mark] = field(default_factory=list)
    metrics: dict[str, ast.Metric] = field(default_factory=dict)
    answer: ast.Answer | None = None
    seed: int = 0
    problems: list[Problem] = field(default_factory=list)
    drawn: dict[str, int] = field(default_factory=dict)
    found: dict[Any, Any] = field(default_factory=dict)

    def problem(self, kind: str, message: str, where: Any = None, hint: str = "") -> None:
        """Note a problem at a node."""
        span = where if isinstance(where, ast.Span) else getattr(where, "span", None)
        if span is None:
            self.problems.append(Problem(kind, message, hint=hint))
            return
        width = span.end_column - span.column if span.end_line == span.line else 1
        self.problems.append(Problem(kind, message, span.line, span.column, max(1, width), hint))

    def fail(self, kind: str, message: str, where: Any = None, hint: str = "") -> Stop:
        """Note a problem and return what to raise."""
        self.problem(kind, message, where, hint)
        return Stop()

    @contextmanager
    def catch(self, where: Any, kind: str = "model") -> Iterator[None]:
        """Errors that hooklab raises inside become problems at a node, and stop what is being compiled."""
        try:
            yield
        except Stop:
            raise
        except HooklabError as error:
            first, _, rest = str(error).partition("\n")
            raise self.fail(kind, first, where, rest.strip()) from None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What cannot be compiled inside is left out; its problem is noted already."""
        try:
            yield
        except Stop:
            pass

    def each(self, make: Callable[[Any], Any], items: Iterable[Any]) -> tuple[Any, ...]:
        """What every item makes; one that is wrong is left out, its problem noted."""
        made = []
        for item in items:
            with self.going_on():
                made.append(make(item))
        return tuple(made)

    def given(self, source: str, where: Any) -> Any:
        """The value of Python between braces."""
        if source not in self.values:
            raise self.fail("value", f"{{{source}}} has no value", where,
                            f'give it: values={{"{source}": …}}; on the command line --set {source}=…, where there is one'
                            if source.isidentifier()
                            else "Python between braces is evaluated in a notebook only; give the value a name")
        return self.values[source]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once: a sweep asks for the same positions at each of its points."""
        try:
            hash(key)
        except TypeError:
            return make()
        if key not in self.found:
            self.found[key] = make()
        return self.found[key]

    def tokens(self, prompt: str) -> Any:
        """The tokens of a prompt."""
        return self.inputs[prompt].tokens

    def marks_of(self, prompt: str, env: Mapping[str, Any]) -> dict[str, Any]:
        """The named positions that hold in a prompt; sweep variables count as names too."""
        found = {mark.name: self.filled(mark.pos, mark) for mark in self.marks if mark.prompt in (None, prompt)}
        return {**found, **{name: value for name, value in env.items() if isinstance(value, (int, str, slice))}}

    def filled(self, selector: Any, where: Any) -> Any:
        """A selector with its Python holes given their values."""
        from ..positions import fill, holes_in

        sources = holes_in(selector)
        if not sources:
            return selector
        with self.catch(where, "value"):
            return fill(selector, {source: self.given(source, where) for source in sources})

    def untouched(self, name: str, current: str, where: Any) -> str:
        """The run that a name means; `baseline` is the untouched run of the current prompt."""
        if name == BASELINE:
            return current
        if name not in self.runs:
            known = [BASELINE, *self.runs]
            raise self.fail("name", f"there is no run or prompt {name!r} above this line", where,
                            f"there are {', '.join(known)}.{did_you_mean(name, known)}")
        return name

    def draw(self, statement: ast.Statement) -> tuple[int, int]:
        """What a line's random numbers derive from: the seed and what the line says, not where it stands."""
        text = str(ast.Spec((statement,)))
        count = self.drawn[text] = self.drawn.get(text, -1) + 1
        return self.seed, crc32(f"{text}#{count}".encode())
