"""`bench.sqlite`: codes, runs, metrics, tags and the trash, safe for several processes and for those that are killed.

Every write is a transaction of its own on a connection of its own, so that threads and forked processes need no care. The
file is made beside its place and given its name when it is complete, so that nobody meets half of one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import RecordError
from ..files import write_whole

NAME = "bench.sqlite"
SCHEMA = 2
MARK = 0x486F6F6B  # "Hook": says in the file's own head that it is a bench
PATIENCE = 60.0
"""Seconds to wait for other writers."""
TABLES = """
CREATE TABLE codes (name TEXT NOT NULL, version TEXT NOT NULL, python TEXT NOT NULL, text TEXT NOT NULL,
                    document TEXT NOT NULL, PRIMARY KEY (name, version));
CREATE TABLE runs (id TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, status TEXT NOT NULL,
                   owner TEXT NOT NULL, parent TEXT NOT NULL, started REAL NOT NULL, seconds REAL, document TEXT NOT NULL);
CREATE INDEX by_name ON runs (name, version);
CREATE TABLE metrics (run TEXT NOT NULL, name TEXT NOT NULL, step INTEGER, value REAL);
CREATE INDEX by_run ON metrics (run);
"""
MARKS = {"tags": "(run TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run, tag))",
         "trash": "(run TEXT PRIMARY KEY, since REAL NOT NULL)"}
"""Tables that came with version 2 of the format; a bench of version 1 gets them when it is opened."""


class Database:
    """The database of a bench.

    Raises:
        RecordError: it cannot be made or read, is something else, or a newer hooklab made it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._frozen = False
        if not self.path.exists():
            self._make()
        self._check()

    def _make(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as place:
                made = Path(place) / NAME
                with contextlib.closing(sqlite3.connect(made)) as link:
                    link.executescript(f"PRAGMA journal_mode=WAL; PRAGMA application_id={MARK}; BEGIN; {TABLES}"
                                       f"{_marks()} PRAGMA user_version={SCHEMA}; COMMIT;")
                data = made.read_bytes()
            with contextlib.suppress(FileExistsError):
                write_whole(self.path, data)
        except (OSError, sqlite3.Error) as error:
            raise RecordError(f"no bench could be made in {self.path.parent}: {said(error)}") from error

    def _check(self) -> None:
        try:
            with self._link() as link:
                (mark,) = link.execute("PRAGMA application_id").fetchone()
                (schema,) = link.execute("PRAGMA user_version").fetchone()
        except RecordError:
            if self._frozen:
                raise
            self._frozen = True  # a folder that cannot be written to: read the file as it is
            self._check()
            return
        if mark != MARK:
            raise RecordError(f"{self.path} is no bench of hooklab")
        if schema > SCHEMA:
            raise RecordError(f"{self.path} has version {schema} of the format; this hooklab reads up to {SCHEMA}: install "
                              "a newer hooklab")
        if schema < SCHEMA and not self._frozen:
            self._bring_up()

    def _bring_up(self) -> None:
        """Add what an older version of the format lacks. Several processes may come here at once."""
        with self.transaction() as link:
            for statement in _marks().split(";")[:-1]:
                link.execute(statement)
            link.execute(f"PRAGMA user_version={SCHEMA}")

    @contextlib.contextmanager
    def _link(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._address() as address, contextlib.closing(
                    sqlite3.connect(address, timeout=PATIENCE, uri=True, isolation_level=None)) as link:
                link.execute(f"PRAGMA busy_timeout={int(1000 * PATIENCE)}")
                if self._frozen and link.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:
                    link.executescript(f"PRAGMA temp_store=MEMORY; {_marks('TEMP ')}")  # empty, of this connection alone
                yield link
        except (sqlite3.Error, OSError) as error:
            raise RecordError(f"{self.path} cannot be used: {said(error)}") from error

    @contextlib.contextmanager
    def _address(self) -> Iterator[str]:
        """What is opened: the file; where it cannot be written to and has a journal, a copy that takes the journal in."""
        journal = self.path.with_name(f"{NAME}-wal")
        if not self._frozen:
            yield f"{self.path.absolute().as_uri()}?mode=rw"
        elif not journal.exists() or not journal.stat().st_size:
            yield f"{self.path.absolute().as_uri()}?immutable=1"
        else:
            with tempfile.TemporaryDirectory() as place:
                for file in (self.path, journal):
                    shutil.copyfile(file, Path(place) / file.name)
                yield f"{(Path(place) / NAME).as_uri()}?mode=rw"

    def write(self, *steps: tuple[str, Iterable[Any]]) -> None:
        """Do all of these, or none: statements with their values. Raises RecordError."""
        with self.transaction() as link:
            for statement, values in steps:
                link.execute(statement, tuple(values))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A link that alone may write; what is written inside counts when the block ends, and not at all if it fails.

        Raises:
            RecordError: the file cannot be written to.
        """
        if self._frozen:
            raise RecordError(f"{self.path} cannot be written to")
        with self._link() as link:
            link.execute("BEGIN IMMEDIATE")
            try:
                yield link
                link.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    link.execute("ROLLBACK")
                raise

    def read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a question. Raises RecordError."""
        with self._link() as link:
            return link.execute(statement, values).fetchall()


def _marks(kind: str = "") -> str:
    """The statements that make the tables of `MARKS` where they are not there yet."""
    return "".join(f"CREATE {kind}TABLE IF NOT EXISTS {name} {columns};" for name, columns in MARKS.items())


def said(error: BaseException) -> str:
    """What went wrong on the disk, in the system's words."""
    return str(getattr(error, "strerror", None) or error)


def as_json(value: Any) -> str:
    """Plain data as text; numbers that are none become text."""
    return json.dumps(value, ensure_ascii=True, default=str)
