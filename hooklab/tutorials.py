"""The tutorials that come with hooklab: where they lie, what they are called, and copies of them for a reader.

An installed hooklab carries them in its own folder; in a clone they are `notebooks/` beside the package. `copied` writes
them into a folder of the reader's and never over a file that is there: it notes in the folder which text each copy was made
of, so that later a copy that the reader worked in and a tutorial that has changed since are told apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HooklabError
from .files import write_whole

NOTE = ".hooklab-tutorials.json"
KIND, SCHEMA = "hooklab tutorials", 1
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Tutorial:
    """A notebook: its number (`"00"`, or empty), its file and the heading it begins with."""

    number: str
    path: Path
    title: str


@dataclass(frozen=True)
class Copies:
    """What `copied` found and did in `folder`; names of files, relative to it.

    Attributes:
        folder: where the copies are.
        written: the files that were not there before.
        kept: those that were there already and stand for the tutorial as it is now, whether or not the reader worked in
            them.
        changed: those that were there and stay, while hooklab's own have changed since (or it is not known what they were
            copied from).
    """

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    changed: tuple[str, ...]


def source() -> Path:
    """The folder of the tutorials that belong to this hooklab.

    Raises:
        HooklabError: there is none.
    """
    clone = _PACKAGE.parent
    places = [_PACKAGE / "notebooks", *([clone / "notebooks"] if (clone / "pyproject.toml").is_file() else [])]
    for place in places:
        if any(place.glob("*.ipynb")):
            return place
    raise HooklabError(f"The tutorials are not in {places[0]}. Install hooklab again.")


def tutorials(folder: Path | None = None) -> list[Tutorial]:
    """The notebooks of a folder, by default hooklab's own, in their order.

    Raises:
        HooklabError: there are none, or a notebook cannot be read.
    """
    files = sorted((folder or source()).glob("*.ipynb"))
    return [Tutorial(_number(file.name), file, _title(file)) for file in files]


def chosen(which: str, among: Sequence[Tutorial]) -> Tutorial:
    """The tutorial of a number (`3` or `03`), of a file's name, or of the start of one.

    Raises:
        HooklabError: none is meant, or several.
    """
    word = which.strip().lower()
    numbered = [one for one in among if word.isdecimal() and one.number and int(one.number) == int(word)]
    exact = [one for one in among if word in (one.path.name.lower(), one.path.stem.lower())]
    found = numbered or exact or [one for one in among if word and one.path.name.lower().startswith(word)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(one.path.name for one in found or among)
    raise HooklabError(f'"{which}" {"means several tutorials" if found else "is no tutorial"}; choose one of {there}.')


def copied(folder: Path, *, fresh: bool = False) -> Copies:
    """Copy the tutorials, and what lies beside them, into a folder. A file that is there stays as it is.

    Args:
        folder: made where it is missing; the folder that holds it must be there.
        fresh: take a new folder, named with a number behind it, where this one is not empty.

    Raises:
        HooklabError: the tutorials are missing, or the folder cannot be written to.
    """
    origin = source()
    folder = folder.expanduser().resolve()
    if not folder.parent.is_dir():
        raise HooklabError(f"There is no folder {folder.parent} to put the tutorials into.")
    try:
        place = _unused(folder) if fresh else folder
        place.mkdir(exist_ok=True)
        return _copy(origin, place)
    except OSError as error:
        raise HooklabError(f"The tutorials cannot be copied to {folder}: {error.strerror or error}.") from error


def _copy(origin: Path, place: Path) -> Copies:
    known = _noted(place)
    found: dict[str, list[str]] = {"written": [], "kept": [], "changed": []}
    for file in _files(origin):
        name, data = file.relative_to(origin).as_posix(), file.read_bytes()
        mark = hashlib.sha256(data).hexdigest()
        state = _put(place / name, data, mark, known.get(name))
        found[state].append(name)
        if state == "written":
            known[name] = mark
    if found["written"]:
        note = {"kind": KIND, "schema": SCHEMA, "sha256": dict(sorted(known.items()))}
        write_whole(place / NOTE, (json.dumps(note, indent=1) + "\n").encode(), replace=True)
    return Copies(place, *(tuple(found[state]) for state in ("written", "kept", "changed")))


def _put(path: Path, data: bytes, mark: str, before: str | None) -> str:
    """Write a file that is not there; what became of it. `before` is the mark of the text that it was once made of."""
    if not path.exists() and not path.is_symlink():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, data)
        except FileExistsError:  # another process was faster: as if it had been there
            return _put(path, data, mark, before)
        return "written"
    same = before == mark or (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == mark)
    return "kept" if same else "changed"


def _unused(folder: Path) -> Path:
    """The folder itself where it is missing or empty, or the first of `folder-2`, `folder-3`, … that does not exist."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    number = 2
    while True:
        place = folder.with_name(f"{folder.name}-{number}")
        try:
            place.mkdir()
            return place
        except FileExistsError:
            number += 1


def _files(origin: Path) -> Iterator[Path]:
    """What a reader gets: everything but programs, the folder's own README, and hidden and cache folders."""
    for file in sorted(origin.rglob("*")):
        inside = file.relative_to(origin)
        hidden = any(part.startswith((".", "__")) for part in inside.parts)
        if file.is_file() and not hidden and file.suffix != ".py" and inside.as_posix() != "README.md":
            yield file


def _noted(place: Path) -> dict[str, str]:
    """What earlier calls copied; nothing where the note is missing or damaged, since no file is overwritten either way."""
    try:
        note = json.loads((place / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    marks = note.get("sha256") if isinstance(note, dict) and note.get("schema") == SCHEMA else None
    return {str(name): str(mark) for name, mark in marks.items()} if isinstance(marks, dict) else {}


def _number(name: str) -> str:
    found = re.match(r"\d+", name)
    return found[0] if found else ""


def _title(file: Path) -> str:
    """The first heading of a notebook's text; the name of its file where it has none."""
    try:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HooklabError(f"{file} is no notebook that can be read: {error}") from error
    lines = [line for text in texts for line in text.splitlines()]
    headings = [line.lstrip("#").strip() for line in lines if re.match(r"#+\s+\S", line)]
    return headings[0] if headings else file.stem
