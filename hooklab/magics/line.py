"""The first line of a cell, and the line magic's words: read by a table, with every mistake under a caret.

    line ──words──▶ (offset, word)… ──read──▶ Given
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import nearest
from ..problems import Problem, SpecError

_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+|["']\S*""")
_QUOTES = re.compile(r""""([^"]*)"|'([^']*)'""")


@dataclass(frozen=True)
class Flag:
    """An option of a line.

    Attributes:
        names: How it is written, the long form first.
        does: One line.
        value: What follows it, in CAPITALS; empty for a switch.
        many: Whether it may be given several times.
    """

    names: tuple[str, ...]
    does: str
    value: str = ""
    many: bool = False

    @property
    def name(self) -> str:
        """The long form without its dashes."""
        return self.names[0].lstrip("-")


@dataclass(frozen=True)
class Form:
    """What a line may hold: how it begins, the words in their order, the options, how many words it must have."""

    prefix: str
    words: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    needs: int = 0

    def usage(self) -> str:
        """One line: `%%hook [MODEL] [-o NAME] …`."""
        flags = [f"[{' | '.join(flag.names)}{' ' + flag.value if flag.value else ''}]" for flag in self.flags]
        return " ".join([self.prefix, *self.words[:self.needs], *(f"[{word}]" for word in self.words[self.needs:]),
                         *flags])

    def help(self) -> str:
        """The usage and a line for each option."""
        rows = [(f"{', '.join(flag.names)}{' ' + flag.value if flag.value else ''}", flag.does) for flag in self.flags]
        width = max((len(left) for left, _ in rows), default=0)
        return "\n".join([self.usage(), "", *(f"  {left:<{width}}  {right}" for left, right in rows)])


@dataclass(frozen=True)
class Given:
    """What a line holds: its words, and the values of its options; a switch that is on has the value ""."""

    form: Form
    line: str
    words: tuple[tuple[int, str], ...] = ()
    options: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def word(self, i: int) -> str | None:
        """The i-th word, or None."""
        return self.words[i][1] if i < len(self.words) else None

    def on(self, name: str) -> bool:
        """Whether an option is there."""
        return name in self.options

    def value(self, name: str) -> str | None:
        """The value of an option, or None."""
        return self.options[name][-1][1] if name in self.options else None

    def values(self, name: str) -> list[str]:
        """The values of an option that may come several times."""
        return [value for _, value in self.options.get(name, [])]

    def error(self, message: str, hint: str = "", word: int | None = None, option: str = "") -> SpecError:
        """A mistake in this line, with a caret under a word or an option's value."""
        if option in self.options:
            at, _ = self.options[option][-1]
        else:
            at = self.words[word][0] if word is not None and word < len(self.words) else len(self.line)
        written = next((text for start, text in words(self.line[at:])[:1] if not start), "")
        return line_error(self.form.prefix, self.line, message, hint, at, len(written), "value")

    def quoted(self, i: int) -> bool:
        """Whether the i-th word stands in quotes."""
        return self.line[self.words[i][0]] in "\"'"


def line_error(prefix: str, line: str, message: str, hint: str, at: int, width: int, kind: str = "syntax") -> SpecError:
    """A mistake at an offset of a line that follows `prefix`."""
    return SpecError([Problem(kind, message, 1, len(prefix) + 2 + at, max(1, width), hint)], f"{prefix} {line}")


def words(line: str) -> list[tuple[int, str]]:
    """The words of a line with their offsets; quotes hold one together.

    >>> words('lab -o "a b"')
    [(0, 'lab'), (4, '-o'), (7, '"a b"')]
    """
    return [(match.start(), match[0]) for match in _WORD.finditer(line)]


def unquoted(word: str) -> str:
    """A word without its quotes.

    >>> unquoted("'vec=[1, 2]'"), unquoted("--set")
    ('vec=[1, 2]', '--set')
    """
    return _QUOTES.sub(lambda match: match[1] if match[1] is not None else match[2], word) if word[:1] in "\"'" else word


def read(line: str, form: Form, skip: int = 0) -> Given:
    """Read a line, without the first words that are to be skipped.

    Raises:
        SpecError: an option that there is not, one without its value, a word too many.

    >>> form = Form("%%hook", ("MODEL",), (Flag(("--output", "-o"), "name", "NAME"), Flag(("--quiet", "-q"), "")))
    >>> given = read("lab -q --output=r", form)
    >>> given.word(0), given.on("quiet"), given.value("output")
    ('lab', True, 'r')
    """
    known = {name: flag for flag in form.flags for name in flag.names}
    found: list[tuple[int, str]] = []
    options: dict[str, list[tuple[int, str]]] = {}
    rest = words(line)[skip:]
    while rest:
        at, word = rest.pop(0)
        if word[0] in "\"'" and (len(word) < 2 or word[-1] != word[0]):
            raise line_error(form.prefix, line, "the quotes are not closed", f"write {word}{word[0]}", at, len(word))
        if not word.startswith("-") or word == "-":
            found.append((at, unquoted(word)))
            continue
        name, equals, value = word.partition("=")
        flag = known.get(name)
        if flag is None:
            raise _unknown(form, line, at, name, known)
        value_at = at + len(name) + 1
        if flag.value and not equals:
            if not rest or rest[0][1] in known:
                raise line_error(form.prefix, line, f"{name} needs {_article(flag.value)}", f"as in {name} {flag.value}",
                                 at, len(name))
            value_at, value = rest.pop(0)
        elif equals and not flag.value:
            raise line_error(form.prefix, line, f"{name} takes no value", f"write {name}", at, len(word))
        if flag.name in options and not flag.many:
            raise line_error(form.prefix, line, f"{name} is given twice", "", at, len(word))
        options.setdefault(flag.name, []).append((value_at, unquoted(value)) if flag.value else (at, ""))
    if len(found) > len(form.words):
        at, word = found[len(form.words)]
        hint = f"there is room for {' and '.join(form.words)} only" if form.words else form.usage()
        raise line_error(form.prefix, line, f"{word!r} is one word too many", hint, at, len(word))
    return Given(form, line, tuple(found), options)


def _unknown(form: Form, line: str, at: int, name: str, known: Sequence[str] | dict[str, Flag]) -> SpecError:
    close = nearest(name, [one for one in known if one.startswith("--")]) if name.startswith("--") else None
    hint = f"did you mean `{close}`?" if close else "options: " + ", ".join(flag.names[0] for flag in form.flags)
    return line_error(form.prefix, line, f"no option {name}", hint, at, len(name), "name")


def _article(value: str) -> str:
    return "a name" if value == "NAME" else "a value"


def checked_name(given: Given, option: str) -> str | None:
    """The value of an option that names a variable, or None.

    Raises:
        SpecError: it cannot name a variable.
    """
    name = given.value(option)
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise given.error(f"{name!r} cannot name a variable", "one word of letters, digits and _", option=option)
    return name
