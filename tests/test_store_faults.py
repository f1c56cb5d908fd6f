"""What users did with stores that went wrong without a word: exports, trash, names, merging, comparing, asking, locks."""

from __future__ import annotations

import gc
import json
import math
import os
import re

import numpy as np
import pytest
import torch

from hooklab.cli import main
from hooklab.data import Writer, compare_stores, merge, open_store, restore, trashed
from hooklab.data.store import flight
from hooklab.errors import HooklabWarning, RecordError

STREAM, PATTERN, LOGITS = "L0.resid_post", "L0.pattern", "bias"
SITES = {STREAM: ("pos", "d_model"), PATTERN: ("head", "query_pos", "key_pos"), LOGITS: ("d_vocab",)}


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


def made(path, metadata, dtype="float32", **more):
    """A store with an example for each row of metadata, of 1, 2, 3 … tokens."""
    with Writer(path, SITES, dtype=dtype, **more) as writer:
        for i, row in enumerate(metadata):
            n = i + 1
            values = {STREAM: torch.full((n, 6), float(i)), PATTERN: torch.rand(2, n, n), LOGITS: torch.arange(5.0)}
            writer.add(f"{more.get('spec', '')}{10 + i}", values, tokens=range(n), metadata=row)
    return open_store(path)


def column(*values):
    return [{} if value is None else {"x": value} for value in values]


# Exports --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("values", "wanted"), [
    ([1, 0.5, None], [1.0, 0.5, None]),
    (["a", math.nan, "c"], ["a", None, "c"]),
    ([True, math.nan], [True, None]),
    ([[1, 2], math.nan], [[1, 2], None]),
    ([2**53 + 1, 3], [2**53 + 1, 3]),
    ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
])
def test_a_column_goes_to_datasets_in_the_one_type_that_it_has(values, wanted, tmp_path):
    pytest.importorskip("datasets")
    assert made(tmp_path / "s", column(*values)).to_datasets()["x"][:] == wanted


def test_a_whole_number_beside_a_nan_becomes_a_float(tmp_path):
    pytest.importorskip("datasets")
    one, nan = made(tmp_path / "s", column(1, math.nan)).to_datasets()["x"][:]
    assert type(one) is float and one == 1 and math.isnan(nan)


@pytest.mark.parametrize(("values", "wanted"), [
    ([2**70, 1], [str(2**70), "1"]),
    (["a", 1], ['"a"', "1"]),
    ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),  # a float would be another number
    ([[1, "a"], [2]], ['[1, "a"]', "[2]"]),
    ([10**400, 0.5], [str(10**400), "0.5"]),
])
def test_a_column_without_a_type_goes_to_datasets_as_json_and_is_named(values, wanted, tmp_path):
    pytest.importorskip("datasets")
    store = made(tmp_path / "s", column(*values))
    with pytest.warns(HooklabWarning, match="'x' has values of several types, or too large ones, and became JSON") as seen:
        assert store.to_datasets()["x"][:] == wanted
    assert seen[0].filename == __file__


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_selection_of_no_examples_has_the_sizes_and_types_of_others(dtype, tmp_path):
    store = made(tmp_path / "s", column("a", "b"), dtype)
    none, some = store.where(x="none"), store.where(x="b")
    for site, shape in {PATTERN: (0,), STREAM: (0, 6), LOGITS: (0, 5)}.items():
        found, others = none.to_numpy(site), some.to_numpy(site)
        assert found["values"].shape == shape and found["offsets"].tolist() == [0]
        assert found.keys() == others.keys()
        assert all(one.ndim == others[name].ndim and (one.dtype == others[name].dtype or name == "ids")
                   for name, one in found.items()), site
    assert none.to_numpy(PATTERN)["shapes"].shape == (0, 3)
    for site, positions, shape in [(STREAM, "last", (0, 6)), (STREAM, [0, -1], (0, 2, 6)), (PATTERN, "last", (0, 2, 0)),
                                   (PATTERN, [0], (0, 2, 1, 0))]:
        found = none.site(site, positions=positions)
        assert tuple(found.shape) == shape and found.dtype == getattr(torch, dtype)
    pytest.importorskip("xarray")
    assert none.to_xarray(STREAM).sizes == {"row": 0, "d_model": 6} and none.to_xarray(LOGITS).shape == (0, 5)


# Keeping --------------------------------------------------------------------------------------------------------------

def test_a_store_in_the_trash_is_not_thrown_away_again(tmp_path):
    store = made(tmp_path / "s", column(1))
    where = store.trash()
    for opened in (store, open_store(where)):
        with pytest.raises(RecordError, match="is in the trash already; restore brings it back"):
            opened.trash()
    assert trashed(tmp_path) == (where,) and restore(where) == tmp_path / "s"
    assert trashed(tmp_path) == () and not (tmp_path / ".trash").exists()


def test_a_path_is_no_name_and_nothing_is_none(tmp_path):
    store = made(tmp_path / "s", column(1))
    for text in ("no/such/x", "../x", "a\\b"):
        with pytest.raises(RecordError, match=re.escape(f"{text!r} is a path") + ".*Path.*moves it there"):
            store.rename(text)
    for text in ("", " ", "..", "."):
        with pytest.raises(RecordError, match="is no name for a store"):
            store.rename(text)
    assert store.path == tmp_path / "s" and store.rename("t") == tmp_path / "t"
    (tmp_path / "deep").mkdir()
    assert store.rename(tmp_path / "deep" / "u") == tmp_path / "deep" / "u"


OPTIONS = {"source": {"file": "a.jsonl"}, "limit": None, "batch_size": None, "batch_tokens": 8192, "hold": 1, "id": None,
           "metadata": None, "skip": False, "template": "{text}"}


def test_stores_that_differ_in_bookkeeping_are_merged_and_say_so(tmp_path):
    parts = []
    for spec, change in [("a", {}), ("b", {"limit": 4, "batch_size": 2, "hold": 2, "source": {"file": "b.jsonl"}})]:
        with Writer(tmp_path / spec, SITES, model={"name": spec, "fingerprint": "f"}, options=OPTIONS | change) as writer:
            writer.add(spec, {STREAM: torch.zeros(1, 6), PATTERN: torch.ones(2, 1, 1), LOGITS: torch.zeros(5)})
        parts.append(open_store(tmp_path / spec))
    both = merge(parts, tmp_path / "both")
    assert both.ids == ("a", "b") and not both.verify()
    assert both.manifest.about["model"] == {"name": {"merged": ["a", "b"]}, "fingerprint": "f"}
    options = both.manifest.about["options"]
    assert options["limit"] == {"merged": [None, 4]} and options["template"] == "{text}" and options["batch_tokens"] == 8192
    assert options["source"] == {"merged": [{"file": "a.jsonl"}, {"file": "b.jsonl"}]}
    again = merge([both.where(id="a"), parts[1]], tmp_path / "again")  # what was merged is not merged into itself
    assert again.manifest.about == both.manifest.about
    with both.append() as writer:
        assert "a" in writer


def test_stores_that_differ_in_what_makes_values_are_not_merged_and_the_keys_are_named(tmp_path):
    a = made(tmp_path / "a", column(1), options=OPTIONS, model={"fingerprint": "f", "dtype": "float32"}, spec="zero L0")
    b = made(tmp_path / "b", column(1), options=OPTIONS | {"template": "x" * 500, "limit": 3},
             model={"fingerprint": "g", "dtype": "float32"}, spec="zero L1")
    with pytest.raises(RecordError) as caught:
        merge([a, b], tmp_path / "c")
    said = str(caught.value).removeprefix(f"{a.path} and {b.path} ")
    assert said.startswith("differ in model.fingerprint: 'f' and 'g'; spec: 'zero L0' and 'zero L1'; "
                           "options.template: '{text}' and 'xxx")
    assert len(said) < 250 and "limit" not in said and "float32" not in said and not (tmp_path / "c").exists()


def test_a_store_whose_manifest_is_broken_is_listed_with_what_is_wrong(tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        made(tmp_path / name, column(1))
    for name in ("web", "empty"):  # other tools have manifests too
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{" if name == "empty" else '{"name": "an app"}')
    monkeypatch.chdir(tmp_path)
    assert main(["store", "ls"]) == 0
    (tmp_path / "b" / "manifest.json").write_text("{")
    (tmp_path / "c" / "manifest.json").write_text("{}")
    capsys.readouterr()
    assert main(["store", "ls", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["path"], "error" in row) for row in rows] == [("a", False), ("b", True), ("c", True)]
    assert "is no JSON" in rows[1]["error"] and "does not say which version" in rows[2]["error"]
    assert main(["store", "ls"]) == 1 and "is no JSON" in capsys.readouterr().out


# Comparing ------------------------------------------------------------------------------------------------------------

def test_stores_are_compared_by_their_paths_one_site_and_one_example(tmp_path, monkeypatch):
    a, b = made(tmp_path / "a", column(1, 2)), made(tmp_path / "b", column(1, 2))
    wanted = compare_stores(a, b, sites=[STREAM], examples=("11", "11"))
    monkeypatch.chdir(tmp_path)
    for one, other in (("a", "b"), (tmp_path / "a", b), (a, "b")):
        found = compare_stores(one, other, sites=STREAM, examples="11")
        assert found.coords == wanted.coords and np.array_equal(found.values, wanted.values)
    assert compare_stores("a", "b", sites=STREAM, examples=1).coords == wanted.coords
    assert a.compare("b", sites=LOGITS).coords["site"] == (LOGITS,)
    with pytest.raises(RecordError, match="one of the first store and one of the second"):
        a.compare(b, examples=("10", "11", "10"))
    with pytest.raises(RecordError, match="there is no store"):
        compare_stores("a", "no")


# Asking ---------------------------------------------------------------------------------------------------------------

def several():
    """Ways to say 1 or 2."""
    ways = [[1, 2], (1, 2), {1, 2}, range(1, 3), np.array([1, 2]), torch.tensor([1, 2])]
    try:
        import pandas
    except ImportError:
        return ways
    return [*ways, pandas.Series([1, 2]), pandas.Index([1.0, 2.0])]


@pytest.mark.parametrize("what", several(), ids=lambda what: type(what).__name__)
def test_several_values_are_one_of_them_where_no_value_is_a_list(what, tmp_path):
    assert made(tmp_path / "s", column(1, 2, 3, None)).where(x=what).ids == ("10", "11")


def test_a_list_is_one_value_where_values_are_lists(tmp_path):
    store = made(tmp_path / "s", column([1, 2], [2], None))
    assert [store.where(x=what).ids for what in ([1, 2], (2,), np.array([2]))] == [("10",), ("11",), ("11",)]


def test_ids_are_found_by_numbers_too(tmp_path):
    store = made(tmp_path / "s", column(1, 2, 3))
    assert [store.where(id=what).ids for what in (11, [10, "11"], range(11, 10**6), np.int64(12))] == [
        ("11",), ("10", "11"), ("11", "12"), ("12",)]


def test_a_long_range_is_not_looked_through(tmp_path):
    store = made(tmp_path / "s", column(1, 2.0, 2.5, "2", math.nan, math.inf, 2**60, None))
    assert store.where(x=range(1, 10**18)).ids == ("10", "11") and store.where(id=range(15, 10**18)).ids == (
        "15", "16", "17")


def test_missing_and_nan_are_found(tmp_path):
    store = made(tmp_path / "s", column(math.nan, 1.5, None))
    assert [store.where(x=what).ids for what in (math.nan, None, [None, 1.5], np.float32(1.5))] == [
        ("10",), ("12",), ("11", "12"), ("11",)]


@pytest.mark.parametrize(("values", "what", "said"), [
    (["1", "2"], 1, "x=1 finds nothing: x holds text, such as '1'"),
    (["1", "2"], [1, 2], r"x=\[1, 2\] finds nothing: x holds text, such as '1'"),
    (["1"], range(3), r"x=range\(0, 3\) finds nothing: x holds text"),
    ([None, 1], "1", "x='1' finds nothing: x holds numbers, such as 1"),
    ([1], re.compile("1"), "finds nothing: x holds numbers"),
    ([["a"], {"b": 1}], "a", "holds dictionaries and lists"),
])
def test_a_type_that_no_value_has_is_said_to_find_nothing(values, what, said, tmp_path):
    with pytest.raises(RecordError, match=said):
        made(tmp_path / "s", column(*values)).where(x=what)


def test_what_could_be_found_and_is_not_gives_no_examples(tmp_path):
    store = made(tmp_path / "s", column("a", 1))
    assert [len(store.where(x=what)) for what in ("b", 2, [], [2, "b"], ["z", 1.5])] == [0] * 5
    assert len(store.where(x="b").where(x=3)) == 0  # none have no type


@pytest.mark.parametrize(("test", "said"), [("giver == 'John'", r"where\(giver='John'\)"),
                                            ({"x": 1}, r"where\(\*\*{'x': 1}\)")])
def test_a_test_that_is_no_function_is_refused(test, said, tmp_path):
    with pytest.raises(RecordError, match="takes a function of the metadata of an example, or key=value.*" + said):
        made(tmp_path / "s", column(1)).where(test)


# Locks ----------------------------------------------------------------------------------------------------------------

def test_a_writer_that_is_dropped_lets_others_write(tmp_path):
    writer = Writer(tmp_path / "s", SITES)
    with pytest.raises(RecordError, match="by this very process"):
        Writer(tmp_path / "s", SITES, resume=True)
    del writer
    gc.collect()
    with Writer(tmp_path / "s", SITES, resume=True) as writer:
        assert len(writer) == 0
    assert (tmp_path / "s" / ".lock").read_bytes() == b""


def test_a_writer_that_is_dropped_holds_the_folder_until_its_shards_have_landed(tmp_path, monkeypatch):
    from threading import Event

    go, put = Event(), flight.put
    monkeypatch.setattr(flight, "put", lambda *given: go.wait(30) and put(*given))
    writer = Writer(tmp_path / "s", {LOGITS: ("d_vocab",)}, shard_bytes=1)
    writer.add("a", {LOGITS: torch.zeros(5)})
    (landing,) = writer._flights
    del writer
    gc.collect()
    with pytest.raises(RecordError, match="by this very process"):
        open_store(tmp_path / "s").append()
    go.set()
    landing.landed()
    gc.collect()
    with open_store(tmp_path / "s").append() as writer:
        assert "a" in writer and len(writer) == 1
