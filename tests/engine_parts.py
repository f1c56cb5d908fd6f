"""Parts of a store whose every byte is known, made in processes that die: for the tests of the engines.

`python tests/engine_parts.py 200`, say, kills a process that makes and merges parts so many times, and sees what is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from kills import ends, files, room
from store_kills import SHARD, SITES, N, example, fill

from hooklab.data import Writer
from hooklab.data.engines import parts
from hooklab.data.engines.work import run_job
from hooklab.errors import RecordError


class Fill:
    """Part p: so many of the examples that `store_kills.fill` writes in one go.

    The first process to come to example `hold` leaves its number in `marker` and waits there; example `bad` is an error.
    """

    def __init__(self, size, hold=None, marker=None, bad=None, slowly=0.0):
        self.size, self.hold, self.marker, self.bad, self.slowly = size, hold, marker, bad, slowly
        self.worker = None

    def start(self, worker):
        assert self.worker is None, "started twice"
        self.worker = worker

    def __call__(self, p, folder):
        mine = range(N)[p * self.size: (p + 1) * self.size]
        if not mine:
            return False
        assert self.worker is not None, "never started"
        with Writer(folder, SITES, model="m", shard_bytes=SHARD) as writer:
            for i in mine:
                if i == self.hold and not Path(self.marker).exists():
                    writer.flush()
                    waiting(Path(self.marker))
                if i == self.bad:
                    raise ZeroDivisionError(f"example {i}")
                time.sleep(self.slowly)
                writer.add(*example(i))
        return None


def waiting(marker):
    """Say who waits, and wait."""
    made = marker.with_name(f".{marker.name}.{os.getpid()}")
    made.write_text(str(os.getpid()))
    made.replace(marker)
    time.sleep(600)


def alone(folder, size=8, count=None):
    """All of it in this process."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1"}
    return parts.store_in_parts(Fill(size), count, folder, engine="rank", settings={"n": size}, timeout=300)


def main(folder, kills, seed=0):
    """So many kills, some one after the other, each followed by the same call; what was seen."""
    draw = random.Random(seed)
    fill(folder / "single")
    single = files(folder / "single")
    points = ends(lambda: alone(folder / "whole"))
    assert files(folder / "whole") == single
    killed = number = 0
    while killed < kills:
        number += 1
        place = folder / f"{number}"
        for _ in range(draw.randint(3, 6)):
            killed += ends(lambda p=place: alone(p), draw.randint(1, points)) is None
        assert ends(lambda p=place: alone(p)) is not None
        assert files(place) == single, number
        journal = parts_of(place)
        assert [line["part"] for line in journal] == [0, 1, 2], journal
        assert sum(line["examples"] for line in journal) == N
        left = sorted(p.name for p in place.with_name(f".{place.name}.parts").iterdir())
        assert left == ["journal", "merged.json", "plan.json"], left
    return {"points": points, "kills": killed}


class Forked:
    """A worker that has everything imported: what `engine_local.Process` is, sooner."""

    def __init__(self, job, token, worker):
        self.status = None
        self.child = os.fork()
        if not self.child:
            os._exit(run_job(job, token, worker))

    def ended(self):
        if self.status is None:
            found, status = os.waitpid(self.child, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if found else None
        return None if self.status is None else "" if self.status == 0 else f"ended with {self.status}"

    def end(self):
        if self.status is None:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)


class Deadly(Fill):
    """Part 1 is the end of whoever makes it."""

    def __call__(self, p, folder):
        if p == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(p, folder)


def callers(folder):
    """Two processes want the same store at the same time; how both ended, and what is written of it."""
    folder.mkdir()
    parts.Process = Forked
    made = []
    for _ in range(2):
        made.append(os.fork())
        if not made[-1]:
            parts.store_in_parts(Fill(3, slowly=0.01), 8, folder / "acts", workers=1, timeout=300)
            os._exit(0)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in made]
    lines = [line for one in (folder / ".acts.parts" / "journal").iterdir() for line in one.read_text().splitlines()]
    fill(folder / "alone")
    return {"ended": ended, "same": files(folder / "acts") == files(folder / "alone"),
            "lines": [json.loads(one) for one in lines]}


def deaths(folder):
    """What is said when a part ends every worker."""
    parts.Process = Forked
    try:
        parts.run_parts(Deadly(12), 2, folder / "deadly", workers=1, timeout=300)
    except RecordError as error:
        return str(error), sorted(p.name for p in (folder / "deadly" / "parts").iterdir())


def parts_of(store):
    """The journal beside a store."""
    from hooklab.data.engines.claims import Shared
    from hooklab.data.engines.owner import this_process

    plan = json.loads((store.with_name(f".{store.name}.parts") / "plan.json").read_text())
    shared = Shared(store.with_name(f".{store.name}.parts"), this_process(), plan["settings"], plan["count"])
    found = shared.journal()
    shared.clear("claims", "work", "parts", "ends", "errors")
    return found


if __name__ == "__main__":
    if sys.argv[1] == "rank":  # one of several, as torchrun would start it
        made = parts.store_in_parts(Fill(4, slowly=0.01), None, sys.argv[2], engine="rank", settings={"n": 4}, timeout=300)
        print(json.dumps([os.environ["RANK"], len(made), os.getpid()]))
        sys.exit()

    import pyarrow.parquet  # noqa: F401  # once, for all the children

    with room() as made:
        told = main(Path(made), int(sys.argv[1]))
        print(json.dumps({**told, "callers": callers(Path(made) / "callers"), "deaths": deaths(Path(made))}))
