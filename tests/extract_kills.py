"""Kill an extraction again and again, and see what is left: `python tests/extract_kills.py 200`, say.

How a child dies is in `kills`; another one goes on, and may be killed as well, until one comes to the end.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pyarrow.parquet  # noqa: F401  # once, for all children
import torch
from kills import ends, files, room
from tiny_models import build

import hooklab as hl
from hooklab.data.extraction.extract import extract
from hooklab.data.store.store import open_store

N = 32
SITES = ["L0.resid_post", "L1.pattern"]


def examples(n=N):
    """Ragged examples, as a generator."""
    draw = torch.Generator().manual_seed(7)
    for i in range(n):
        size = int(torch.randint(1, 20, (), generator=draw))
        yield {"input_ids": torch.randint(3, 99, (size,), generator=draw).tolist(), "number": i, "key": f"é{i}"}


def fill(model, folder):
    """Extract, or go on with it."""
    return extract(model, examples(), SITES, folder, id="key", metadata=["number"], metrics=["entropy"],
                   reduce={"mean": "L0.resid_post", "covariance": "L0.mlp_out", "max_k": "L1.mlp_post"}, batch_tokens=64,
                   max_ram=200_000, shard_bytes=15_000)


def main(kills):
    """As many kills as asked for; what was seen."""
    model = hl.load(build("gpt2"))
    extract(model, examples(8), metrics=["entropy"], reduce=["max_k"], sites="L1.mlp_post")  # what is imported now is shared
    draw = random.Random(kills)
    with room() as base:
        whole = Path(base) / "whole"
        points = ends(lambda: fill(model, whole))
        expected = files(whole)
        done = lost = 0
        folder = Path(base) / "killed"
        while done < kills:
            before = len(open_store(folder)) if (folder / "manifest.json").exists() else 0
            if ends(lambda: fill(model, folder), draw.randint(1, points // 2)) is None:
                done += 1
                after = len(open_store(folder)) if (folder / "manifest.json").exists() else 0
                lost += after < before
            if draw.random() < 0.3 or done == kills:
                assert ends(lambda: fill(model, folder)) is not None
                assert files(folder) == expected, sorted(files(folder)) + sorted(expected)
                shutil.rmtree(folder)
        return {"kills": done, "points": points, "lost": lost, "shards": sum("shards/" in name for name in expected)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
