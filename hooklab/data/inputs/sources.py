"""Examples: what a data set is made of, whatever it comes from, one at a time and each with an id that stays.

In: rows of any source (`rows`). Out: frozen `Example`s: a prompt, its images, and columns that travel along. Where an image
stands among the words is said by a template, and written in the text as `IMAGE`.

    for example in examples("captions.jsonl", template="{image} {caption}", id="key", metadata=["label"]):
        …
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from pathlib import Path
from string import Formatter
from typing import Any

from ...errors import PromptError, did_you_mean
from ...positions.images import elsewhere
from ...positions.pieces import half
from ...tokens import Tokens
from ..store.index import RESERVED, plain
from .rows import Row, base, is_folder, rows

IMAGE = "\ufffc"
"""Where an image stands in a text: the character that Unicode has for an object among words."""
COLUMNS = ("messages", "input_ids")
"""Where a prompt is looked for in rows without the column of the text."""


@dataclass(frozen=True, eq=False)
class Example:
    """One example of a data set; one of text, messages and ids is there.

    Attributes:
        id: Its name, once in the data set.
        text: The prompt; `IMAGE` stands where an image does.
        messages: A chat: turns with `role` and `content`.
        ids: Token ids.
        images: Pictures, names of files, or encoded ones (`{"bytes": …}`), in the order of the text.
        metadata: Columns that stay with it.
    """

    id: str
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    ids: tuple[int, ...] | None = None
    images: tuple[Any, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> Any:
        """Text, a list of messages, or a list of ids: what a model takes."""
        return self.text if self.text is not None else list(self.messages or self.ids or ())


class Examples(Iterator[Example]):
    """Examples as they are read, whose ids are known to differ."""

    def __init__(self, found: Iterator[Example]) -> None:
        self._found = found

    def __next__(self) -> Example:
        return next(self._found)


def examples(source: Any, *, template: str | None = None, text: str = "text", id: str | None = None,
             metadata: str | Iterable[str] | None = None, images: str | Iterable[str] | None = None, chat: bool = False,
             limit: int | None = None) -> Examples:
    """The examples of a source, one by one.

    >>> for example in examples([{"word": "cat", "label": 3}], template="a {word}", metadata=["label"]):
    ...     example.id, example.text, dict(example.metadata)
    ('0', 'a cat', {'label': 3})

    Args:
        source: An iterable (a generator as well) of text, token ids, `Tokens`, chats, images, dictionaries or questions
            with a `prompt`; a Hugging Face data set; a torch `DataLoader`, whose batches are taken apart; a DataFrame; the
            path of a .jsonl, .json, .csv, .tsv, .parquet or .txt file (a prompt per line); or a folder of images, with the
            name of each one's folder as its `label`.
        template: Text with columns in braces, such as `"{image} {caption}"`; `{{` is a brace. A list of texts is joined by
            spaces.
        text: The column of the prompt where there is no template: text, a chat or ids. Without it, `messages` and
            `input_ids` are taken.
        id: The column of the ids. Without it, questions and files of a folder have their own, and rows are counted.
        metadata: Columns to keep, or "all": every column but the id and images. A folder's images keep their `label`.
        images: Columns of images: pictures, names of files (relative to the source's folder), or encoded ones. Without it,
            those called `image` and `images`; `()` for none.
        chat: Make the text the user's turn of a chat.
        limit: How many examples at most.

    Raises:
        PromptError: the source cannot be read. While it is being read: a row that is malformed or lacks a column, and an id
            that was there before, each with its place.
        RecordError: metadata is neither text nor numbers, nor lists or dictionaries of them.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise PromptError(f"limit={limit!r}: it is a whole number from 1, or None")
    names = metadata if metadata is None or metadata == "all" else _names(metadata)
    if wrong := [name for name in names or () if names != "all" and name in RESERVED]:
        raise PromptError(f"metadata cannot be called {wrong[0]!r}: the index of a store has a column of that name")
    if names is None and is_folder(source):
        names = ("label",)
    made = _Maker(None if template is None else _parsed(template), text, id, names,
                  None if images is None else _names(images), chat, base(source))
    return Examples(_each(islice(rows(source), limit), made, isinstance(source, Examples)))


def _each(found: Iterable[Row], made: _Maker, differ: bool) -> Iterator[Example]:
    """Examples of rows; ids are remembered unless they are merely counted, or known to differ."""
    seen: dict[str, str] = {}
    for number, row in enumerate(found):
        example = made.example(row, number)
        if example.id in seen:
            raise PromptError(f"{row.where}: the id {example.id!r} was there before, in {seen[example.id]}: an id names one "
                              "example")
        if not differ and (made.id is not None or row.id is not None or hasattr(row.value, "prompt")):
            seen[example.id] = row.where
        yield example


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    """Pieces of a template: words, and the column that follows them. Raises PromptError."""
    try:
        parts = [(before, name, form, turned) for before, name, form, turned in Formatter().parse(template)]
    except ValueError as error:
        raise PromptError(f"The template {template!r} cannot be read: {error}. A brace is written {{{{ or }}}}.") from None
    for _, name, form, turned in parts:
        if name is not None and (not name or form or turned):
            raise PromptError(f"The template {template!r} names a column in braces, and nothing else: {{caption}}.")
    if not any(name for _, name, _, _ in parts):
        raise PromptError(f"The template {template!r} names no column, so that all examples would be the same.")
    return tuple((before, name) for before, name, _, _ in parts)


@dataclass(frozen=True)
class _Maker:
    """Makes examples of rows, as `examples` was asked to."""

    template: tuple[tuple[str, str | None], ...] | None
    text: str
    id: str | None
    metadata: Any
    images: tuple[str, ...] | None
    chat: bool
    base: Path | None

    def example(self, row: Row, number: int) -> Example:
        if isinstance(row.value, Example):
            return row.value
        columns = self._columns(row)
        shown = tuple(name for name in ("image", "images") if name in columns) if self.images is None else self.images
        for name in shown:
            self._column(row, columns, name)
        prompt, used = self._prompt(row, columns, shown)
        images = tuple(one for name in used for one in _pictures(columns[name], self.base, f"{row.where}: {name}"))
        kept = {name: _plain(self._column(row, columns, name), f"{row.where}: metadata {name!r}")
                for name in self._kept(columns, shown)}
        return Example(self._id(row, columns, number), images=images, metadata=kept, **prompt)

    def _columns(self, row: Row) -> dict[str, Any]:
        """A row of any kind as columns."""
        value = row.value
        if isinstance(value, PromptError):
            raise value
        if isinstance(value, Mapping):
            return {str(name): one for name, one in value.items()}
        if isinstance(value, str):
            return {self.text: value}
        if isinstance(value, Tokens) and len(value) == 1:
            return {"input_ids": value.ids[0]}
        if _is_picture(value):
            return {"image": value}
        if hasattr(value, "prompt"):
            known = ({one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
                     if dataclasses.is_dataclass(value) else {})
            own = {name: getattr(value, name) for name in ("id", "images") if getattr(value, name, None)}
            further = known.pop("metadata", None) or {}
            return {**further, **known, **own, self.text: value.prompt}
        if _is_ids(value) or _is_chat(value):
            return {"messages" if _is_chat(value) else "input_ids": value}
        raise PromptError(f"{row.where}: no example can be made of {type(value).__name__} ({str(value)[:40]!r}): a row is "
                          "text, a dictionary, a list of token ids, a chat (a list of turns), or an image")

    def _column(self, row: Row, columns: Mapping[str, Any], name: str) -> Any:
        if name not in columns:
            hint = " A chat is one row: give [chat]." if {"role", "content"} <= columns.keys() else ""
            raise PromptError(f"{row.where}: there is no column {name!r}, only {', '.join(columns) or 'nothing'}."
                              + did_you_mean(name, columns) + hint)
        return columns[name]

    def _id(self, row: Row, columns: Mapping[str, Any], number: int) -> str:
        found: Any = row.id
        if self.id is not None:
            found = self._column(row, columns, self.id)
        elif hasattr(row.value, "prompt") and not isinstance(row.value, Mapping):
            found = columns.get("id")
        if found is None and self.id is None:
            return str(number)
        found = found.item() if hasattr(found, "item") else found
        if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
            raise PromptError(f"{row.where}: an id is text or a whole number, not {found!r}")
        if isinstance(found, str) and half(found):
            raise PromptError(f"{row.where}: the id {found!r} is no valid text: it holds half a character")
        return str(found)

    def _kept(self, columns: Mapping[str, Any], shown: Sequence[str]) -> tuple[str, ...]:
        if self.metadata != "all":
            return tuple(self.metadata or ())
        return tuple(name for name in columns if name not in shown and name != (self.id or "id"))

    def _prompt(self, row: Row, columns: Mapping[str, Any], shown: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The prompt, and the columns of its images in their order."""
        if self.template is not None:
            used = tuple(name for _, name in self.template if name is not None and name in shown)
            if self.images and (unused := set(self.images) - set(used)):
                raise PromptError(f"the template leaves out the images of {sorted(unused)[0]!r}: say where they stand")
            return self._said(row, self._filled(row, columns, shown)), used
        name = next((one for one in (self.text, *COLUMNS) if one in columns), None)
        if name is None and shown:
            count = sum(len(_pictures(columns[one], self.base, row.where)) for one in shown)
            return self._said(row, IMAGE * count), tuple(shown)
        return self._said(row, self._column(row, columns, name or self.text)), tuple(shown)

    def _said(self, row: Row, found: Any) -> dict[str, Any]:
        if isinstance(found, str):
            if bad := half(found):
                raise PromptError(f"{row.where}: the prompt is no valid text: it holds half a character, {bad!r}")
            return {"messages": ({"role": "user", "content": found},)} if self.chat else {"text": found}
        if _is_chat(found):
            return {"messages": tuple(dict(turn) for turn in found)}
        if _is_ids(found) and not self.chat:
            return {"ids": tuple(int(one) for one in found)}
        shown = "missing" if _missing(found) else f"{type(found).__name__} ({str(found)[:40]!r})"
        raise PromptError(f"{row.where}: the prompt is {shown}; it must be text or "
                          + ("a chat" if self.chat else "a chat, or token ids that are not empty"))

    def _filled(self, row: Row, columns: Mapping[str, Any], shown: Sequence[str]) -> str:
        parts = []
        for before, name in self.template or ():
            parts.append(before)
            if name is None:
                continue
            value = self._column(row, columns, name)
            if name in shown:
                parts.append(IMAGE * len(_pictures(value, self.base, f"{row.where}: {name}")))
                continue
            some = value if isinstance(value, list | tuple) and value else [value]
            if any(_missing(one) or isinstance(one, Mapping | list | bytes) for one in some):
                raise PromptError(f"{row.where}: {name!r} is {'missing' if _missing(value) else type(value).__name__}, and "
                                  "the template needs its text")
            parts.append(" ".join(map(str, some)))
            if IMAGE in parts[-1]:
                raise PromptError(f"{row.where}: {name!r} holds the character U+FFFC, which stands for an image")
        return "".join(parts)


def _plain(value: Any, where: str) -> Any:
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) != 0:
        value = value.tolist()
    return plain(value, where)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _is_ids(value: Any) -> bool:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return (isinstance(value, list | tuple) and bool(value)
            and all(type(one) is int or (isinstance(one, Integral) and not isinstance(one, bool)) for one in value))


def _is_chat(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping) and "role" in one
                                                                   for one in value)


def _is_picture(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "size")


def _pictures(value: Any, folder: Path | None, where: str) -> tuple[Any, ...]:
    """The images of a column; names of files made whole. Raises PromptError."""
    if isinstance(value, list | tuple):
        return tuple(one for entry in value for one in _pictures(entry, folder, where))
    if isinstance(value, str | Path) and (said := elsewhere(value)):
        raise PromptError(f"{where}: {said}")
    if isinstance(value, str | Path):
        path = (folder or Path()) / Path(value).expanduser()
        if not path.is_file():
            raise PromptError(f"{where}: there is no image {str(path)!r}. If the column is no image, say images=().")
        return (path,)
    if isinstance(value, Mapping) and value.get("bytes"):
        return (value,)
    if isinstance(value, Mapping) and value.get("path"):
        return _pictures(value["path"], folder, where)
    if _is_picture(value) or getattr(value, "ndim", 0) == 3:
        return (value,)
    raise PromptError(f"{where}: no image is {type(value).__name__}: a picture, the name of a file, or {{'bytes': …}}")
