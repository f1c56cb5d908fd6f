"""Workers as actors of Ray, on one machine or a cluster; Ray is imported when it is asked for, and only then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import RecordError
from .work import Job


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, with a cluster: the caller's if there is one, else one of this machine, which ends with this block.

    Raises:
        RecordError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RecordError('engine="ray" needs Ray: pip install "hooklab[scale]". engine="local" needs nothing more, and '
                          'engine="rank" only torchrun') from error
    own = not ray.is_initialized()
    if own:
        _start(ray)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any) -> None:
    """Start a cluster of this machine; once more where Ray lost patience, as it does on a machine that is busy."""
    for last in (False, True):
        try:
            ray.init(include_dashboard=False)
            return
        except Exception as error:
            ray.shutdown()
            if last:
                raise RecordError(f"Ray could not be started: {str(error).strip().splitlines()[0]}") from error


class Actor:
    """A worker that is an actor.

    Args:
        ray: The module.
        job: What it does.
        token: Its owner's token.
        worker: Its number.
        gpus: How many it has for itself; it then sees no others, and calls its first one 0.
    """

    def __init__(self, ray: Any, job: Job, token: str, worker: int, gpus: float) -> None:
        self._ray = ray
        paths = [one for one in sys.path if one]

        class Worker:  # made here, so that it travels as a whole: hooklab is imported where it runs
            def run(self, job: bytes) -> int:
                import sys

                sys.path += [one for one in paths if one not in sys.path]
                import cloudpickle

                from hooklab.data.engines.work import run_job

                return run_job(cloudpickle.loads(job), token, 0 if gpus else worker)

        import cloudpickle

        self._actor = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=0).remote()
        self._result = self._actor.run.remote(cloudpickle.dumps(job))

    def ended(self) -> str | None:
        """How it ended."""
        if not self._ray.wait([self._result], timeout=0)[0]:
            return None
        try:
            self._ray.get(self._result)
        except self._ray.exceptions.RayActorError as error:
            return f"was lost: {str(error).splitlines()[0]}"
        except self._ray.exceptions.RayTaskError as error:
            return f"failed: {str(error).splitlines()[-1]}"
        return ""

    def end(self) -> None:
        """End it."""
        self._ray.kill(self._actor, no_restart=True)
