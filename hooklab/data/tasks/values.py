"""What stands in a row, read with care: texts, choices, the right one, names in a template. Wrong values are errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter, ascii_uppercase
from typing import Any

from ...errors import RecordError, did_you_mean
from .rows import Row


def column(row: Row, name: str) -> Any:
    """The value of a column that the row must have."""
    if name not in row.values:
        has = f"it has {', '.join(map(str, row.values))}" if "" not in row.values else f"it is {row.values['']!r}"
        raise RecordError(f"the row has no column {name!r}; {has}.{did_you_mean(name, map(str, row.values))}")
    return row.values[name]


def shown(row: Row, name: str) -> str:
    """What stands in a prompt for the value of a column, which must be there."""
    found = column(row, name)
    if found is None or (isinstance(found, float) and found != found):
        raise RecordError(f"{name} is {found}: there is nothing to put into the prompt")
    return str(found)


def text(value: Any, name: str) -> str:
    """A value that must be a text."""
    if not isinstance(value, str):
        raise RecordError(f"{name} is {value!r}; it is to be a text")
    return value


def name(row: Row, column: str) -> str:
    """The id of a row: that of its column, or its place where it has none."""
    found = row.values.get(column)
    missing = found is None or found == "" or found != found  # the last is what a table has for a number that is missing
    return row.name if missing else str(found)


def filled(row: Row, name: str) -> str:
    """The text of a column, which must not be blank."""
    found = text(column(row, name), name)
    if not found.strip():
        raise RecordError(f"{name} is empty")
    return found


def texts(values: Any, name: str) -> tuple[str, ...]:
    """A value that must be a list of texts, with as many as there are letters at most."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise RecordError(f"{name} is {values!r}; it is to be a list of texts")
    found = tuple(text(one, name) for one in values)
    if not 1 <= len(found) <= len(ascii_uppercase):
        raise RecordError(f"{name} has {len(found)} texts; it is to have from 1 to {len(ascii_uppercase)}")
    return found


def references(value: Any, name: str) -> str | tuple[str, ...]:
    """A free answer: a text, a number as text, or a list of texts."""
    if isinstance(value, float) and value != value:  # what a table has for a number that is missing
        raise RecordError(f"{name} is {value}: there is no answer")
    if isinstance(value, str | int | float):
        found: str | tuple[str, ...] = str(value)
    else:
        found = texts(value, name)
    if not any(one.strip() for one in ((found,) if isinstance(found, str) else found)):
        raise RecordError(f"{name} is empty")
    return found


def lines(choices: Sequence[str]) -> str:
    """Choices as lines: `A. Paris`."""
    return "\n".join(f"{one}. {choice}" for one, choice in zip(ascii_uppercase, choices, strict=False))


def letter(answer: Any, choices: Sequence[str], *, by_text: bool = False) -> str:
    """The letter of the right choice, from its letter, its index from 0, or (`by_text`) its text.

    Raises:
        RecordError: it is none of these, or could be two.
    """
    letters = ascii_uppercase[:len(choices)]
    if hasattr(answer, "__index__") and not isinstance(answer, bool):  # of numpy's numbers too
        if 0 <= answer < len(choices):
            return letters[int(answer)]
        raise RecordError(f"the answer is choice {answer}; {len(choices)} choices are counted from 0")
    said = answer.strip() if isinstance(answer, str) else ""
    named = {said} & set(letters)
    named |= {letters[i] for i, one in enumerate(choices) if by_text and one.strip() == said}
    if len(named) == 1:
        return named.pop()
    if named:
        raise RecordError(f"the answer {answer!r} fits the choices {', '.join(sorted(named))}; give its index, from 0")
    raise RecordError(f"the answer is {answer!r}; it is to be a letter from A to {letters[-1]}"
                      + (" or the text of a choice" if by_text else ""))


def columns(template: str) -> list[str]:
    """The names in a template; nothing but names, since rows are data of others."""
    try:
        fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise RecordError(f"the template {template!r} cannot be read: {error}; a brace itself is written twice") from None
    for name, spec, how in fields:
        if not name.isidentifier() or spec or how:
            raise RecordError(f"the template has {{{name}}}; what stands in braces is the name of a column, alone")
    return [name for name, _, _ in fields]
