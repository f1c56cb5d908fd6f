"""What may come next at a cursor inside a spec: the grammar's own tables say which kind, the names say which words.

    text, cursor ──line──▶ the statement so far ──lark──▶ stack, accepted ──▶ role ──candidates──▶ items

The statement in which the cursor stands is read alone, so that a mistake elsewhere does no harm. What lies on the
parser's stack says what the next word would be: a place, a position, a run, a metric, an option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lark import Token, Tree

from . import candidates as c
from .candidates import Context, Item, Names
from .parser import grammar
from .unfinished import Line, statement
from .verbs import VERBS

LONGEST = 50_000
_WORD = re.compile(r"[^\W\d]\w*\Z")
_BEGIN = {"_FROM", "_TO", "_WITH", "_ON", "_IN", "_BY", "_ALONG", "_OVER", "_SHOW", "_EXPECT", "CMP", "_METRIC", "_AT",
          "_ANSWER", "_VS", "EQUAL", "DOT", "LPAR", "LSQB", "COMMA", "EACH", "__ANON_0", "_EXCEPT", "AT", "PLUS", "MINUS",
          "SLASH", "VBAR", "AMPERSAND", *(f"_{name.upper()}" for name in VERBS)}
"""Tokens after which something new begins; after any other, what is there goes on or ends."""


@dataclass(frozen=True)
class Completions:
    """What may stand from `start` to the cursor; with `python`, the Python of an open brace that is to be completed."""

    start: int
    items: tuple[Item, ...] = ()
    python: str | None = None


def complete(text: str, cursor: int, context: Context | None = None) -> Completions:
    """What may come next at an offset of a spec, best first; empty where nothing can be said. Never raises.

    >>> found = complete("patch each L*.resid @each fr", 28)
    >>> found.start, [item.text for item in found.items]
    (26, ['from'])
    >>> complete("steer L6.resid by {vec.no", 25).python
    'vec.no'
    """
    context = context or Context()
    cursor = max(0, min(cursor, len(text)))
    line = statement(text[max(0, cursor - LONGEST):cursor])
    if line.open == "{":
        return Completions(cursor, python=line.inside)
    if line.open == "#":
        return Completions(cursor)
    names = c.names(text if len(text) <= LONGEST else text[max(0, cursor - LONGEST):cursor])
    if line.open:
        items = _quoted(line, names, context, text[cursor:cursor + 1])
        return _starting(line.inside, items, cursor)
    found = _WORD.search(line.text)
    word = found[0] if found else ""
    before = line.text[:len(line.text) - len(word)]
    return _starting(word, _next(before, word, line.indented, names, context), cursor)


def _starting(word: str, items: Iterator[Item], cursor: int) -> Completions:
    kept = {item.text: item for item in items if item.text.lower().startswith(word.lower()) and item.text != word}
    return Completions(cursor - len(word), tuple(kept.values()))


# What the next word would be -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Here:
    """Where the cursor stands in the grammar.

    Attributes:
        stack: What the parser holds: tokens that are not yet part of anything larger, and finished parts.
        accepts: Names of the terminals that may come next.
        verb: The statement's verb; empty before it.
        word: What is typed of the next word.
        names, context: What the cell and the model know.
    """

    stack: tuple[Any, ...]
    accepts: frozenset[str]
    verb: str
    word: str
    names: Names
    context: Context

    @property
    def top(self) -> str:
        """Kind of the last thing on the stack."""
        return _kind(self.stack[-1]) if self.stack else ""

    @property
    def kinds(self) -> list[str]:
        """Kinds of everything on the stack."""
        return [_kind(item) for item in self.stack]


def _kind(item: Any) -> str:
    return item.type if isinstance(item, Token) else str(item.data) if isinstance(item, Tree) else ""


def _read(text: str) -> tuple[list[Any], frozenset[str]] | None:
    """The parser's stack after a statement's beginning and what it accepts; None where that cannot be read."""
    try:
        parser = grammar().parse_interactive(text)
        parser.exhaust_lexer()
        return list(parser.parser_state.value_stack), frozenset(parser.accepts())
    except Exception:  # anything that the text does to the parser only means that nothing is offered
        return None


def _here(text: str, word: str, names: Names, context: Context) -> Here | None:
    read = _read(text)
    if read is None:
        return None
    stack, accepts = read
    kinds = [_kind(item) for item in stack]
    if "_RUN" in kinds[:1] and "COLON" in kinds:
        stack = stack[kinds.index("COLON") + 1:]
    verb = str(stack[0]).lower() if stack and isinstance(stack[0], Token) else ""
    return Here(tuple(stack), accepts, verb if verb in VERBS else "", word, names, context)


def _next(text: str, word: str, indented: bool, names: Names, context: Context) -> Iterator[Item]:
    here = _here(text, word, names, context)
    if here is None:
        return
    if not here.stack:
        yield from c.verbs(in_run=indented or text.strip() != "")
        return
    every = here.kinds[-2:] == ["AT", "EACH"]  # `@each`, which may end there
    if not every and (here.top in _BEGIN or (here.top == "STAR" and "FLOAT" in here.accepts)):
        own = str(here.stack[1]) if here.verb in ("run", "mark", "let", "group") and len(here.stack) > 1 else ""
        if "EACH" in here.accepts and here.top != "AT":
            yield c.EACH
        yield from (item for item in _begin(here) if item.text != own)
        yield from c.keywords(here.accepts, here.verb)
    elif text[-1:].isspace():
        yield from _further(here)
    else:
        yield from c.units(here.accepts, here.context)


def _further(here: Here) -> Iterator[Item]:
    """Items after something that is finished: a preposition, a position, an option."""
    yield from c.keywords(here.accepts, here.verb)
    if str(here.stack[-1]) not in (*here.names.of("let"), *here.names.of("sweep")):
        yield from c.at_positions(here.accepts, here.names)
    if here.verb == "show":
        yield from c.shown(here.names)
        yield from c.sites(here.names, here.context, here.word)
    if "NAME" in here.accepts:
        yield from c.options(here.verb, used={str(item) for item in here.stack if isinstance(item, Token)})


def _begin(here: Here) -> Iterator[Item]:
    """Items where something new begins, chosen by what lies on top of the stack."""
    if here.top != "_IN" and ("AT" in here.kinds or {"_MARK", "EQUAL"} <= set(here.kinds)):
        yield from c.edges() if here.top == "DOT" else c.positions(here.names, here.context)
        return
    role = _ROLES.get((here.verb, here.top)) or _ROLES.get(("", here.top))
    if role is None:
        role = _values if here.top in ("PLUS", "MINUS", "STAR", "SLASH", "LPAR") else _listed
    yield from role(here)


def _listed(here: Here) -> Iterator[Item]:
    """After a comma, bracket or `each`: more of what the list holds."""
    kinds = here.kinds
    brackets = [i for i, kind in enumerate(kinds) if kind in ("LPAR", "LSQB")]
    if brackets and kinds[brackets[-1]] == "LPAR":
        yield from _values(here)
    elif brackets:
        owner = kinds[brackets[-1] - 1] if brackets[-1] else ""
        yield from c.variables(here.names) if owner in ("_LAYER", "_HEAD", "_NEURON", "_FEATURE") else ()
    elif not {"_BY", "EQUAL"} & set(kinds) or here.verb == "group":
        yield from _places(here)


def _places(here: Here) -> Iterator[Item]:
    yield from c.sites(here.names, here.context, here.word)


def _values(here: Here) -> Iterator[Item]:
    called = here.kinds.index("LPAR") if "LPAR" in here.kinds else 0
    function = str(here.stack[called - 1]) if called else ""
    if function == "kl":
        yield from c.runs(here.names)
    elif here.verb == "expect":
        yield from c.measures(here.names)
    else:
        yield from c.values(here.names, here.verb, here.word)


def _source(here: Here) -> Iterator[Item]:
    yield from c.runs(here.names)
    if here.verb == "patch":
        yield from c.values(here.names, here.verb, here.word)


def _after_dot(here: Here) -> Iterator[Item]:
    owner = here.stack[-2]
    if isinstance(owner, Tree):
        yield from c.parts(owner, here.context)
    elif str(owner) in here.names.saes:
        yield Item("F", "site", "feature of the dictionary")
    else:
        yield from c.of_run(here.names, here.context, here.word, numbers=here.verb in ("expect", "let", "metric"))


def _after_equals(here: Here) -> Iterator[Item]:
    declared = len(here.stack) == 3
    roles: dict[str, Callable[[Here], Iterator[Item]]] = {
        "let": _values, "group": _places, "metric": lambda h: c.metrics(h.names),
        "prompt": lambda h: c.generators(), "sae": lambda h: iter(())}
    if declared and here.verb in roles:
        yield from roles[here.verb](here)
    else:
        yield from c.option_words(here.verb, str(here.stack[-2]))


_ROLES: dict[tuple[str, str], Callable[[Here], Iterator[Item]]] = {
    ("", "DOT"): _after_dot, ("", "EQUAL"): _after_equals, ("", "_FROM"): _source,
    ("", "_ON"): lambda h: c.runs(h.names), ("", "_OVER"): lambda h: c.prompts(h.names),
    ("mark", "_IN"): lambda h: c.prompts(h.names), ("sweep", "_IN"): lambda h: c.ranges(h.context),
    ("", "_WITH"): lambda h: c.methods(h.verb), ("freeze", "_TO"): lambda h: c.runs(h.names),
    ("attribute", "_TO"): lambda h: c.named_metrics(h.names), ("sae", "_TO"): _places,
    ("", "_TO"): _values, ("", "_BY"): _values,
    ("", "_ALONG"): _values, ("", "_SHOW"): lambda h: c.views(), ("", "_EXPECT"): lambda h: c.measures(h.names),
    ("", "CMP"): lambda h: c.measures(h.names), ("", "_METRIC"): lambda h: c.metrics(h.names),
    ("", "_ANSWER"): lambda h: iter((Item("first(", "function", "first tokens of longer answers"),)),
    ("", "_VS"): lambda h: iter((Item("first(", "function", "first tokens of longer answers"),)),
    ("", "_LENS"): lambda h: (*c.at_positions(h.accepts, h.names), *_places(h)).__iter__(),
    ("", "__ANON_0"): lambda h: (*c.at_positions(h.accepts, h.names), *_places(h)).__iter__(),
    **{("", f"_{name}"): lambda h: iter(()) for name in ("PROMPT", "MARK", "LET", "GROUP", "SWEEP", "SAE", "MODEL", "RUN",
                                                         "SEED", "GENERATE", "HOOKSPEC", "AS")},
    **{("", f"_{name.upper()}"): _places for name, verb in VERBS.items()
       if verb.kind == "edit" or name in ("save", "attribute", "score")},
    ("", "_AT"): _places, ("", "_EXCEPT"): _places,
}


def _quoted(line: Line, names: Names, context: Context, after: str) -> Iterator[Item]:
    """Items inside an open quote: tokens where a text of the prompt is meant, names of models."""
    here = _here(line.text, "", names, context)
    if here is None or "STRING" not in here.accepts:
        return
    close = "" if after == line.open else line.open
    if here.verb == "model":
        yield from (Item(name + close, "model") for name in context.models)
    elif here.verb in ("answer", "metric", "expect", "mark") or "AT" in here.kinds:
        yield from c.token_texts(names, context, line.open, close)
