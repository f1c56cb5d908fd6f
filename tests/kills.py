"""A process that dies while it writes, again and again: what the scripts share that kill writers.

A process that has everything imported makes a child for each kill. The child dies by SIGKILL of its own (`ends`), in the
middle of a write, or right before or after data is brought to the disk, a file gets its name or loses it; or it is killed
from outside (`killed_from_outside`), at a random moment.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from threading import Lock

from hooklab.data.store import shard as store_shard


def files(folder):
    """What is in a store, by name; the lock apart."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def forked(work):
    """A child that does the work: its number, and where it tells what came of it, if it comes to that."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, json.dumps(work()).encode())
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        os._exit(0)
    os.close(write)
    return child, read


def told(child, read):
    """What a child tells when it has ended; None where it died, or failed."""
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    return json.loads(said) if said else None


def ends(work, at=None):
    """Run in a child, which dies at its n-th point of danger if `at` is given; how many points there were, or None."""
    def endangered():
        count = dangers(at)
        work()
        return count[0]

    return told(*forked(endangered))


def killed_from_outside(work, seconds):
    """Whether the child was killed before it was done."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def dangers(at):
    """From now on this process counts its points of danger, and dies at one of them; the count, as a list of one."""
    count, one = [0], Lock()

    def danger():
        with one:  # two shards can be on their way at once
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(function):
        def call(*args, **kwargs):
            danger()
            found = function(*args, **kwargs)
            danger()
            return found

        return call

    write = store_shard._write

    def half(file, views):
        first, rest = views[: len(views) // 2], views[len(views) // 2:]
        danger()
        write(file, [*first, rest[0][: len(rest[0]) // 2]])
        danger()
        write(file, [rest[0][len(rest[0]) // 2:], *rest[1:]])

    os.fsync, store_shard._write = around(os.fsync), half
    Path.replace, Path.rename, Path.unlink = around(Path.replace), around(Path.rename), around(Path.unlink)
    return count


def room():
    """A folder for a while, in memory where that is possible: what is tested is the order of things, not the disk."""
    return tempfile.TemporaryDirectory(dir=next((p for p in ("/dev/shm",) if os.access(p, os.W_OK)), None))
