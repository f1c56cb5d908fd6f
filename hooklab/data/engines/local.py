"""Workers as processes of this machine, started afresh: nothing of the caller's memory is theirs, and no `__main__` guard is
needed, in a script or a notebook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from .work import Job


class Process:
    """A worker process, fed through a pipe that ends it when it is closed.

    Args:
        job: What it does.
        token: Its owner's token.
        worker: Its number.
    """

    def __init__(self, job: Job, token: str, worker: int) -> None:
        import cloudpickle

        payload = cloudpickle.dumps(job)
        path = [os.path.abspath(one) for one in sys.path]  # noqa: PTH100  # "" is the folder where the caller is
        head = json.dumps({"path": path, "token": token, "worker": worker, "bytes": len(payload)}).encode() + b"\n"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        self._process = subprocess.Popen([sys.executable, "-m", f"{__package__}.work"], stdin=subprocess.PIPE,
                                         env=env, start_new_session=True)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(head + payload)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died already; `ended` tells

    def ended(self) -> str | None:
        """How it ended."""
        code = self._process.poll()
        if code is None:
            return None
        if code == 0:
            return ""
        named = code < 0 and -code in {one.value for one in signal.Signals}
        return f"was ended by {signal.Signals(-code).name}" if named else f"ended with status {code}"

    def end(self) -> None:
        """End it and wait for that."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass


def threads_each(workers: int) -> int | None:
    """Threads of torch for each worker, so that all together take no more cores than there are."""
    if workers == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
