"""Rows of a data set, each with the place that it comes from, so that a bad one can be found: `questions.csv:17`.

In: a file (CSV, JSON with examples, JSON lines), a data set of the Hugging Face hub, or rows in memory. Out: `Row`s.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...errors import RecordError
from ...jsontext import json_of
from ..inputs.rows import long_fields

HUB = "hub:"
SHOWN = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        where: File and line, or another place, to say in an error.
        name: What makes its id: unique within a data set, and the same whenever it is read.
        values: Column -> value.
        source: What metadata it brings along: file, line, subject, split.
        folder: Where the files lie that it names; None for the folder that one is in.
    """

    where: str
    name: str
    values: Mapping[str, Any]
    source: Mapping[str, Any]
    folder: Path | None = None


def csv_rows(path: Path, columns: tuple[str, ...], name: str, **source: Any) -> Iterator[Row]:
    """The rows of a CSV file without a head; a row with more or fewer fields has the values None."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            with long_fields():
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RecordError(f"{path}:{line}: {error}") from None
        if fields:
            fits = len(fields) == len(columns)
            values = dict(zip(columns, fields, strict=True)) if fits else {"": fields}
            yield Row(f"{path}:{line}", f"{name}/{line}", values, {**source, "file": path.name, "line": line})


def jsonl_rows(path: Path, name: str, **source: Any) -> Iterator[Row]:
    """The rows of a file with one JSON object in a line; empty lines are passed over."""
    for line, text in enumerate(_text(path).split("\n"), 1):
        if text.strip():
            where = f"{path}:{line}"
            about = {**source, "file": path.name, "line": line}
            yield Row(where, f"{name}/{line}", _object(text, where), about, path.parent)


def example_rows(path: Path, name: str, **source: Any) -> Iterator[Row]:
    """The objects of the list `examples` of a JSON file, each with the line that it begins in."""
    text = _text(path)
    try:
        document = json_of(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("examples"), list):
        raise RecordError(f'{path}:1: a file of this task is {{"examples": [{{"input": …, "target": …}}, …]}}')
    lines = list(_lines(text))
    if len(lines) != len(document["examples"]):  # another list of that name stands before it
        lines = [1] * len(document["examples"])
    for i, (line, value) in enumerate(zip(lines, document["examples"], strict=True)):
        values = value if isinstance(value, dict) else {"": value}
        yield Row(f"{path}:{line}", f"{name}/{i + 1}", values, {**source, "file": path.name, "line": line})


def given_rows(rows: Any, name: str, place: str = "row", **source: Any) -> Iterator[Row]:
    """Rows that are in memory: mappings, in a list, a generator or a data set; or those of a table of pandas."""
    if hasattr(rows, "iloc"):
        rows = rows.to_dict("records")
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise RecordError(f"the data is {type(rows).__name__}; it is to be a file, a folder, or a list of rows")
    for i, values in enumerate(rows, 1):
        yield Row(f"{place} {i}", f"{name}/{i}", values if isinstance(values, Mapping) else {"": values}, source)


def hub_rows(repository: str, split: str | None, subject: str | None) -> Iterator[Row]:
    """The rows of a data set of the hub, or of its cache, read by the package `datasets`.

    Raises:
        RecordError: the package is not installed, or no split is named.
    """
    try:
        import datasets
    except ImportError:
        raise RecordError(f"to read {repository} from the hub, install the package datasets: pip install datasets") from None
    if split is None:
        raise RecordError(f"say which split of {repository} to read: split=\"test\"")
    name = "/".join(one for one in (subject or "all", split) if one)
    try:
        found = datasets.load_dataset(repository, subject, split=split)
    except Exception as error:  # whatever the hub, the cache or the package has against it
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecordError(f"{HUB}{repository} {name} could not be read: {why}") from error
    return given_rows(found, name, f"{HUB}{repository} {name}, row", repository=repository,
                      **_known(split=split, subject=subject))


def converted(rows: Iterable[Row], convert: Callable[[Row], T]) -> list[T]:
    """All rows through a function; its errors are collected, and raised together with their places.

    Raises:
        RecordError: some rows are malformed; the first five are shown.
    """
    done: list[T] = []
    wrong: list[str] = []
    for row in rows:
        try:
            done.append(convert(row))
        except RecordError as error:
            wrong.append(f"{row.where}: {error}")
    if wrong:
        more = f"\n… and {len(wrong) - SHOWN} more malformed rows" if len(wrong) > SHOWN else ""
        raise RecordError("\n".join(wrong[:SHOWN]) + more)
    return done


def files(path: Path, pattern: str, subject: str | None) -> list[Path]:
    """The file itself, or those of a folder whose names fit a pattern with {} for the subject.

    Raises:
        RecordError: there is none; the error lists the subjects there are.
    """
    if any(part and ("/" in part or "\\" in part) for part in (subject, pattern.replace("{}", ""))):
        raise RecordError(f"a subject or split is a part of the name of a file in {path}, without slashes")
    try:
        file, folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise RecordError(f"{str(path)[:80]!r} could not be read: {error.strerror or error}") from None
    if file:
        if subject is not None and subject not in path.stem:
            raise RecordError(f"{path} is one file, and subject={subject!r} is not in its name; subjects choose in a folder")
        return [path]
    if not folder:
        raise RecordError(f"there is no file or folder {path}; a data set of the hub is written {HUB}owner/name")
    found = sorted(path.glob(pattern.format(subject or "*")))
    if not found:
        head, tail = pattern.split("/")[-1].split("{}")
        there = sorted(one.name[len(head):-len(tail)] for one in path.glob(pattern.format("*")))
        hint = f" Subjects: {', '.join(there[:20])}" if there else ""
        raise RecordError(f"{path} has no file {pattern.format(subject or '*')}.{hint}")
    return found


def _known(**source: Any) -> dict[str, Any]:
    return {key: value for key, value in source.items() if value is not None}


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise RecordError(f"{path}:{line}: no UTF-8 text: {error.reason}") from None


def _object(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json_of(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: no JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: cannot be read: {error}") from None
    return value if isinstance(value, dict) else {"": value}


def _lines(text: str) -> Iterator[int]:
    """The line in which each object of the list `examples` begins."""
    decoder = json.JSONDecoder()
    blanks = " \t\r\n"
    found = re.search(r'"examples"\s*:\s*\[', text)
    at = found.end() if found else len(text)
    while at < len(text):
        while text[at] in blanks + ",":
            at += 1
        if text[at] == "]":
            return
        yield text.count("\n", 0, at) + 1
        _, at = decoder.raw_decode(text, at)
