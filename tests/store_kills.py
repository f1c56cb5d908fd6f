"""Kill a writer of a store again and again, and see what is left: `python tests/store_kills.py 200`, say.

How a writer dies is in `kills`. Filling, appending and compacting take turns; three kills of four are of the writer's own,
at a random point of danger, the fourth comes from outside at a random moment. A store of one shard is killed at every point
of danger, of few kills at every sixth.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from pathlib import Path

import torch
from kills import ends, files, killed_from_outside, room

from hooklab.data import Writer, open_store

AT_FIRST = "pyarrow" in sys.modules
SITES = {"L0.resid_post": ("pos", "d_model"), "L0.pattern": ("head", "query_pos", "key_pos")}
N = 24
SHARD = 6000


def example(i):
    """The i-th example: what it is depends on i alone."""
    draw = torch.Generator().manual_seed(i)
    n = int(torch.randint(1, 12, (), generator=draw))
    values = {"L0.resid_post": torch.randn(n, 16, generator=draw), "L0.pattern": torch.rand(2, n, n, generator=draw)}
    return str(i), values, list(range(n)), {"text": f"é{i}", "half": i / 2 if i % 3 else None}


def fill(folder, slowly=0.0):
    """Write all examples, or those that are missing."""
    with Writer(folder, SITES, model="m", shard_bytes=SHARD, resume=True) as writer:
        for i in range(N):
            time.sleep(slowly)
            writer.add(*example(i))


def single(folder):
    """Write a few, which fit into one shard."""
    with Writer(folder, SITES, model="m", resume=True) as writer:
        for i in range(3):
            writer.add(*example(i))


def extend(folder, slowly=0.0):
    """Add a few more."""
    with open_store(folder).append() as writer:
        for i in range(N, N + 12):
            time.sleep(slowly)
            writer.add(*example(i))


def compact(folder, slowly=0.0):
    """Make larger shards."""
    open_store(folder).compact(3 * SHARD)


def whole(folder, least=0):
    """The examples of a store that is in order; anything else is an error."""
    store = open_store(folder)
    assert not store.verify(), store.verify()
    ids = list(store.ids)
    assert ids == [str(i) for i in range(len(ids))] and len(ids) >= least, ids
    for i in range(len(ids)):
        _, values, tokens, metadata = example(i)
        assert all(torch.equal(store[site][i], value) for site, value in values.items()) and store.tokens(i) == tokens
        assert store.row(i) == {key: value for key, value in metadata.items() if value is not None}
    return len(ids)


def main(folder, kills, seed=0):
    """So many kills, spread over filling, appending and compacting; what was seen, as a dictionary."""
    draw = random.Random(seed)
    reference = folder / "reference"
    points = {"fill": ends(lambda: fill(reference))}
    filled = files(reference)
    shutil.copytree(reference, folder / "filled")
    points["extend"] = ends(lambda: extend(reference))
    extended = files(reference)
    shutil.copytree(reference, folder / "extended")
    points["compact"] = ends(lambda: compact(reference))
    compacted = files(reference)
    plans = {"fill": (fill, None, filled, 0), "extend": (extend, "filled", extended, N),
             "compact": (compact, "extended", compacted, N + 12)}
    seen = {"pyarrow at first": AT_FIRST, "kills": dict.fromkeys(plans, 0), "outside": dict.fromkeys(plans, 0),
            "points": points}
    for number in range(kills):
        work, begin, end, least = plans[name := list(plans)[number % 3]]
        place = folder / f"{number}"
        if begin:
            shutil.copytree(folder / begin, place)
        if number // 3 % 4 == 3:
            seen["outside"][name] += outside(work, place, draw, least)
        else:
            assert ends(lambda w=work, p=place: w(p), draw.randint(1, points[name])) is None
            seen["kills"][name] += 1
            after(place, least)
        assert ends(lambda w=work, p=place: w(p)) is not None
        assert name == "compact" or files(place) == end, (name, number, sorted(files(place)), sorted(end))
        whole(place, least)
        shutil.rmtree(place)
    return seen | {"single": everywhere(single, folder / "single", 1 if kills > 100 else 6)}


def everywhere(work, place, step):
    """Kill at every point of danger, or one of `step`; how many examples were left at each, and when nobody killed."""
    points, left = ends(lambda: work(place)), []
    end, every = files(place), whole(place)
    for at in range(points, 0, -step):
        shutil.rmtree(place)
        assert ends(lambda: work(place), at) is None
        after(place, 0)
        left.append(len(open_store(place)) if (place / "manifest.json").exists() else 0)
        assert left[-1] in (0, every)
        assert ends(lambda: work(place)) is not None and files(place) == end, at
    return [*left[::-1], every]


def outside(work, place, draw, least):
    """Kill from outside until once it is too late; how many died."""
    patience, died = 0.04, 0
    while died < 4 and killed_from_outside(lambda: work(place, 0.001), draw.uniform(0.005, patience)):
        died += 1
        patience *= 1.5
        after(place, least)
    return died


def after(place, least):
    """What is left is in order; of a store that was not begun, nothing needs to be."""
    if least or (place / "manifest.json").exists():
        whole(place, least)


if __name__ == "__main__":
    import pyarrow.parquet  # noqa: F401  # once, for all the children

    with room() as made:
        print(json.dumps(main(Path(made), int(sys.argv[1]))))
