"""Stores in copies, in other processes and in a DataLoader; how many bytes records hold."""

import copy
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hooklab.data import Writer, open_store
from hooklab.errors import RecordError
from hooklab.records import Activations, Run, Scores

STREAM, PATTERN, LOSS = "L0.resid_post", "L0.pattern", "loss"
SITES = {STREAM: None, PATTERN: None, LOSS: ()}
WAYS = {"pickle": lambda one: pickle.loads(pickle.dumps(one)), "copy": copy.copy, "deepcopy": copy.deepcopy}


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def values(n, first=0):
    """Per example its values, of different lengths; the third has no tokens at all."""
    draw = np.random.default_rng(5 + first)
    lengths = [0 if i == 2 else int(draw.integers(1, 9)) for i in range(first, first + n)]
    return [{STREAM: draw.normal(size=(t, 6)).astype(np.float16), PATTERN: draw.random((2, t, t)).astype(np.float32),
             LOSS: np.float64(i)} for i, t in enumerate(lengths, first)]


def written(path, some, first=0, name="ex", **options):
    with Writer(path, SITES, **options) as writer:
        add(writer, some, first, name)
    return open_store(path)


def add(writer, some, first=0, name="ex"):
    for i, one in enumerate(some, first):
        writer.add(f"{name}-{i}", {site: torch.from_numpy(np.asarray(array)) for site, array in one.items()},
                   tokens=list(range(len(one[STREAM]))), metadata={"n": i, "odd": i % 2})


@pytest.fixture
def store(tmp_path):
    return written(tmp_path / "store", values(23), shard_bytes=2000)


@pytest.mark.parametrize("way", WAYS)
def test_a_store_and_its_selections_are_copied_and_pickled(store, way):
    store[STREAM][0]  # something is mapped
    chosen = store.where(odd=1).where(lambda row: row["n"] > 4)
    for one in (store, chosen, store.where(n=99)):
        again = WAYS[way](one)
        assert again is not one and again.ids == one.ids and again.metadata == one.metadata and again.whole == one.whole
        assert all(torch.equal(a, b) for a, b in zip(again[STREAM], one[STREAM], strict=True))
    assert chosen.ids == tuple(f"ex-{i}" for i in range(5, 23, 2))
    assert len(pickle.dumps(store)) < 1000  # a path, no values
    held = WAYS[way](chosen[PATTERN])
    assert torch.equal(held["ex-7"], store[PATTERN]["ex-7"])


def test_a_selection_that_does_not_fit_any_more_is_refused(store, tmp_path):
    path, told, whole = store.path, pickle.dumps(store.where(odd=1)), pickle.dumps(store)
    with store.append() as writer:
        add(writer, values(3, 23), 23)
    store.reload()
    store.compact(1 << 20)
    assert pickle.loads(told).ids == tuple(f"ex-{i}" for i in range(1, 23, 2))  # the same, elsewhere
    assert len(pickle.loads(whole)) == 26
    for some, name in ((values(5), "ex"), (values(23), "other")):
        shutil.rmtree(path)
        written(path, some, name=name)
        with pytest.raises(RecordError, match="was changed: the 11 examples .* Select them anew"):
            pickle.loads(told)
    path.rename(tmp_path / "elsewhere")
    for one in (told, whole):
        with pytest.raises(RecordError, match="is its path, opened anew, and .*there is no store"):
            pickle.loads(one)


def drawn(loader):
    return [tuple(part.numpy().copy() for part in (one if isinstance(one, list | tuple) else [one])) for one in loader]


def alike(found, expected):
    return len(found) == len(expected) and all(
        len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(found, expected, strict=True))


def test_spawned_workers_of_a_loader_give_every_batch_once_and_in_order(store):
    batches = store.where(odd=0).batches(STREAM, 7, seed=3)
    alone = drawn(batches)
    rows = np.concatenate([one[STREAM] for i, one in enumerate(values(23)) if i % 2 == 0])
    found = np.concatenate([part for (part,) in alone])
    assert sorted(map(bytes, found)) == sorted(map(bytes, rows))
    loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert len(loader) == len(alone) == len(batches) > 4 and alike(drawn(loader), alone)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_gives_what_one_process_gives(store, workers):
    for sites, size in ((STREAM, 7), ((STREAM, STREAM), 200), (LOSS, 23)):
        batches = store.batches(sites, size)
        assert alike(drawn(DataLoader(batches, batch_size=None, num_workers=workers)), drawn(batches))


def test_batches_of_a_store_that_has_grown_are_refused(store):
    told = pickle.dumps(store.batches(STREAM, 7))
    some = pickle.dumps(store.where(odd=1).batches(STREAM, 7))
    kept = drawn(store.where(odd=1).batches(STREAM, 7))
    with store.append() as writer:
        add(writer, values(3, 23), 23)
    with pytest.raises(RecordError, match=r"rows of L0.resid_post now, and had .*Make them anew"):
        pickle.loads(told)
    assert alike(drawn(pickle.loads(some)), kept)


def test_bytes_are_the_sum_of_what_numpy_says(store):
    some = values(23)
    assert store.nbytes == sum(array.nbytes for one in some for array in one.values())
    chosen = store.where(odd=1)
    assert chosen.nbytes == sum(array.nbytes for i, one in enumerate(some) if i % 2 for array in one.values())
    assert chosen.stats.sites == {site: sum(one[site].nbytes for i, one in enumerate(some) if i % 2) for site in SITES}
    assert store.where(n=99).nbytes == 0
    assert store.tree() == {STREAM: (23, None, 6), PATTERN: (23, 2, None, None), LOSS: (23,)}
    acts = Activations({"L0.z": torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16), "logits": torch.zeros(2, 3, 100)},
                       grads={"L0.z": torch.zeros(2, 3, 4, 5)})
    assert acts.nbytes == 120 * 2 + 600 * 4 + 120 * 4
    scores = Scores(np.zeros((2, 3)), ("layer", "head"), examples=np.zeros((4, 2, 3), np.float32), low=np.zeros((2, 3)),
                    high=np.ones((2, 3)))
    run = Run(data={"main.L0.z": acts["L0.z"], "other.mine": torch.zeros(7, dtype=torch.int8)},
              axes={"main.L0.z": ("batch", "pos", "head", "d_head"), "other.mine": ("feature",)},
              examples={"main": {"prob": np.zeros(5)}}, scores={"main.prob": scores})
    parts = (scores.values, scores.examples, scores.low, scores.high)
    assert run.nbytes == 240 + 7 + 40 + sum(one.size * one.itemsize for one in parts)
    assert run.tree() == {"main": {"L0.z": (2, 3, 4, 5)}, "other": {"mine": (7,)}}
