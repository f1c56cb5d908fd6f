"""Text → selector: the hook language's positions, and the written form of the rest of the algebra.

    union    = meet {"|" meet} ;  meet = minus {"&" minus} ;  minus = postfix {"-" postfix} ;
    postfix  = atom { "." NAME ["(" arguments ")"] | "[" (INT | "*") "]" } ;
    atom     = INT | slice | "*" | "{" Python "}" | STRING | NAME | NAME "(" arguments ")" | "[" list "]" | "(" union ")" ;

Operators bind as in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..braces import closing
from ..errors import HooklabError, PositionError, did_you_mean
from . import build
from .select import (
    ROLE_NAMES,
    All,
    Each,
    Edge,
    Ends,
    Hole,
    Index,
    Mark,
    Role,
    Selector,
    SetOp,
    Several,
    Slice,
    TokenText,
)

_LEXER = re.compile(
    r"""\s*(?:(?P<int>\d+)|(?P<name>[^\W\d]\w*)|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<mark>[-|&.,:*=()\[\]]))"""
)
_ESCAPE = re.compile(r"\\(u([0-9a-fA-F]{4})|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"', "'": "'", "/": "/"}
_LEVELS = ("|", "&", "-")
EDGES = ("first", "last", "next", "prev")


class _Word(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Selector:
    """Read a position, with or without its `@`. Raises PositionError with a caret under what it cannot read.

    >>> parse("@subject.last") == Mark("subject").last
    True
    """
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.words = self._lex(text.index("@") + 1 if text.lstrip().startswith("@") else 0)
        self.i = 0

    def _lex(self, at: int) -> list[_Word]:
        words = []
        while self.text[at:].strip():
            found = _LEXER.match(self.text, at)
            brace = len(self.text) - len(self.text[at:].lstrip())
            end = closing(self.text, brace) if self.text[brace] == "{" else None
            if end is not None:
                words.append(_Word("hole", self.text[brace + 1 : end].strip(), brace))
                at = end + 1
                continue
            if not found:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                python = "; this brace has no closing brace" if self.text[at] == "{" else ""
                raise self.error(f"unexpected {self.text[at]!r}{python}", at)
            kind = str(found.lastgroup)
            words.append(_Word(found[kind] if kind == "mark" else kind, found[kind], found.start(kind)))
            at = found.end()
        return [*words, _Word("end", "", len(self.text))]

    def error(self, message: str, at: int | None = None) -> PositionError:
        at = self.words[self.i].at if at is None else at
        return PositionError(f"cannot read this position: {message}\n  {self.text}\n  {' ' * at}^")

    def peek(self, *kinds: str) -> bool:
        return self.words[self.i].kind in kinds

    def take(self, *kinds: str) -> _Word | None:
        if not self.peek(*kinds):
            return None
        self.i += 1
        return self.words[self.i - 1]

    def need(self, *kinds: str) -> _Word:
        word = self.take(*kinds)
        if word is None:
            found = self.words[self.i].text
            raise self.error(
                f"expected {' or '.join(kinds)}" + (f", not {found!r}" if found else ", but it ends here")
            )
        return word

    def whole(self) -> Selector:
        selector = self.sets(0)
        if not self.peek("end"):
            several = "; write [a, b] for several" if self.peek(",") else ""
            raise self.error(f"{self.words[self.i].text!r} does not belong here{several}")
        return selector

    def sets(self, level: int) -> Selector:
        if level == len(_LEVELS):
            return self.postfix()
        left = self.sets(level + 1)
        while self.take(_LEVELS[level]):
            left = SetOp(_LEVELS[level], left, self.sets(level + 1))
        return left

    def postfix(self) -> Selector:
        selector = self.atom()
        while word := self.take(".", "["):
            selector = self.pick(selector) if word.kind == "[" else self.attribute(selector)
        return selector

    def pick(self, selector: Selector) -> Selector:
        at = self.words[self.i].at
        which = "*" if self.take("*") else self.integer()
        self.need("]")
        return self.made(lambda: selector[which], at)

    def attribute(self, selector: Selector) -> Selector:
        word = self.need("name")
        if word.text in EDGES:
            return edge(selector, word.text)
        if word.text == "offset":
            self.need("(")
            k = self.integer()
            self.need(")")
            return selector.offset(k)
        hint = did_you_mean(word.text, (*EDGES, "offset"))
        raise self.error(f'no ".{word.text}"; there are .first .last .next .prev .offset(n).{hint}', word.at)

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        return sign * int(self.need("int").text)

    def atom(self) -> Selector:
        if self.peek("int", "-", ":"):
            return self.number()
        word = self.take("*", "string", "name", "[", "(", "hole")
        if word is None:
            raise self.error('expected a position: a number, 1:5, a name, "text" or a [list]')
        if word.kind == "string":
            return self.made(lambda: TokenText(unquote(word.text)), word.at)
        if word.kind == "hole":
            return Hole(word.text)
        if word.kind == "[":
            return Several(self.list())
        if word.kind == "(":
            inner = self.sets(0)
            self.need(")")
            return inner
        return All() if word.kind == "*" else self.name(word)

    def number(self) -> Selector:
        at = self.words[self.i].at
        bounds = [self.bound()]
        while len(bounds) < 3 and self.take(":"):
            bounds.append(self.bound())
        if len(bounds) == 1:
            return Index(bounds[0] if bounds[0] is not None else self.integer())
        return self.made(lambda: Slice(*bounds), at)

    def bound(self) -> int | None:
        return self.integer() if self.peek("int", "-") else None

    def list(self) -> tuple[Selector, ...]:
        items = [self.sets(0)]
        while self.take(","):
            items.append(self.sets(0))
        self.need("]")
        return tuple(items)

    def name(self, word: _Word) -> Selector:
        name = word.text
        if name == "each" and self.take("["):
            return Each(Several(self.list()))
        if self.take("("):
            return self.call(word)
        return named(name)

    def call(self, word: _Word) -> Selector:
        if word.text not in _CALLS:
            raise self.error(f'no function "{word.text}".{did_you_mean(word.text, _CALLS)}', word.at)
        args: list[Any] = []
        named: dict[str, Any] = {}
        while not self.take(")"):
            if args or named:
                self.need(",")
            if self.peek("name") and self.words[self.i + 1].kind == "=":
                key = self.need("name").text
                self.need("=")
                named[key] = self.sets(0)
            else:
                args.append(self.sets(0))
        return self.made(lambda: called(word.text, args, named), word.at)

    def made(self, build: Callable[[], Selector], at: int) -> Selector:
        """What `build` makes; what it refuses is shown under a caret."""
        try:
            return build()
        except HooklabError as e:
            raise self.error(str(e), at) from None


def named(name: str) -> Selector:
    """The selector that a bare word means."""
    fixed = {"all": All(), "each": Each(), "first": Ends("first"), "last": Ends("last")}
    if name in fixed:
        return fixed[name]
    return Role(name) if name in ROLE_NAMES else Mark(name)


def edge(of: Selector, name: str) -> Selector:
    """The selector that `of.name` means. Raises PositionError for an unknown name."""
    if name not in EDGES:
        raise PositionError(f'no ".{name}" on positions.{did_you_mean(name, EDGES)}')
    return Edge(of, name)


def unquote(quoted: str) -> str:
    """The text between quotes; an unknown escape stays as it is, so that a pattern may say "\\d"."""
    text = _ESCAPE.sub(lambda m: chr(int(m[2], 16)) if m[2] else _ESCAPES.get(m[1], m[0]), quoted[1:-1])
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # two halves of one character


def _integer(x: Selector) -> int:
    if not isinstance(x, Index):
        raise PositionError(f"expected a number, not {x}")
    return x.n


def _string(x: Selector) -> str:
    if not isinstance(x, TokenText) or x.which is not None:
        raise PositionError(f'expected a "text" in quotes, not {x}')
    return x.text


def _word(x: Selector) -> str:
    return str(x)


def _same(x: Selector) -> Selector:
    return x


# name → the Python function, and its parameters with what each must be
_CALLS: dict[str, tuple[Callable[..., Selector], dict[str, Callable[[Selector], Any]]]] = {
    "first": (build.first, {"k": _integer}),
    "last": (build.last, {"k": _integer}),
    "each": (build.each, {"of": _same}),
    "token": (build.token, {"text": _string}),
    "span": (build.span, {"pattern": _string}),
    "turn": (build.turn, {"speaker": _string}),
    "random": (build.random, {"n": _integer, "of": _same, "seed": _integer}),
    "split": (build.split, {"at": _same, "keep": _word}),
    "split_on": (build.split_on, {"text": _string, "keep": _word}),
    "row": (build.row, {"n": _integer, "of": _same}),
    "column": (build.column, {"n": _integer, "of": _same}),
    "mask": (build.mask, {}),  # takes any number of rows
}


def called(name: str, args: list[Selector], named: dict[str, Selector]) -> Selector:
    """The selector that `name(args)` means. Raises PositionError for an unknown function or argument."""
    if name not in _CALLS:
        raise PositionError(f'no function "{name}".{did_you_mean(name, _CALLS)}')
    if name == "mask":
        return build.mask(*map(_string, args))
    function, parameters = _CALLS[name]
    for key in named:
        if key not in parameters:
            raise PositionError(
                f"{name} takes {', '.join(parameters)}; not {key}.{did_you_mean(key, parameters)}"
            )
    if len(args) > len(parameters):
        raise PositionError(f"{name} takes {', '.join(parameters)}: {len(args)} given")
    given = dict(zip(parameters, args, strict=False))
    if twice := given.keys() & named.keys():
        raise PositionError(f"{name}: {', '.join(twice)} is given twice")
    given |= named
    try:
        return function(**{key: parameters[key](x) for key, x in given.items()})
    except TypeError:
        raise PositionError(f"{name} needs {next(iter(parameters))}") from None
