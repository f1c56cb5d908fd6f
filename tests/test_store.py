"""A store gives back what was put in: ragged, typed, in any order, by site, example, position and metadata."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import hooklab.data.store.index as store_index
from hooklab.data import Layout, Writer, estimate, import_captures, merge, open_store, read_capture
from hooklab.data.store.batches import permuted
from hooklab.data.store.layout import DTYPES
from hooklab.errors import PositionError, RecordError
from hooklab.records import Run
from hooklab.sae.stream import Stream
from hooklab.tokens import Tokens

STREAM, PATTERN = "L0.resid_post", "L0.pattern"


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk():
    """What stands in a file is the same; that it survives is shown in test_store_safety.py."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


def ragged(n, seed=0, d=8):
    """Per example: id, values of two sites, tokens, metadata."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        t = int(torch.randint(1, 15, (), generator=draw))
        values = {STREAM: torch.randn(t, d, generator=draw), PATTERN: torch.rand(2, t, t, generator=draw)}
        tokens = torch.randint(0, 50000, (t,), generator=draw).tolist()
        made.append((f"ex-{i}", values, tokens, {"part": "ab"[i % 2], "n": i}))
    return made


def filled(path, examples, sites=(STREAM, PATTERN), **options):
    with Writer(path, sites, **options) as writer:
        for one in examples:
            writer.add(*one)
    return open_store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("s") / "store", ragged(200), shard_bytes=40_000, model="abc")


def test_two_hundred_ragged_examples_come_back_as_they_were_put_in(store):
    assert len(store) == 200 and len(store.manifest.shards) == 5 and store.complete
    for i, (name, values, tokens, metadata) in enumerate(ragged(200)):
        assert store.ids[i] == name and store.tokens(i) == tokens and store.row(name) == metadata
        for site, value in values.items():
            assert torch.equal(store[site][i], value) and torch.equal(store[site][name], value)
    assert [one.shape[0] for one in store[STREAM][3:6]] == list(store.n_tokens[3:6])
    assert not store.verify()
    assert not [p for p in store.path.rglob("*") if p.name.endswith(".part") or p.name == "journal.jsonl"]


def test_any_reader_of_safetensors_and_parquet_reads_the_files(store):
    import pandas as pd

    entry = store.manifest.shards[1]
    tensors = load_file(store.path / "shards" / f"{entry.name}.safetensors")
    table = pd.read_parquet(store.path / "index" / f"{entry.name}.parquet")
    first = store.manifest.shards[0].examples
    wanted = ragged(200)[first : first + entry.examples]
    assert torch.equal(tensors[STREAM], torch.cat([values[STREAM] for _, values, _, _ in wanted]))
    assert tensors[f"{STREAM}@offsets"].tolist() == np.cumsum([0, *(len(t) for _, _, t, _ in wanted)]).tolist()
    assert torch.equal(tensors[PATTERN], torch.cat([values[PATTERN].flatten() for _, values, _, _ in wanted]))
    assert [list(t) for t in table["tokens"]] == [t for _, _, t, _ in wanted]
    assert list(table["n"]) == [m["n"] for _, _, _, m in wanted]
    manifest = json.loads((store.path / "manifest.json").read_text())
    assert manifest["hookstore"] == 1 and manifest["about"]["model"] == "abc"
    assert manifest["sites"][STREAM] == {"axes": ["pos", "d_model"], "sizes": [None, 8], "dtype": "float32", "chosen": False}


def test_positions_are_found_by_number_and_word(store):
    examples = ragged(200)
    last = store.site(STREAM, examples=[5, "ex-9"], positions="last")
    assert torch.equal(last, torch.stack([examples[5][1][STREAM][-1], examples[9][1][STREAM][-1]]))
    assert torch.equal(store.site(PATTERN, [7], "last")[0], examples[7][1][PATTERN][:, -1])
    long = store.where(n_tokens=lambda n: n > 3)
    both = long.site(STREAM, positions=[0, -2])
    assert torch.equal(both[0], examples[int(long.ids[0][3:])][1][STREAM][[0, -2]])
    assert [len(one) for one in store.site(STREAM, slice(0, 4))] == list(store.n_tokens[:4])
    with pytest.raises(PositionError, match="tokens, no position 99"):
        store.site(STREAM, positions=99)
    with pytest.raises(PositionError, match='"first", "last"'):
        store.site(STREAM, positions="lst")
    with pytest.raises(RecordError, match=r"Did you mean \"L0.resid_post\""):
        store["L0.resid_pst"]
    with pytest.raises(RecordError, match="has no example 200"):
        store[STREAM][200]


def test_selected_positions_keep_their_numbers(tmp_path):
    with Writer(tmp_path / "s", [STREAM]) as writer:
        writer.add("a", {STREAM: torch.tensor([[1.0], [2.0]])}, tokens=[9, 9, 9, 9], positions=[1, 3])
        writer.add("b", {STREAM: torch.tensor([[3.0]])}, tokens=[9, 9], positions={STREAM: [1]})
        writer.add("c", {STREAM: torch.tensor([[4.0], [5.0]])}, tokens=[9, 9])
        with pytest.raises(RecordError, match="1 positions for 3 tokens: nothing is cut"):
            writer.add("d", {STREAM: torch.zeros(1, 1)}, tokens=[9, 9, 9])
        with pytest.raises(RecordError, match="not all among the 3 tokens"):
            writer.add("d", {STREAM: torch.zeros(1, 1)}, tokens=[9, 9, 9], positions=[3])
    store = open_store(tmp_path / "s")
    assert [store[STREAM].positions(name) for name in "abc"] == [[1, 3], [1], [0, 1]]
    assert store.site(STREAM, positions="last").flatten().tolist() == [2, 3, 5]
    with pytest.raises(PositionError, match="stored at positions 1, 3, not 0"):
        store.site(STREAM, positions=0)
    with pytest.raises(RecordError, match="selected positions"):
        store.batches(STREAM, 2, skip=1)


def test_a_padded_batch_is_stored_without_its_padding(tmp_path):
    tokens = Tokens.from_ids([[5, 6, 7], [8]])
    stream, pattern = torch.arange(24.0).reshape(2, 3, 4), torch.arange(36.0).reshape(2, 2, 3, 3)
    with Writer(tmp_path / "s", [STREAM, PATTERN]) as writer:
        assert writer.add_batch(["a", "b"], {STREAM: stream, PATTERN: pattern}, tokens, [{}, {"k": 1}]) == 2
        with pytest.raises(RecordError, match="padded to 3"):
            writer.add_batch(["c", "d"], {STREAM: stream[:, :2], PATTERN: pattern}, tokens)
        with pytest.raises(RecordError, match="1 examples, 2 tokens"):
            writer.add_batch(["c"], {STREAM: stream[:, :2], PATTERN: pattern}, tokens)
    store = open_store(tmp_path / "s")
    assert torch.equal(store[STREAM]["a"], stream[0]) and torch.equal(store[STREAM]["b"], stream[1, 2:])
    assert torch.equal(store[PATTERN]["b"], pattern[1, :, 2:, 2:]) and store.tokens("b") == [8]


@pytest.mark.parametrize("name", DTYPES)
def test_every_type_comes_back_bit_for_bit(name, tmp_path):
    raw = torch.arange(64, dtype=torch.uint8)
    value = raw.remainder(2).bool() if name == "bool" else raw.view(DTYPES[name])
    store = filled(tmp_path / "s", [("a", {"x": value}, None)], {"x": ("feature",)})
    back = store["x"]["a"]
    assert back.dtype == value.dtype and torch.equal(back.view(torch.uint8), value.view(torch.uint8))


def test_types_are_converted_when_asked_and_never_by_accident(tmp_path):
    with Writer(tmp_path / "a", [STREAM], dtype="bfloat16") as writer:
        writer.add("a", {STREAM: torch.randn(2, 4)})
        writer.add("b", {STREAM: torch.full((1, 4), 3e38, dtype=torch.float64)})
    assert open_store(tmp_path / "a")[STREAM]["a"].dtype == torch.bfloat16
    with Writer(tmp_path / "b", [STREAM], dtype=torch.float16) as writer:
        with pytest.raises(RecordError, match="too large for float16"):
            writer.add("a", {STREAM: torch.full((1, 4), 7e4)})
        writer.add("inf", {STREAM: torch.full((1, 4), torch.inf)})
        with pytest.raises(RecordError, match="int64"):
            writer.add("b", {STREAM: torch.zeros(1, 4, dtype=torch.long)})
    with Writer(tmp_path / "c", [STREAM]) as writer:
        writer.add("a", {STREAM: torch.zeros(1, 4, dtype=torch.float16)})
        with pytest.raises(RecordError, match="comes as float32, and in the examples before it as float16"):
            writer.add("b", {STREAM: torch.zeros(1, 4)})


def test_a_value_is_copied_when_it_is_put_in(tmp_path):
    value = torch.zeros(3, 4)
    with Writer(tmp_path / "s", [STREAM]) as writer:
        writer.add("a", {STREAM: value})
        value.fill_(7)
    store = open_store(tmp_path / "s")
    store[STREAM]["a"].fill_(9)
    assert not store[STREAM]["a"].any()


def test_values_that_stay_where_they_are_are_written_as_copies_would_be(tmp_path):
    whole = torch.randn(40, 4)
    values = [whole[:3], whole[3:10], whole[12:12], whole[11:15], torch.randn(4, 6).T, whole[20:30].clone().requires_grad_(),
              torch.randn(5, 4, dtype=torch.float64), whole[15:20]]
    for copy in (False, True):
        with Writer(tmp_path / f"{copy}", [STREAM], dtype="float32") as writer:
            for i, one in enumerate(values):
                writer.add(i, {STREAM: one}, copy=copy)
    left, copied = ({file.name: file.read_bytes() for file in (tmp_path / name / "shards").iterdir()}
                    for name in ("False", "True"))
    assert left == copied
    store = open_store(tmp_path / "False")
    assert not store.verify()
    assert all(torch.equal(store[STREAM][i], one.detach().float()) for i, one in enumerate(values))


def test_a_value_that_changed_before_it_was_written_is_found_out(tmp_path):
    value = torch.zeros(3, 4)
    with Writer(tmp_path / "s", [STREAM]) as writer:
        writer.add("a", {STREAM: value}, copy=False)
        value.fill_(7)
    assert len(open_store(tmp_path / "s").verify()) == 1


@pytest.mark.skipif(not hasattr(os, "writev"), reason="there is no os.writev")
def test_a_system_that_takes_less_than_it_is_given_gets_the_rest(tmp_path, monkeypatch):
    values, writes = [torch.randn(1, 3) for _ in range(1500)], []

    def some(handle, views):
        writes.append(len(views))
        return os.write(handle, b"".join(views)[:5000])

    monkeypatch.setattr(os, "writev", some)
    with Writer(tmp_path / "s", [STREAM]) as writer:
        for i, one in enumerate(values):
            writer.add(i, {STREAM: one}, copy=False)
    monkeypatch.undo()
    assert len(writes) > 1 and max(writes) <= 1024
    store = open_store(tmp_path / "s")
    assert not store.verify() and torch.equal(torch.cat([store[STREAM][i] for i in range(1500)]), torch.cat(values))


def test_what_does_not_fit_is_refused_and_leaves_the_store_as_it_was(tmp_path):
    with Writer(tmp_path / "s", {STREAM: ("pos", "d_model"), "loss": ()}) as writer:
        good = {STREAM: torch.zeros(2, 4), "loss": torch.tensor(1.5)}
        writer.add("a", good)
        for values, words in [({STREAM: good[STREAM]}, "lacks loss"), (good | {"los": 1}, 'Did you mean "loss"'),
                              (good | {STREAM: torch.zeros(1, 2, 4)}, "no batch"),
                              (good | {"loss": 1.5}, "must be a tensor"),
                              (good | {STREAM: torch.zeros(2, 5)}, "d_model 5; in the examples before it pos 2 · d_m")]:
            with pytest.raises(RecordError, match=re.escape(words)):
                writer.add("b", values)
        for metadata, words in [({"tokens": 1}, "column of that name"), ({"x": torch.zeros(2)}, "among the sites"),
                                ({"x": {1: 2}}, "keys are text"), ({1: 2}, "cannot have the key 1")]:
            with pytest.raises(RecordError, match=words):
                writer.add("b", good, metadata=metadata)
        with pytest.raises(RecordError, match="an id names one example"):
            writer.add("a", good)
        with pytest.raises(RecordError, match="text or a whole number"):
            writer.add(None, good)
        assert writer.add("b", good) and writer.sites["loss"].sizes == ()
    store = open_store(tmp_path / "s")
    assert store.ids == ("a", "b") and store["loss"][0].item() == 1.5
    for sites, words in [(["L0.resid_pst"], "Did you mean"), (["L*.resid_post"], "one address per layer"),
                         ([], "at least one"), (["x@y"], "without @"), ({"x": ("batch", "pos")}, "without batch"),
                         (["my.thing"], "give its axes")]:
        with pytest.raises(RecordError, match=re.escape(words)):
            Writer(tmp_path / "t", sites)
    with pytest.raises(RecordError, match='Did you mean "bfloat16"'):
        Writer(tmp_path / "t", [STREAM], dtype="bfloat")


def test_metadata_of_any_script_and_kind_comes_back(tmp_path):
    rows = [{"text": "naïve 漢字 🙂\x00", "half": "\ud800", "deep": {"a": [1, None, "ü"]}, "big": 1 << 70, "mixed": 1,
             "nan": np.nan},
            {"text": None, "mixed": "one", "flag": True, "np": np.float32(0.5), "pair": (1, 2)}]
    put = [(f"名/{i}:*", {"x": torch.ones(1)}, None, metadata) for i, metadata in enumerate(rows)]
    store = filled(tmp_path / "s", put, {"x": ("feature",)})
    assert store.ids == ("名/0:*", "名/1:*") and store.tokens(0) is None
    first = store.row(0)
    assert np.isnan(first.pop("nan")) and first == {k: v for k, v in rows[0].items() if k != "nan"}
    assert store.row(1) == {"mixed": "one", "flag": True, "np": 0.5, "pair": [1, 2]}
    assert store.metadata["mixed"] == [1, "one"] and store.metadata["flag"] == [None, True]
    names = sorted(p.name for p in store.path.rglob("*") if p.is_file())
    assert names == [".lock", "000000.parquet", "000000.safetensors", "manifest.json"]


def test_examples_are_found_by_what_is_known_of_them(store):
    assert len(store.where(part="a")) == 100 and store.where(n={3, 5}).ids == ("ex-3", "ex-5")
    found = store.where(id=re.compile("7$"), n=range(20, 50))
    assert found.ids == ("ex-27", "ex-37", "ex-47")
    assert torch.equal(found[STREAM][1], ragged(200)[37][1][STREAM]) and found.tokens(1) == ragged(200)[37][2]
    assert found.where(lambda row: row["n"] == 47).ids == ("ex-47",)
    assert found.to_pandas()["n"].tolist() == [27, 37, 47]
    with pytest.raises(RecordError, match='Did you mean "part"'):
        store.where(prt="a")
    with pytest.raises(RecordError, match="selection"):
        found.append()


def test_batches_give_every_row_once_in_an_order_the_seed_decides(store):
    every = torch.cat([values[STREAM] for _, values, _, _ in ragged(200)])
    batches = store.batches(STREAM, 64, seed=3)
    seen = list(batches)
    assert len(seen) == len(batches) and {len(one) for one in seen[:-1]} == {64}
    rows = torch.cat(seen)
    assert not torch.equal(rows, every)
    assert torch.equal(rows[rows[:, 0].argsort()], every[every[:, 0].argsort()])
    assert torch.equal(torch.cat(list(store.batches(STREAM, 64, shuffle=False))), every)
    assert torch.equal(torch.cat(list(store.batches(STREAM, 64, seed=3))), rows)
    assert not torch.equal(torch.cat(list(store.batches(STREAM, 64, seed=4))), rows)
    left = torch.cat(list(store.batches(STREAM, 50, shuffle=False, skip=2)))
    assert torch.equal(left, torch.cat([values[STREAM][2:] for _, values, _, _ in ragged(200)]))
    with pytest.raises(RecordError, match="row per position"):
        store.batches(PATTERN, 4)


def test_a_training_reads_a_store_from_any_step_on(store):
    batches = store.batches((STREAM, STREAM), 100, seed=1)
    ahead = Stream(batches)
    first = [ahead.next()[0] for _ in range(3 * len(batches))]
    for step in (1, len(batches), 2 * len(batches) + 1):
        assert torch.equal(Stream(batches, step).next()[0], first[step])
    rows = torch.cat(first)[: 2 * batches.rows].split(batches.rows)
    assert torch.equal(*(one[one[:, 0].argsort()] for one in rows)) and not torch.equal(*rows)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000, 65537])
def test_the_order_is_a_permutation_that_looks_like_chance(n):
    found = permuted(np.arange(n), n, "7/0")
    assert np.array_equal(np.sort(found), np.arange(n))
    if n >= 1000:
        assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 4 / np.sqrt(n)
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4 / np.sqrt(n)
        assert np.array_equal(permuted(np.array([5, 900]), n, "7/0"), found[[5, 900]])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts mapped pages as Linux does")
def test_reading_one_example_touches_a_small_part_of_the_file(tmp_path):
    sites = {f"L{i}.resid_post": ("pos", "d_model") for i in range(16)}
    value = torch.randn(64, 1024)
    store = filled(tmp_path / "s", [(i, dict.fromkeys(sites, value)) for i in range(8)], sites, shard_bytes=1 << 30)
    size = store.manifest.shards[0].bytes
    assert size > 16 * 8 * value.nbytes
    assert torch.equal(store["L3.resid_post"][5], value)
    mapped = Path("/proc/self/smaps").read_text().split("000000.safetensors")[1:]
    resident = sum(int(re.search(r"Rss: +(\d+) kB", one)[1]) for one in mapped) * 1024
    assert value.nbytes <= resident < 0.05 * size


ESTIMATED = [({STREAM: None}, [5, 9, 100], None, "float16", 1 << 20),
             ({STREAM: None, PATTERN: None}, [3] * 50, None, "float32", 3000),
             ({"L1.z": None, "logits": None}, list(range(1, 40)), 1, "bfloat16", 4000),
             ({"x": ("feature",)}, [1] * 9, None, "int8", 50),
             ({PATTERN: None}, [30, 1, 17], [1, 1, 2], "float16", 1 << 20)]


@pytest.mark.parametrize(("sites", "lengths", "rows", "dtype", "shard"), ESTIMATED)
def test_an_estimate_is_within_two_percent_of_the_files(sites, lengths, rows, dtype, shard, tmp_path):
    sizes = {"d_model": 32, "head": 4, "d_head": 8, "d_vocab": 99, "feature": 40}
    metadata = [{"prompt": "é" * i, "n": i} for i in range(len(lengths))]
    guess = estimate(sites, lengths, sizes, dtype=dtype, rows=rows, metadata=metadata, shard_bytes=shard)
    rows = [rows] * len(lengths) if isinstance(rows, int) else rows
    with Writer(tmp_path / "s", sites, shard_bytes=shard) as writer:
        for i, n in enumerate(lengths):
            k = rows[i] if rows else n
            shape = {"pos": k, "query_pos": k, "key_pos": n, **sizes}
            values = {site: torch.zeros([shape[axis] for axis in layout.axes], dtype=DTYPES[dtype])
                      for site, layout in writer.sites.items()}
            writer.add(i, values, [1] * n, metadata[i], positions=range(n - k, n) if rows else None)
    store = open_store(tmp_path / "s")
    real = sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file() and p.name != ".lock")
    assert abs(guess.bytes / real - 1) < 0.02
    assert (guess.examples, guess.tokens, guess.shards) == (len(store), sum(lengths), len(store.manifest.shards))
    assert guess.sites == store.stats.sites
    with pytest.raises(RecordError, match="give sizes="):
        estimate([STREAM], [1], {}, dtype="float16")


def test_a_store_goes_to_numpy_pandas_and_xarray(store):
    examples = ragged(200)
    found = store.to_numpy(STREAM)
    assert np.array_equal(found["values"][found["offsets"][7] : found["offsets"][8]], examples[7][1][STREAM].numpy())
    flat = store.to_numpy(PATTERN)
    third = flat["values"][flat["offsets"][3] : flat["offsets"][4]].reshape(flat["shapes"][3])
    assert np.array_equal(third, examples[3][1][PATTERN])
    frame = store.to_pandas(tokens=True)
    assert frame["n_tokens"].tolist() == list(store.n_tokens) and frame["tokens"][4] == examples[4][2]
    grid = store.to_xarray(STREAM)
    assert grid.dims == ("row", "d_model")
    assert np.array_equal(grid[(grid["id"] == "ex-7").values].values, examples[7][1][STREAM])
    assert grid["pos"].values[: store.n_tokens[0]].tolist() == list(range(store.n_tokens[0]))
    with pytest.raises(RecordError, match="to_numpy gives it flat"):
        store.to_xarray(PATTERN)


def test_a_store_goes_to_datasets(store):
    pytest.importorskip("datasets")
    examples = ragged(3)
    rows = store.where(n=range(3)).to_datasets(STREAM, PATTERN)
    assert rows["part"][:] == ["a", "b", "a"] and np.allclose(rows[1][PATTERN], examples[1][1][PATTERN])


def test_zarr_holds_the_same_arrays(store, tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(store.to_zarr(STREAM, tmp_path / "z")), mode="r")
    assert np.array_equal(group["values"][:], store.to_numpy(STREAM)["values"]) and group.attrs["ids"] == list(store.ids)


def test_a_merged_store_has_the_bytes_of_one_that_was_written_in_one_go(tmp_path):
    from kills import files

    examples = ragged(30)
    whole = filled(tmp_path / "whole", examples, shard_bytes=9000)
    parts = [filled(tmp_path / f"part{k}", examples[k::3], shard_bytes=4000) for k in range(3)]
    made = parts[0].merge(parts[1:], tmp_path / "merged", order=[name for name, *_ in examples], shard_bytes=9000)
    assert files(made.path) == files(whole.path)
    picked = merge([whole.where(part="b")], tmp_path / "picked")
    assert picked.ids == whole.where(part="b").ids and torch.equal(picked[PATTERN][2], examples[5][1][PATTERN])
    with pytest.raises(RecordError, match="both have an example 'ex-1'"):
        merge([whole, picked], tmp_path / "twice")
    other = filled(tmp_path / "other", ragged(1, d=4), model="m")
    with pytest.raises(RecordError, match="differ in model"):
        whole.merge([other], tmp_path / "mixed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged", "other", "part0", "part1", "part2", "picked", "whole"]


def test_a_store_without_examples_is_merged_with_any_of_its_sites(tmp_path):
    from kills import files

    for name, some in (("empty", []), ("full", [1.0, 2.0]), ("both", [1.0, 2.0])):
        with Writer(tmp_path / name, {"a": ("feature",)}) as writer:
            for i, value in enumerate(some):
                writer.add(i, {"a": torch.full((3,), value)})
    for order in (["empty", "full"], ["full", "empty"], ["empty", "full", "empty"]):
        merge([tmp_path / one for one in order], tmp_path / "-".join(order))
        assert files(tmp_path / "-".join(order)) == files(tmp_path / "both")
    with Writer(tmp_path / "other", {"a": ("feature", "rank")}):
        pass
    with pytest.raises(RecordError, match="differ in a"):
        merge([tmp_path / "full", tmp_path / "other"], tmp_path / "no")


@pytest.mark.parametrize("save", ["archive", "old archive", "pickle", "pickle 2"])
def test_old_captures_are_read_without_running_them(save, tmp_path):
    wanted = {"prompt": "hé", "response": "x", "input_ids": torch.tensor([[1, 2, 3]]),
              "activations": {"embeddings": torch.randn(1, 3, 4), "layer_0": torch.randn(1, 4, 3).bfloat16().mT}}
    path = tmp_path / "my capture.pkl"
    if "archive" in save:
        torch.save(wanted, path, _use_new_zipfile_serialization=save == "archive")
    else:
        path.write_bytes(pickle.dumps(wanted, protocol=2 if "2" in save else 4))
    found = read_capture(path)
    assert found["prompt"] == "hé" and torch.equal(found["activations"]["layer_0"], wanted["activations"]["layer_0"])
    store = import_captures([path], tmp_path / "s")
    assert list(store.sites) == ["embed", "L0.resid_post"] and store.ids == ("my capture",)
    assert torch.equal(store["L0.resid_post"][0], wanted["activations"]["layer_0"][0])
    assert store.tokens(0) == [1, 2, 3] and store.row(0) == {"prompt": "hé", "response": "x"}


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [lambda x, p: p.write_bytes(pickle.dumps(x)), torch.save,
                                  lambda x, p: torch.save(x, p, _use_new_zipfile_serialization=False)])
@pytest.mark.parametrize("nest", [lambda x: x, lambda x: {"activations": {"layer_0": x}}])
def test_a_capture_that_would_run_code_is_refused_and_does_not_run(save, nest, tmp_path):
    path = tmp_path / "bad.pkl"
    save(nest(Hostile(tmp_path / "ran")), path)
    with pytest.raises(RecordError, match="mkdir") as caught:
        read_capture(path)
    assert "torch.save({name: tensor}, path)" in str(caught.value)
    with pytest.raises(RecordError):
        import_captures([path], tmp_path / "s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pkl"]


@pytest.mark.parametrize("bytes_", [b"", b"junk", pickle.dumps(torch.ones(4))[:-40], b"\x80\x04cbuiltins\neval\n(S'1'\ntR."])
def test_a_broken_capture_is_an_error_of_the_file(bytes_, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(bytes_)
    with pytest.raises(RecordError, match="x.pt holds more"):
        read_capture(path)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path):
    class Beyond:
        def __reduce__(self):
            from torch._utils import _rebuild_tensor_v2

            return _rebuild_tensor_v2, (torch.ones(4).storage(), 0, (1000,), (1,), False, {})

    path = tmp_path / "x.pkl"
    with pytest.warns(UserWarning, match="TypedStorage"):
        path.write_bytes(pickle.dumps(Beyond()))
    with pytest.raises(RecordError, match="beyond its own numbers"):
        read_capture(path)


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecordError, match=r"pip install 'hooklab\[store\]'"):
        Writer(tmp_path / "s", [STREAM])
    with pytest.raises(RecordError, match="pyarrow"):
        store_index.arrow()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_store_comes_back(data, tmp_path_factory):
    kinds = {"rows": ("pos", "feature"), "one": ("feature",), "flat": ("head", "query_pos", "key_pos"), "steps": ("step",),
             "number": ()}
    sites = data.draw(st.lists(st.sampled_from(list(kinds)), min_size=1, unique=True))
    dtype = DTYPES[data.draw(st.sampled_from(["float32", "bfloat16", "int16", "uint8"]))]
    sizes = {"feature": data.draw(st.integers(0, 5)), "head": data.draw(st.integers(1, 3))}
    plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                         lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(), x, max_size=2), max_leaves=4)
    name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    ids = data.draw(st.lists(name, min_size=1, max_size=6, unique=True))
    put = {}
    for name in ids:
        n = data.draw(st.integers(0, 6))
        lengths = {"pos": n, "query_pos": n, "key_pos": n, "step": data.draw(st.integers(0, 3)), **sizes}
        shapes = {site: [lengths[axis] for axis in kinds[site]] for site in sites}
        values = {site: torch.randint(0, 99, shape).to(dtype) for site, shape in shapes.items()}
        put[name] = values, data.draw(st.lists(st.integers(0, 99), min_size=n, max_size=n)), data.draw(
            st.dictionaries(st.sampled_from(["a", "b", "ü"]), plain))
    path = tmp_path_factory.mktemp("any") / "s"
    store = filled(path, [(name, *one) for name, one in put.items()], {site: kinds[site] for site in sites},
                   shard_bytes=data.draw(st.sampled_from([1, 40, 1 << 20])))
    store = store.compact(data.draw(st.sampled_from([None, 1, 1 << 20])))
    assert store.ids == tuple(put) and not store.verify()
    for name, (values, tokens, metadata) in put.items():
        assert store.tokens(name) == tokens
        assert store.row(name) == {key: value for key, value in metadata.items() if value is not None}
        for site, value in values.items():
            back = store[site][name]
            assert back.dtype == dtype and back.shape == value.shape and torch.equal(back, value)


def test_a_layout_says_what_lies_how():
    axes = [("pos", "d_model"), ("d_model",), ("head", "query_pos", "key_pos"), ("step", "pos"), ()]
    kinds = [Layout(one).kind for one in axes]
    assert kinds == ["rows", "single", "flat", "flat", "single"]
    with pytest.raises(RecordError, match="do not fit"):
        Layout(("pos", "d_model"), (3, 4))


def test_a_saved_run_is_said_to_be_one(tmp_path):
    Run("metric prob", metrics={"main": {"prob": 0.25}}).save(tmp_path / "run")
    with pytest.raises(RecordError, match="is no store: it has no manifest.json. It is a saved run: hl.Run.load opens it"):
        open_store(tmp_path / "run")
