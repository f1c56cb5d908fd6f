"""Rows of a source: an iterable, a table or a file, read one by one, each with the words that say where it stands.

In: what a user calls a data set. Out: `Row`s, of which `sources` makes examples. A file is read as it is needed; only
`.json` has to be loaded whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ...errors import PromptError, did_you_mean
from ...jsontext import json_of
from .loaders import is_loader, unrolled

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Names of files that a folder of images is searched for."""
LONGEST = 2**31 - 1
"""Characters of a field of a table; what a C long holds everywhere."""


class Row(NamedTuple):
    """One row of a source.

    Attributes:
        where: What an error calls it: `captions.csv, line 3`.
        value: The row; a PromptError where it is malformed, raised when an example is made of it.
        id: An id that it has of itself; None where rows are counted.
    """

    where: str
    value: Any
    id: str | int | None = None


def rows(source: Any) -> Iterator[Row]:
    """The rows of a source, read as they are asked for.

    >>> [row.where for row in rows(["one", "two"])]
    ['row 0', 'row 1']

    Raises:
        PromptError: it is no source, or the file is not there or of a kind that is not read. While it is being read: what
            ends it, such as bytes that are no text.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if is_folder(path):
            return _folder(path)
        if not path.is_file():
            raise PromptError(f"There is no file or folder {str(source)!r}. For a prompt, give a list: [{str(source)!r}].")
        if path.suffix.lower() not in READERS:
            raise PromptError(f"{path.name} cannot be read as examples: the name of a file ends in "
                              f"{', '.join(READERS)}.{did_you_mean(path.suffix, READERS)}")
        return READERS[path.suffix.lower()](path)
    if isinstance(source, Mapping):
        names = ", ".join(map(repr, list(source)[:8]))
        raise PromptError(f"A mapping with {names} is one row, or a data set of several splits: give [row], or one of the "
                          "splits.")
    if is_loader(source):
        return (Row(where, value) for where, value in unrolled(source))
    if hasattr(source, "itertuples") and hasattr(source, "columns"):
        return _frame(source)
    if not isinstance(source, Iterable):
        raise PromptError(f"Examples cannot be made of {type(source).__name__}: give an iterable of text, ids, chats or "
                          "rows, a table, or the path of a file or a folder.")
    return (Row(f"row {n}", value) for n, value in enumerate(source))


def is_folder(source: Any) -> bool:
    """Whether a source is a folder. Raises PromptError for a name that no file can have."""
    try:
        return isinstance(source, str | Path) and Path(source).expanduser().is_dir()
    except OSError as error:
        raise PromptError(f"{str(source)[:80]!r} cannot be read: {error.strerror or error}. For a prompt, give a list: "
                          "[prompt].") from None


def base(source: Any) -> Path | None:
    """The folder that names of image files in a source are relative to; None for what is no file."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    return path if path.is_dir() else path.parent


def _frame(frame: Any) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise PromptError(f"The table has several columns {repeated[0]!r}: rename them first.")
    return (Row(f"row {n}", dict(zip(names, values, strict=True)))
            for n, values in enumerate(frame.itertuples(index=False, name=None)))


# Files ---------------------------------------------------------------------------------------------------------------


def _lines(path: Path, file: TextIO) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with its place."""
    n = 0
    try:
        for n, line in enumerate(file, 1):
            if line.strip():
                yield f"{path.name}, line {n}", line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise PromptError(f"{path.name}, after line {n}: is no UTF-8 text.") from None


def _txt(path: Path) -> Iterator[Row]:
    """A line is a prompt; blank lines are passed over."""
    with path.open(encoding="utf-8-sig") as file:
        for where, line in _lines(path, file):
            yield Row(where, line)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for where, line in _lines(path, file):
            try:
                yield Row(where, json_of(line))
            except json.JSONDecodeError as error:
                yield Row(where, PromptError(f"{where}: is no JSON: {error.msg} at character {error.pos + 1}."))
            except (ValueError, RecursionError) as error:
                yield Row(where, PromptError(f"{where}: cannot be read: {error}"))


def _json(path: Path) -> Iterator[Row]:
    """A list of rows, or one list under whatever name beside what is none."""
    try:
        found = json_of(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise PromptError(f"{path.name}, line {error.lineno}: is no JSON: {error.msg} at character {error.colno}.") from None
    except UnicodeDecodeError:
        raise PromptError(f"{path.name} is no UTF-8 text.") from None
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path.name} cannot be read: {error}") from None
    if isinstance(found, dict):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise PromptError(f"{path.name} holds {len(lists)} lists"
                              + (f" ({', '.join(lists[:8])})" if lists else "") + ": a list of rows is needed, or one "
                              "list under a name.")
        found = found[lists[0]]
    if not isinstance(found, list):
        raise PromptError(f"{path.name} holds {type(found).__name__}, not a list of rows.")
    for n, value in enumerate(found):
        yield Row(f"{path.name}, entry {n}", value)


def _csv(separator: str, path: Path) -> Iterator[Row]:
    """The first line names the columns; a quoted field may go over several lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        header: list[str] | None = None
        while True:
            where = f"{path.name}, line {reader.line_num + 1}"
            try:
                with long_fields():
                    fields = next(reader, None)
            except csv.Error as error:
                raise PromptError(f"{where}: cannot be read: {error}.") from None
            except UnicodeDecodeError:
                raise PromptError(f"{where}: is no UTF-8 text.") from None
            if fields is None:
                break
            if not fields:
                continue
            if header is None:
                header = _header(where, fields)
            elif len(fields) != len(header):
                yield Row(where, PromptError(f"{where}: has {len(fields)} fields, and the header names {len(header)}: "
                                             f"{', '.join(header)}."))
            else:
                yield Row(where, dict(zip(header, fields, strict=True)))


@contextmanager
def long_fields() -> Iterator[None]:
    """Fields of any length while a row is read: Python's own limit of 128 kB belongs to the whole process."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(where: str, fields: list[str]) -> list[str]:
    if repeated := sorted({name for name in fields if fields.count(name) > 1}):
        raise PromptError(f"{where}: the header names {repeated[0]!r} more than once.")
    return fields


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise PromptError(f"{path.name} needs pyarrow: pip install pyarrow") from None
    n = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    yield Row(f"{path.name}, row {n}", value)
                    n += 1
    except pyarrow.ArrowException as error:
        raise PromptError(f"{path.name} cannot be read: {error}") from error


def _folder(path: Path) -> Iterator[Row]:
    """Images below a folder, by name; what the folder of each is called is its label."""
    path = path.absolute()  # names of files are else taken for ones relative to this folder
    found = sorted(one for one in path.rglob("*") if one.suffix.lower() in PICTURES and one.is_file()
                   and not any(part.startswith(".") for part in one.relative_to(path).parts))
    if not found:
        raise PromptError(f"The folder {path} has no images ({', '.join(PICTURES)}).")
    for one in found:
        name = one.relative_to(path).as_posix()
        yield Row(f"{path.name}/{name}", {"image": one, "label": None if one.parent == path else one.parent.name,
                                          "file": name}, name)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl, ".json": _json, ".csv": partial(_csv, ","), ".tsv": partial(_csv, "\t"), ".parquet": _parquet,
    ".txt": _txt}
"""Kinds of files, by the end of the name."""
