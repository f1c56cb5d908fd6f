"""Checks of options: `name=value` at the end of a line, held to the table of verbs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from . import ast
from .checker import Checker, listed
from .places import slice_problem
from .verbs import NUMBER, TEXT, TRUTH, VALUE, VERBS, WHOLE, WORD, Option, Verb

# smallest value of a whole number; 0 where none is given
POSITIONS = ("po", "pos", "position", "token", "index", "at")  # what a position is called elsewhere, less its s
SMALLEST = {"samples": 1, "window": 1, "top": 1, "top_k": 1, "steps": 1, "batch": 1}
EXAMPLES = {NUMBER: "0.5", WHOLE: "3", TRUTH: "true", TEXT: '"text"', VALUE: "{value}", WORD: "{word}"}


def options(c: Checker, statement: Any) -> None:
    """Check the options of a statement: known, given once, of the right kind."""
    verb = VERBS[statement.verb]
    known = {option.name: option for option in verb.options}
    seen: set[str] = set()
    for opt in statement.opts:
        if opt.name in seen:
            c.say("value", f"{opt.name}= is given twice", "leave one of them out", opt)
        elif opt.name not in known:
            c.say("name", f'{verb.name} has no option "{opt.name}"', _instead(c, opt.name, known, verb), opt)
        else:
            _kind(c, opt, known[opt.name])
        seen.add(opt.name)


def _instead(c: Checker, name: str, known: dict[str, Option], verb: Verb) -> str:
    """What to write for an option that the verb does not have."""
    if name.rstrip("s") in POSITIONS and re.search("PLACES|HEADS", verb.form):
        return "positions are written behind the place: @last, @-1, @[0, 2]"
    begun = [one for one in known if len(name) > 2 and one.startswith(name)]
    if len(begun) == 1:
        return f"did you mean {begun[0]}?"
    return c.meant(name, known, f"there are {listed(known)}" if known else f"{verb.name} has no options: {verb.form}")


def _kind(c: Checker, opt: ast.Opt, option: Option) -> None:
    value = opt.value
    if isinstance(value, ast.Py) or _is_variable(c, value, option):
        return
    problem = KINDS[option.kind](value, option)
    if problem and isinstance(value, ast.Word) and option.words:
        c.say("value", f"{opt.name}= {problem}, not {value.id}", c.meant(value.id, option.words), opt)
    elif problem:
        example = option.words[0] if option.words else EXAMPLES[option.kind]
        hint = f"write {opt.name}={example}"
        if isinstance(value, ast.Word) and option.kind in (VALUE, TEXT):
            hint = f"Python goes between braces: {opt.name}={{{value.id}}}; text goes between quotes"
        c.say("value", f"{opt.name}= {problem}", hint, opt)


def _is_variable(c: Checker, value: Any, option: Option) -> bool:
    """Whether the value is a sweep variable, or a value with a name."""
    return isinstance(value, ast.Word) and option.kind in (NUMBER, WHOLE, VALUE) and (
        value.id in c.names.sweeps or value.id in c.names.lets)


def _plain(value: Any) -> int | float | None:
    if isinstance(value, ast.Neg):
        inner = _plain(value.of)
        return None if inner is None else -inner
    return value.value if isinstance(value, ast.Num) and not isinstance(value.value, bool) else None


def _number(value: Any, option: Option) -> str:
    number = _plain(value)
    if number is None:
        return "is a number"
    if option.name == "temperature" and number < 0:
        return "cannot be negative; 0 takes the likeliest token"
    if option.name == "top_p" and not 0 < number <= 1:
        return "is above 0 and at most 1"
    return ""


def _whole(value: Any, option: Option) -> str:
    number = _plain(value)
    if not isinstance(number, int):
        return "is a whole number"
    smallest = SMALLEST.get(option.name, 0)
    return f"is at least {smallest}" if number < smallest else ""


def _truth(value: Any, option: Option) -> str:
    return "" if isinstance(value, ast.Word) and value.id in ("true", "false") else "is true or false"


def _word(value: Any, option: Option) -> str:
    if isinstance(value, ast.Word) and (not option.words or value.id in option.words):
        return ""
    return f"is {' or '.join(option.words)}" if option.words else "is a word"


def _text(value: Any, option: Option) -> str:
    return "" if isinstance(value, ast.Str) else "is text in quotes"


def _value(value: Any, option: Option) -> str:
    if isinstance(value, ast.Word):
        if option.words:
            return _word(value, option)
        return "is a value, and a bare word is none"
    if isinstance(value, ast.Range):
        return slice_problem(value.text, option.name.removesuffix("s"))
    if isinstance(value, ast.List) and not value.items:
        return "is an empty list"
    return ""


KINDS: dict[str, Callable[[Any, Option], str]] = {NUMBER: _number, WHOLE: _whole, TRUTH: _truth, WORD: _word, TEXT: _text,
                                                  VALUE: _value}


def number_of(statement: Any, name: str) -> int | float | None:
    """The value of an option that is a plain number, or None."""
    return next((_plain(opt.value) for opt in statement.opts if opt.name == name), None)
