"""Tags of runs, and the trash: runs that are out of sight and can be brought back.

    trash     the row says so ──▶ runs/ID is moved to .trash/ID
    restore   .trash/ID is moved to runs/ID ──▶ the row says so no more

What the database says counts. The order of the two steps is such that the files of a run that is not in the trash are always
in `runs`, whenever a process is killed; those of one that is in it may still be there, until it is brought back. Files are
moved while no other process can write the database, so that two that undo each other do not meet. Nothing is deleted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecordError, did_you_mean
from .database import Database, said

RUNS, TRASH = "runs", ".trash"
VISIBLE = "r.id NOT IN (SELECT run FROM trash)"
"""What a question about runs `r` asks when it leaves out the trash."""
LONGEST = 80
IN_TRASH = "SELECT 1 FROM trash WHERE run = ?"


def idents(runs: Any) -> list[str]:
    """The names of one run or several, given as names or records. Raises RecordError."""
    several = [runs] if isinstance(runs, str) or hasattr(runs, "id") or not isinstance(runs, Iterable) else list(runs)
    found = [getattr(one, "id", one) for one in several]
    for one in found:
        if not isinstance(one, str) or not one:
            raise RecordError(f"a run is a record of one or its name, not {one!r}")
    return list(dict.fromkeys(found))


def resolved(database: Database, runs: Any, hidden: bool = False) -> list[str]:
    """The whole names of runs that are in sight, or with `hidden` in the trash, by their names or beginnings of these.

    Raises:
        RecordError: there is no such run, it is not where it is looked for, or there are several.
    """
    known = {str(run): bool(gone) for run, gone in database.read("SELECT id, id IN (SELECT run FROM trash) FROM runs")}
    return [_resolved(one, known, hidden) for one in idents(runs)]


def _resolved(ident: str, known: dict[str, bool], hidden: bool) -> str:
    close = [ident] if ident in known else [run for run in known if run.startswith(ident)]
    found = [run for run in close if known[run] is hidden]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(f"several runs begin with {ident!r}: {', '.join(found[:8])}{' …' if len(found) > 8 else ''}")
    if close:
        raise RecordError(f"{ident} is not in the trash" if hidden else
                          f"{ident} is in the trash: bench.restore_run({ident!r}) brings it back")
    there = [run for run, gone in known.items() if gone is hidden]
    raise RecordError(f"there is no run {ident!r}{' in the trash' if hidden else ''}.{did_you_mean(ident, there[-200:])}")


def place(folder: Path, run: str) -> Path:
    """Where the files of a run that is in the trash are: where it was moved to, or still where it was."""
    moved = folder / TRASH / run
    return moved if moved.exists() else folder / RUNS / run


def words(given: Sequence[Any]) -> list[str]:
    """Tags as they are kept. Raises RecordError."""
    if not given:
        raise RecordError("a tag is a word, as in bench.tag(run, 'baseline')")
    for word in given:
        if not isinstance(word, str) or word != word.strip() or not word or not word.isprintable() or len(word) > LONGEST:
            raise RecordError(f"a tag is a word, as in bench.tag(run, 'baseline'), not {word!r}")
    return list(dict.fromkeys(given))


def tag(database: Database, runs: Sequence[str], tags: Sequence[str]) -> None:
    """Give runs tags. Raises RecordError."""
    database.write(*(("INSERT OR IGNORE INTO tags VALUES (?, ?)", (run, word)) for run in runs for word in tags))


def untag(database: Database, runs: Sequence[str], tags: Sequence[str]) -> None:
    """Take tags from runs. Raises RecordError: none of the runs has one of them."""
    with database.transaction() as link:
        had = {word for run in runs for (word,) in link.execute("SELECT tag FROM tags WHERE run = ?", (run,))}
        for word in tags:
            if word not in had:
                raise RecordError(f"no run of these has the tag {word!r}.{did_you_mean(word, had)}")
            for run in runs:
                link.execute("DELETE FROM tags WHERE run = ? AND tag = ?", (run, word))


def trash(database: Database, folder: Path, runs: Sequence[str], status_of: Callable[[tuple[Any, ...]], str]) -> None:
    """Put runs out of sight, all or none, and their files into the trash.

    Args:
        database: Of the bench.
        folder: Of the bench.
        runs: Their names.
        status_of: Says what a row of the table of runs is.

    Raises:
        RecordError: one goes on, or may do so; or the files cannot be moved, and then they stay where they are.
    """
    with database.transaction() as link:
        for run in runs:
            row = link.execute("SELECT id, name, version, status, owner FROM runs WHERE id = ?", (run,)).fetchone()
            if (status := status_of(row)) in ("running", "unknown"):
                raise RecordError(f"{run} {'goes' if status == 'running' else 'may go'} on still: it can be put into the "
                                  "trash when it has ended")
            link.execute("INSERT OR IGNORE INTO trash VALUES (?, ?)", (run, time.time()))
    with database.transaction() as link:
        for run in runs:
            if link.execute(IN_TRASH, (run,)).fetchone():  # another process may have brought it back already
                _move(folder / RUNS / run, folder / TRASH / run)


def restore(database: Database, folder: Path, runs: Sequence[str]) -> None:
    """Bring the files of runs back, and the runs into sight. Raises RecordError: they cannot be moved."""
    with database.transaction() as link:
        for run in runs:
            if link.execute(IN_TRASH, (run,)).fetchone():
                _move(folder / TRASH / run, folder / RUNS / run)
                link.execute("DELETE FROM trash WHERE run = ?", (run,))
        with contextlib.suppress(OSError):
            (folder / TRASH).rmdir()  # only where it is empty


def _move(path: Path, target: Path) -> None:
    """Move a folder, unless it was moved already. Raises RecordError."""
    try:
        if not path.exists():
            return
        if target.exists():
            raise RecordError(f"{path} and {target} are both there: move one of them away")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        for place in (target.parent, path.parent):
            _sync(place)
    except OSError as error:
        raise RecordError(f"{path} could not be moved to {target}: {said(error)}") from error


def _sync(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows neither needs nor allows it
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
