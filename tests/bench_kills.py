"""Kill runs of a bench at random moments and see what is left: `python tests/bench_kills.py 200`, say.

A process that has everything imported makes a child for each kill. The child makes runs one after the other and says through
a pipe when one has ended; it is killed from outside at a random moment. Every run that has ended must be there with its
result, and of those that had only begun at most one per kill, marked as killed.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hooklab.bench import Bench


def work(folder, number, pipe):
    """Make runs until the end comes."""
    bench = Bench(folder)

    @bench.experiment(name="work")
    def values(i, number):
        bench.log("i", i)
        return np.arange(i * 100) + number

    for i in range(10**6):
        values(i, number)
        os.write(pipe, f"{i}\n".encode())


def killed(folder, number, seconds):
    """The runs that a child said had ended before it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(folder, number, write)
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        os._exit(1)
    os.close(write)
    if number % 2 == 0:  # after the first run; else at any moment, while the bench is being made too
        assert select.select([read], [], [], 60)[0], "no run ended"
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the child ended by itself"
    with os.fdopen(read) as pipe:
        told = pipe.read()
    return {(int(line), number) for line in told.split("\n")[:-1]}


def main(folder, kills, seed=0):
    """So many kills; what was seen, as a dictionary."""
    draw = random.Random(seed)
    ended = set()
    for number in range(kills):
        ended |= killed(folder, number, draw.uniform(0.02, 0.6))
    bench = Bench(folder)
    found = bench.runs()
    by_status = {status: [one for one in found if one.status == status] for status in {one.status for one in found}}
    assert set(by_status) <= {"finished", "killed"}, set(by_status)
    there = set()
    for one in by_status.get("finished", []):
        i, number = one.inputs["i"], one.inputs["number"]
        assert np.array_equal(one.result, np.arange(i * 100) + number) and one.metrics == {"i": i}
        there.add((i, number))
    assert ended <= there and len(there - ended) <= kills, (ended - there, there - ended)
    marked = by_status.get("killed", [])
    assert len(marked) <= kills and len({one.environment["pid"] for one in marked}) == len(marked)
    bench.experiment(lambda: 1, name="after")()
    assert bench.runs("after")[0].status == "finished"
    return {"kills": kills, "finished": len(there), "killed": len(marked)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps(main(Path(made) / "bench", int(sys.argv[1]))))
