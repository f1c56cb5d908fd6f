"""Spec files: text with a header of comments that says what it ran under. Written whole or not at all."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..errors import nearest
from ..files import write_whole
from ..problems import Problem, SpecError
from ..spec.ast import VERSION
from ..spec.parser import LONGEST

ENDING = ".hook"
LIBRARIES = ("torch", "transformers", "nnsight")
_HEADER = re.compile(r"(?:\A\ufeff?# hook language \d+, saved by hooklab [^\n]*\n(?:# (?:ran under|model): [^\n]*\n)*\n?)")


def refused(message: str, hint: str = "") -> SpecError:
    """A mistake that stands in no text."""
    return SpecError([Problem("value", message, hint=hint)])


def header(model: str) -> str:
    """The comments that a saved spec starts with."""
    versions = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    lines = [f"# hook language {VERSION}, saved by hooklab {__version__}", f"# ran under: {', '.join(versions)}"]
    return "\n".join([*lines, f"# model: {' '.join(model.split())}"]) + "\n\n"


def without_header(text: str) -> str:
    """A text without the comments that `header` made.

    >>> without_header(header("lab") + "zero L1\\n")
    'zero L1\\n'
    """
    return _HEADER.sub("", text, count=1)


def path_of(name: str) -> Path:
    """The file of a name; the ending may be left out.

    Raises:
        SpecError: it has another ending.
    """
    path = Path(name).expanduser()
    if path.suffix == "":
        path = path.with_name(path.name + ENDING)
    if path.suffix != ENDING:
        raise refused(f"a spec file ends in {ENDING}, not in {path.suffix}", f"write {path.with_suffix(ENDING)}")
    return path


def write(name: str, text: str, model: str, force: bool = False) -> Path:
    """Write a spec with its header; the file appears whole or not at all.

    Raises:
        SpecError: there is a file of that name (unless `force`), or it cannot be written.
    """
    path = path_of(name)
    whole = header(model) + without_header(text).strip("\n") + "\n"
    try:
        write_whole(path, whole.encode(), replace=force)
    except FileExistsError:
        raise refused(f"there is a file {path} already", "to replace it add --force") from None
    except (OSError, UnicodeEncodeError) as error:
        raise refused(f"{path} could not be written: {getattr(error, 'strerror', None) or error}") from error
    return path


def read(name: str) -> tuple[Path, str]:
    """A spec file and its text.

    Raises:
        SpecError: there is none, or it is no text.
    """
    path = path_of(name)
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST * 4 + 1)
        if len(data) > LONGEST * 4:
            raise refused(f"{path} is too large for a spec")
        return path, data.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        folder = path.parent
        there = [file.name for file in folder.glob("*" + ENDING)] if folder.is_dir() else []
        close = nearest(path.name, there)
        hint = f"did you mean {folder / close}?" if close else f"there are {', '.join(sorted(there)[:8])}" if there else ""
        raise refused(f"there is no file {path}", hint) from None
    except UnicodeDecodeError:
        raise refused(f"{path} is no text in UTF-8") from None
    except OSError as error:
        raise refused(f"{path} could not be read: {error.strerror or error}") from None
