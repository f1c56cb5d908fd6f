"""A store made in numbered parts, by as many processes as there are, and put together in order.

In: a function that makes part p, the same whoever calls it. Out: the store that one process would have made, byte for byte
where the values are. Whoever wants to help calls the same function on the same folder; whatever dies is redone.

    engine="local"   worker processes of this machine
    engine="ray"     actors of Ray (pip install "hooklab[scale]")
    engine="rank"    this process is one of several that torchrun, accelerate or a batch system started
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import RecordError, did_you_mean
from ...files import write_whole
from ..store import keeping
from ..store import manifest as files
from ..store.store import Store
from .claims import LEASE, MERGED, Shared
from .crew import Clock, Progress, lead
from .local import Process, threads_each
from .owner import this_process
from .ray_actors import Actor, connected
from .work import POLL, Do, Job, checked, work

ENGINES = ("local", "ray", "rank")
Finish = Callable[[tuple[Path, ...], Path], None]


def run_parts(do: Do, count: int | None, folder: str | Path, *, engine: str = "local", workers: int | None = None,
              settings: Mapping[str, Any] | None = None, gpus: float = 0.0, lease: float = LEASE,
              timeout: float | None = None, progress: Progress | None = None) -> tuple[Path, ...]:
    """Make parts, each exactly once, and wait until all are there.

    Args:
        do: Called with (p, folder) in a worker: writes part p as a store into that folder, or returns False where there is
            no part p. It travels to the workers, with what it refers to. If it has a method `start`, that is called with
            the worker's number first: the place to open a model.
        count: How many parts; None where `do` says: it may be asked for any part behind the last, and is to give False for
            each.
        folder: Where the parts go: one that all workers see. What is in it from before is not made again.
        engine: "local", "ray" or "rank".
        workers: How many; 2 if it is not said, no more than parts. Not for "rank", where they are there already.
        settings: What the parts depend on, such as the model's fingerprint and the examples of a part: who joins or
            continues must have the same.
        gpus: GPUs that Ray gives to each worker.
        lease: Seconds without a sign of life after which a worker on another machine counts as dead.
        timeout: Seconds without a new part after which it is given up; None for never.
        progress: Called with (parts done, parts in all or 0, "parts").

    Returns:
        The folders of the parts, in order.

    Raises:
        RecordError: an argument is wrong, the folder was begun with other settings, Ray is missing, the time is over, or
            worker after worker died. And whatever `do` raises. The same call then continues.
    """
    _checked(engine, workers, count)
    shared = Shared(Path(folder).expanduser().absolute(), this_process(), settings or {}, count, lease)
    _run(do, shared, engine, workers, dict(settings or {}), gpus, Clock(shared, timeout, progress))
    return shared.parts()


def store_in_parts(do: Do, count: int | None, out: str | Path, *, engine: str = "local", workers: int | None = None,
                   settings: Mapping[str, Any] | None = None, gpus: float = 0.0, lease: float = LEASE,
                   timeout: float | None = None, progress: Progress | None = None, finish: Finish | None = None) -> Store:
    """A store, made in parts and merged; the parts are kept beside it, in `.NAME.parts`, until that is done.

    The same call continues what was interrupted. Several processes may make it at once, on machines that share the folder:
    they share the parts, one of them merges, all of them get the store. Merging takes the room of the store once more.

    Args:
        do: As of `run_parts`, like all that follow.
        count: Parts; or None.
        out: The folder of the store; it must not exist, unless this very call made it.
        engine: "local", "ray" or "rank". By rank, rank 0 merges.
        workers: How many.
        settings: What the parts depend on.
        gpus: For each worker of Ray.
        lease: Seconds.
        timeout: Seconds without a new part, or without the merged store.
        progress: Called as parts are published.
        finish: Called with (folders of the parts, folder of the merged store) before the store gets its place.

    Raises:
        RecordError: as `run_parts`; `out` exists; or the parts do not fit together.
    """
    _checked(engine, workers, count)
    target = Path(out).expanduser().absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{target} could not be made: {error.strerror or error}") from error
    folder = folder_of(target)
    if (target.exists() or target.is_symlink()) and _merged(folder, target) is None:
        raise RecordError(f"{target} exists: choose another name")
    shared = Shared(folder, this_process(), settings or {}, count, lease)
    leader = engine != "rank" or _ranks()[0] == 0
    if leader and (folder / MERGED).exists() and not (folder / "merged").exists() and _merged(folder, target) is None:
        (folder / MERGED).unlink(missing_ok=True)  # what it was merged to is gone: again, but for parts that are left
    _run(do, shared, engine, workers, dict(settings or {}), gpus, Clock(shared, timeout, progress))
    return _put_together(shared, target, leader, timeout, finish)


def folder_of(out: Path) -> Path:
    """Where the parts of a store are, and their journal afterwards."""
    return out.with_name(f".{out.name}.parts")


# Running -------------------------------------------------------------------------------------------------------------


def _checked(engine: str, workers: int | None, count: int | None) -> None:
    if engine not in ENGINES:
        raise RecordError(f"there is no engine {engine!r}, only {', '.join(ENGINES)}.{did_you_mean(str(engine), ENGINES)}")
    for name, value, least in (("workers", workers, 1), ("count", count, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise RecordError(f"{name}={value!r}: it is a whole number from {least}, or None")
    if engine == "rank":
        if workers is not None:
            raise RecordError('workers= is not for engine="rank": there, torchrun or accelerate says how many there are')
        _ranks()


def _ranks() -> tuple[int, int, int]:
    """This process's number, how many there are, and its number on its machine. Raises RecordError."""
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return rank, world, int(os.environ.get("LOCAL_RANK", rank))
    except (KeyError, ValueError):
        raise RecordError('engine="rank" reads RANK and WORLD_SIZE, which torchrun and accelerate launch set: start the '
                          "script with torchrun --nproc-per-node 2 script.py, or set them yourself") from None


def _run(do: Do, shared: Shared, engine: str, workers: int | None, settings: dict[str, Any], gpus: float,
         clock: Clock) -> None:
    if shared.complete():
        return
    if engine == "rank":
        work(do, shared, worker=_ranks()[2], watch=clock.look)
        return
    import cloudpickle

    n = min(workers or 2, shared.count or workers or 2)
    job = Job(cloudpickle.dumps(do), str(shared.path), settings, shared.count, shared.lease,
              threads_each(n) if engine == "local" else None)
    if engine == "local":
        lead(lambda worker, token: Process(job, token, worker), n, job, shared, clock)
        return
    with connected() as ray:
        lead(lambda worker, token: Actor(ray, job, token, worker, gpus), n, job, shared, clock)


# Merging -------------------------------------------------------------------------------------------------------------


def _put_together(shared: Shared, target: Path, leader: bool, timeout: float | None, finish: Finish | None) -> Store:
    since = time.monotonic()
    while (found := _merged(shared.path, target)) is None:
        claim = shared.take("merge", shared.claims().get("merge")) if leader else None
        if claim is None:
            if timeout is not None and time.monotonic() - since > timeout:
                raise RecordError(f"{target} was not there after {timeout:g} s: whoever merges the parts has not done it")
            time.sleep(POLL)
            continue
        try:
            with claim.beating(shared.lease):
                if _merged(shared.path, target) is None:
                    _merge(shared, target, finish)
        finally:
            claim.release()
    return found


def _merge(shared: Shared, target: Path, finish: Finish | None) -> None:
    made = shared.path / "merged"
    if not made.exists():
        if not shared.parts():
            raise RecordError("there is not one part: the source is empty")
        if lost := [path for path in shared.parts() if not path.exists()]:
            raise RecordError(f"{lost[0]} is gone: the same call makes it again")
        entered = {line["part"] for line in shared.journal()}
        for path in shared.parts():
            if int(path.name) not in entered:  # its maker died before it could
                shared.note({"part": int(path.name), "found": True, **checked(path)})
        keeping.merge(shared.parts(), made)
    if finish is not None and not (shared.path / MERGED).exists():
        finish(shared.parts(), made)
    write_whole(shared.path / MERGED, json.dumps({"manifest": _digest(made)}).encode(), replace=True)
    if target.exists():
        raise RecordError(f"{target} exists by now: what was made is in {made}")
    made.rename(target)
    files.sync(target.parent)
    shared.clear("work", "parts", "claims", "ends", "errors")


def _merged(folder: Path, target: Path) -> Store | None:
    """The store, where it is the one that the parts in the folder made."""
    try:
        told = json.loads((folder / MERGED).read_text())
        return Store(target) if told["manifest"] == _digest(target) else None
    except OSError:
        return None


def _digest(store: Path) -> str:
    return hashlib.sha256((store / files.MANIFEST).read_bytes()).hexdigest()
