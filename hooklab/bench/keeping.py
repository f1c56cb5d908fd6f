"""What a bench writes while runs go on, and how it tells a run that goes on from one that was killed.

    begin ──▶ code, inputs, a row "running", a lock on the run's folder ──▶ end: result, figures, numbers, the row's status
"""

from __future__ import annotations

import json
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.engines.owner import Owner, this_process
from ..data.store.lock import Lock
from ..errors import RecordError
from . import artefacts, running
from .code import Code
from .database import Database, as_json
from .digest import fingerprint, is_model, model_name
from .running import Running

MOST_INPUT = 256 * 2**20
"""Bytes of tensors among the arguments of one call up to which they are kept; of larger ones only the hash is."""


class Keeping:
    """The part of a bench that keeps.

    Args:
        folder: Of the bench.
        database: In it.
        model: That the bench was opened with.
    """

    def __init__(self, folder: Path, database: Database, model: Any) -> None:
        self.folder, self._database, self.model = folder, database, model
        self._models: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def status_of(self, row: tuple[Any, ...]) -> str:
        """The status of a row of the table of runs: one that goes on is looked for among the processes."""
        ident, status = row[0], row[3]
        if status != "running":
            return str(status)
        if running.is_active(ident):
            return "running"
        owner = Owner(**json.loads(row[4]))
        alive = owner.alive()
        if alive and owner.pid == this_process().pid:
            return "killed"  # it was this process, which knows nothing of it any more
        if alive is None:
            try:
                Lock(self.folder / "runs" / ident).release()
                return "killed"
            except RecordError as error:
                return "running" if "is being written by" in str(error) else "unknown"
        return "running" if alive else "killed"

    def known(self, inputs: dict[str, Any], code: Code) -> dict[str, str]:
        """The fingerprints of the models among the arguments; this process remembers which models they are of."""
        found = {name: value for name, value in inputs.items() if is_model(value)}
        for value in [*found.values(), *(node.value for node in code.nodes if node.kind == "model")]:
            with suppress(TypeError):
                self._models[fingerprint(value)] = value
        return {name: fingerprint(value) for name, value in found.items()}

    def model_names(self, inputs: dict[str, Any], code: Code) -> dict[str, str]:
        """The names of the models among the arguments and of those that the code reads, by their fingerprints."""
        found = [*filter(is_model, inputs.values()), *(node.value for node in code.nodes if node.kind == "model")]
        return {fingerprint(value): model_name(getattr(value, "hf", value)) for value in found}

    def model_of(self, mark: str) -> Any:
        """A model that this process has, by its fingerprint; None when there is none."""
        if self.model is not None and fingerprint(self.model) == mark:
            return self.model
        found = self._models.get(mark)
        return found if found is not None and fingerprint(found) == mark else None

    def begin(self, run: Running, name: str, code: Code, about: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Keep the code, the inputs and that the run goes on, before it does. Raises RecordError."""
        from .restoring import keep_code

        folder = self.folder / "runs" / run.id
        try:
            folder.mkdir(parents=True)
            run.lock = Lock(folder)
            about["lost"] = artefacts.keep(inputs, folder / "inputs", MOST_INPUT).lost
            keep_code(self.folder, name, code)
        except OSError as error:
            raise RecordError(f"{self.folder} cannot be written to: {error.strerror or error}. Nothing was run") from error
        self._database.write(
            ("INSERT OR IGNORE INTO codes VALUES (?, ?, ?, ?, ?)",
             (name, code.version, code.python, code.text, as_json({"source": code.source}))),
            ("INSERT INTO runs VALUES (?, ?, ?, 'running', ?, ?, ?, NULL, ?)",
             (run.id, name, code.version, as_json(vars(this_process())), run.parent.id if run.parent else "", time.time(),
              as_json(about))))
        run.about = about

    def numbers(self, ident: str, numbers: list[tuple[str, int | None, float]]) -> None:
        """Keep numbers of a run. Raises RecordError."""
        if numbers:
            self._database.write(*(("INSERT INTO metrics VALUES (?, ?, ?, ?)", (ident, *one)) for one in numbers))

    def value(self, run: Running, name: str, value: Any) -> None:
        """Keep a value or a figure of a run, as it is now."""
        from .ending import note

        note(run, self.folder / "runs" / run.id, name, value)

    def end(self, run: Running, status: str, seconds: float, more: dict[str, Any], value: Any) -> None:
        """Keep how a run ended: its result and all that it drew, logged and wrote. Raises RecordError, OSError."""
        from .ending import kept

        about, numbers, trouble = kept(run, self.folder / "runs" / run.id, status, {**run.about, **more}, value)
        self._database.write(
            *(("INSERT INTO metrics VALUES (?, ?, ?, ?)", (run.id, *one)) for one in [*run.taken(), *numbers]),
            ("UPDATE runs SET status = ?, seconds = ?, document = ? WHERE id = ?",
             (status, seconds, as_json(about), run.id)))
        run.lock.release()
        with suppress(OSError):
            (self.folder / "runs" / run.id / ".lock").unlink()
        if trouble is not None:
            raise trouble
