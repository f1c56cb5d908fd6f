"""Kill actors of Ray and their driver at random moments, and see what is left: `python tests/ray_kills.py 40`, say.

A cluster of this machine is started once. A driver, forked with everything imported, makes a store in parts; meanwhile its
actors, or it, are killed from outside: while they start, while they write, or while the parts are merged. The same call goes
on until the store is there, which must be, byte by byte, the one that a single process writes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from engine_parts import Fill
from kills import files, room
from store_kills import N, fill, whole

PARTS = 24
LIMIT = 600.0
CLUSTER = """
import sys, ray
for last in (False, False, False, False, True):
    try:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        break
    except Exception:  # it gives itself half a minute, which a busy machine may exceed
        ray.shutdown()
        if last:
            raise
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def drive(address, place):
    """What the driver does: connect to the cluster, and make the store."""
    import ray

    from hooklab.data.engines import parts
    from hooklab.errors import RecordError

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        parts.store_in_parts(Fill(N // PARTS, slowly=0.4), PARTS, place, engine="ray", workers=3, timeout=LIMIT)
    except RecordError as error:
        if "workers died" not in str(error):
            raise
        return 3  # as many deaths as one call puts up with: the next one goes on
    return 0


def driver(address, place):
    """Its process."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = drive(address, place)
        except BaseException as error:
            os.write(2, f"driver: {error!r}\n".encode())
        os._exit(status)
    return child


def ended(child):
    """How a child ended; None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def actors(root):
    """Processes of actors below a process: those of this cluster, and of no other."""
    parent, names = {}, {}
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parent[int(one.name)] = int((one / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(one.name)] = (one / "cmdline").read_bytes()

    def below(pid):
        while pid in parent and pid != root:
            pid = parent[pid]
        return pid == root

    return [pid for pid, name in names.items() if name.startswith(b"ray::Worker") and below(pid)]


def at_work(place):
    """Processes that hold a part, or the merge, as the claims say."""
    found = []
    for path in (place.with_name(f".{place.name}.parts") / "claims").glob("[!.]*"):
        with suppress(OSError, ValueError):
            told = json.loads(path.read_text())
            found += [] if told.get("released") else [told["pid"]]
    return found


def victim(draw, place, root, child):
    """Who is killed next: mostly an actor in the middle of a part, sometimes one that starts, or the driver; or nobody."""
    running = actors(root)
    busy = sorted({*running} & {*at_work(place)})
    kinds = (busy, 0.75 if busy else 0.0), (running, 0.004), ([child], 0.08 if busy else 0.002)
    for some, chance in kinds:
        if some and draw.random() < chance:
            return draw.choice(some)
    return None


def one(draw, address, root, place, wanted, seen):
    """A store that is made while up to so many kills fall; how many did."""
    done, began, child = 0, time.monotonic(), driver(address, place)
    try:
        while (status := ended(child)) != 0:
            assert time.monotonic() - began < LIMIT, f"{place} was not made in {LIMIT:g} s"
            if status is not None:
                assert status in (3, -signal.SIGKILL), status
                seen["calls that gave up"] += status == 3
                child = driver(address, place)
            time.sleep(draw.uniform(0, 0.3))
            target = victim(draw, place, root, child) if done < wanted else None
            if target is not None:
                busy = target in at_work(place)
                with suppress(ProcessLookupError):  # it may have ended just now
                    os.kill(target, signal.SIGKILL)
                done += 1
                seen["drivers" if target == child else "actors"] += 1
                seen["in the middle of a part"] += target != child and busy
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        raise
    return done


def checked(place, single):
    """Nothing is lost, nothing is there twice, and what is there is what one process writes."""
    assert files(place) == single, sorted(files(place))
    assert whole(place, N) == N
    beside = place.with_name(f".{place.name}.parts")
    lines = [json.loads(line) for path in (beside / "journal").iterdir() for line in path.read_text().splitlines()]
    own = Counter(line["part"] for line in lines if not line.get("found"))
    assert {line["part"] for line in lines} == set(range(PARTS)) and max(own.values()) == 1, own
    assert sum({line["part"]: line["examples"] for line in lines}.values()) == N
    assert sorted(p.name for p in beside.iterdir()) == ["journal", "merged.json", "plan.json"]
    return sum(line["generation"] > 0 for line in lines if not line.get("found"))


def main(folder, kills, seed=0):
    """So many kills; what was seen."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # the cluster is of this machine, and for this script
    import ray  # noqa: F401  # once, for all drivers

    draw, seen = random.Random(seed), Counter()
    fill(folder / "single")
    single = files(folder / "single")
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = cluster.stdout.readline().strip()
    assert address, "Ray could not be started"
    try:
        number = killed = 0
        while killed < kills:
            number += 1
            place = folder / f"{number}"
            killed += one(draw, address, cluster.pid, place, min(10, kills - killed), seen)
            seen["parts taken over"] += checked(place, single)
            print(f"{number} stores, {dict(seen)}", file=sys.stderr, flush=True)
        return {"kills": killed, "stores": number, "examples lost or doubled": 0, **seen}
    finally:
        cluster.communicate()


if __name__ == "__main__":
    import pyarrow.parquet  # noqa: F401  # once, for all the children

    with room() as made:
        print(json.dumps(main(Path(made), int(sys.argv[1]))))
