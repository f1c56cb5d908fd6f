"""What every worker of every engine does: take a part, make it, check it, publish it, and so on until all are there.

It is also the program of a worker process of the local engine: it reads its job from its standard input, and ends at once
when that is closed, so that no worker outlives who started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from ... import errors
from ...errors import HooklabError, RecordError
from ..store.store import open_store
from .claims import Claim, Shared
from .owner import this_process

POLL = 0.1
FAILED = 3
"""Exit status of a worker whose error is in the folder `errors`."""

Do = Callable[[int, Path], Any]


@dataclass(frozen=True)
class Job:
    """What a worker is given.

    Attributes:
        do: Makes a part; as it travels.
        folder: Where.
        settings: As of `run_parts`.
        count: How many parts, if that is known.
        lease: Seconds, as of `Shared`.
        threads: How many threads torch takes; None leaves it as it is.
    """

    do: bytes
    folder: str
    settings: dict[str, Any]
    count: int | None
    lease: float
    threads: int | None = None


def work(do: Do, shared: Shared, *, worker: int = 0, watch: Callable[[], None] = lambda: None) -> int:
    """Do parts until all are published; how many this worker did.

    Args:
        do: Called with the number of a part and the folder to write it in, which is a store afterwards; returns False where
            there is no such part, or a dictionary for the journal. If it has a method `start`, that is called with
            `worker` before the first part.
        shared: Where the parts are.
        worker: Number of this worker among those of this machine.
        watch: Called between parts and while waiting; ends the work by raising.

    Raises:
        RecordError: what was written is no complete store. Whatever `do` raises; its part is then free for others.
    """
    started, done = False, 0
    while not shared.complete():
        watch()
        claim = shared.next()
        if claim is None:
            time.sleep(POLL)
            continue
        try:
            if not started and hasattr(do, "start"):
                do.start(worker)
            started = True
            with claim.beating(shared.lease):
                done += _part(do, shared, claim)
        except BaseException as error:
            lost = isinstance(error, Exception) and (not claim.held() or shared.has(claim))
            claim.release()
            if not lost:  # otherwise another did it, and cleared away what this one was writing
                error.add_note(f"This was part {int(claim.name)} of {shared.path}.")
                raise
    return done


def _part(do: Do, shared: Shared, claim: Claim) -> bool:
    made, began = shared.room(claim), time.monotonic()
    found = do(int(claim.name), made)
    if found is False:
        shared.ends_before(int(claim.name))
        return False
    about = {**checked(made), "seconds": round(time.monotonic() - began, 3), **(found if isinstance(found, dict) else {})}
    return shared.publish(claim, made, about)


def checked(folder: Path) -> dict[str, int]:
    """How much a part holds. Raises RecordError where it is no store that was closed and is whole."""
    store = open_store(folder)
    if not store.complete:
        raise RecordError(f"{folder} was not closed by its writer")
    if damaged := store.verify():
        raise RecordError(f"{folder} is damaged: {damaged[0]}")
    shards = store.manifest.shards
    return {"examples": len(store), "tokens": sum(one.tokens for one in shards), "bytes": sum(one.bytes for one in shards)}


# A worker in a process of its own ----------------------------------------------------------------------------------


def run_job(job: Job, token: str, worker: int) -> int:
    """A job from beginning to end; 0, or `FAILED` after leaving word of what went wrong."""
    import cloudpickle

    try:
        if job.threads:
            import torch

            torch.set_num_threads(job.threads)
        shared = Shared(Path(job.folder), this_process(token), job.settings, job.count, job.lease)
        work(cloudpickle.loads(job.do), shared, worker=worker)
    except Exception as error:
        told = {"kind": type(error).__name__, "ours": isinstance(error, HooklabError), "message": str(error),
                "notes": getattr(error, "__notes__", []), "trace": traceback.format_exc()}
        path = Path(job.folder) / "errors" / f"{token}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told))
        return FAILED
    return 0


def raised(folder: Path, token: str) -> Exception | None:
    """The error that a worker left word of, to be raised here; hooklab's own as what they were."""
    path = folder / "errors" / f"{token}.json"
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    error: Exception = RecordError(f"a worker failed with {told['kind']}: {told['message']}")
    kind = getattr(errors, told["kind"], None)
    if told["ours"] and isinstance(kind, type) and issubclass(kind, HooklabError):
        with suppress(TypeError):
            error = kind(told["message"])
    for note in told["notes"]:
        error.add_note(note)
    error.add_note("In the worker:\n" + told["trace"])
    return error


def main() -> None:
    """Read a job from the standard input and do it."""
    import cloudpickle

    pipe = sys.stdin.buffer
    told = json.loads(pipe.readline())
    sys.path[:] = [*told["path"], *(one for one in sys.path if one not in told["path"])]
    job = cloudpickle.loads(pipe.read(told["bytes"]))

    def gone() -> None:
        pipe.read()
        os._exit(1)

    Thread(target=gone, daemon=True).start()
    os._exit(run_job(job, told["token"], told["worker"]))


if __name__ == "__main__":
    main()
