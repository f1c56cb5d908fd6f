"""A run in a folder: it comes back the same, appears whole or not at all, and damage is named."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sample_run import BASE, sample

import hooklab.records.saving as saving
from hooklab.errors import HooklabWarning, RecordError
from hooklab.records import Run, Unstored, ViewRequest
from hooklab.tokens import Turn


@pytest.fixture
def run():
    return sample()


def test_a_saved_run_comes_back_the_same(run, tmp_path):
    path = run.save(tmp_path / "x.hookrun")
    assert path == tmp_path / "x.hookrun"
    assert sorted(p.name for p in path.iterdir()) == ["arrays.safetensors", "run.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.hookrun"]
    back = Run.load(path)
    assert back == run
    for key, tensor in run.data.items():
        assert torch.equal(back.data[key], tensor)
        assert back.data[key].dtype == tensor.dtype
    assert back.axes == run.axes
    assert back.metrics["clean"] == run.metrics["clean"]
    assert math.isnan(back.metrics["patched"]["logit_diff"])
    assert back.metrics["patched"]["loss"] == math.inf
    assert back.examples["clean"]["logit_diff"].dtype == np.float32
    assert back.tokens_of == run.tokens_of
    assert isinstance(back.tokens_of["clean"].turns[0][0], Turn)
    assert back.texts == run.texts
    assert (back.views, back.provenance, back.spec) == (run.views, run.provenance, run.spec)
    assert list(back.scores) == list(run.scores)
    assert back.scores["clean.top"].labels.tolist() == [[" Mary", " <b>"]]
    assert back.given["names"] == ["a", ("b", 2)]
    assert back.given["odd"][1].dtype == np.uint16


def every_dtype():
    return sorted({d for d in vars(torch).values() if isinstance(d, torch.dtype)}, key=str)


def storable(dtype):
    """Some numbers of a dtype, or None for what is no number type of its own (quantised, packed, sub-byte)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some dtypes announce that they are new
            return torch.tensor([1, 0, 3, 2]).to(dtype)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


@pytest.mark.parametrize("dtype", [d for d in every_dtype() if storable(d) is not None], ids=str)
@pytest.mark.parametrize("shape", [pytest.param((), id="one number"), pytest.param((0, 2), id="empty"),
                                   pytest.param((2, 2), id="a matrix")])
def test_every_dtype_and_shape_survives(dtype, shape, tmp_path):
    tensor = storable(dtype)[:math.prod(shape)].reshape(shape)
    run = Run(data={"a.x": tensor}, axes={"a.x": ("batch", "pos")[:len(shape)]})
    back = Run.load(run.save(tmp_path / "run"))["x"]
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert bytes(back.reshape(-1).view(torch.uint8).tolist()) == bytes(tensor.reshape(-1).view(torch.uint8).tolist())


@pytest.mark.parametrize("code", ["f2", "f4", ">f8", "c8", "c16", "i1", "<u2", ">i4", "u8", "?", "g", "U3", "O"])
def test_every_kind_of_array_survives(code, tmp_path):
    array = np.array([[1, 0], [2, 3]]).astype(code)
    cut = array[:, :1]
    given = {"a": array, "cut": cut, "none": array[:0], "one": array[0, 0:1].reshape(())}
    back = Run.load(Run(given=given).save(tmp_path / "run"))
    for name, expected in given.items():
        assert back.given[name].dtype == expected.dtype
        assert back.given[name].shape == expected.shape
        assert back.given[name].tolist() == expected.tolist()


def test_views_of_one_memory_come_back_apart(tmp_path):
    whole = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    data = {"a.whole": whole, "a.turned": whole.t(), "a.part": whole[1:, ::2], "a.same": whole,
            "a.wide": whole[:, :1].expand(3, 4), "a.conj": torch.tensor([1 + 2j]).conj(),
            "a.param": torch.nn.Parameter(torch.ones(2))}
    axes = {key: ("pos", "d_model")[:tensor.ndim] for key, tensor in data.items()}
    back = Run.load(Run(data=data, axes=axes).save(tmp_path / "run"))
    for key, tensor in data.items():
        assert back.data[key].tolist() == tensor.tolist()
    back["whole"][0, 0] = 99
    assert back["same"][0, 0] == 0
    assert whole[0, 0] == 0


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text() | st.integers(), inner, max_size=3), max_leaves=8)


@given(plain)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_plain_values_survive(tmp_path, value):
    back = Run.load(Run(given={"v": value}).save(tmp_path / "run", overwrite=True)).given["v"]
    assert repr(back) == repr(value)


def test_what_no_file_can_hold_is_named_and_left_out(tmp_path):
    run = Run(given={"f": len, "deep": {"x": [BASE, object()]}, "vec": BASE})
    with pytest.warns(HooklabWarning, match=r"given/f .*builtin_function.*given/deep/x/1 .*object") as caught:
        path = run.save(tmp_path / "run")
    assert caught[0].filename == __file__
    back = Run.load(path)
    assert isinstance(back.given["f"], Unstored)
    assert "object" in back.given["deep"].what
    assert torch.equal(back.given["vec"], BASE)
    assert Run.load(back.save(tmp_path / "again")) == back


@pytest.mark.parametrize("run, word", [
    pytest.param(Run(provenance={"where": Path("x")}), "provenance/where", id="provenance that JSON cannot say"),
    pytest.param(Run(data={"a.x": torch.eye(2).to_sparse()}, axes={"a.x": ("pos", "pos2")}), "sparse", id="a sparse tensor"),
    pytest.param(Run(data={"a.x": torch.zeros(2, device="meta")}, axes={"a.x": ("pos",)}), "meta", id="an empty shell"),
])
def test_what_cannot_be_stored_is_an_error_and_leaves_nothing(run, word, tmp_path):
    with pytest.raises(RecordError, match=word):
        run.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_an_older_run_is_kept_unless_one_says_otherwise(run, tmp_path):
    path = Run("old").save(tmp_path / "run")
    with pytest.raises(RecordError, match="overwrite=True"):
        run.save(path)
    assert Run.load(path).spec == "old"
    run.save(path, overwrite=True)
    assert Run.load(path) == run
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True], ids=["by default", "when told to overwrite"])
@pytest.mark.parametrize("make", [
    pytest.param(lambda path: path.write_text("mine"), id="a file"),
    pytest.param(lambda path: path.mkdir(), id="an empty folder"),
    pytest.param(lambda path: (path.mkdir(), (path / "thesis.tex").write_text("mine")), id="a folder of something else"),
    pytest.param(lambda path: (Run("old").save(path), (path / "notes.txt").write_text("mine")), id="a run with notes in it"),
    pytest.param(lambda path: path.symlink_to("nowhere"), id="a broken link"),
])
def test_what_is_no_saved_run_is_never_replaced(make, overwrite, run, tmp_path):
    path = tmp_path / "run"
    make(path)
    before = sorted((str(p), p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*"))
    with pytest.raises(RecordError, match="exists"):
        run.save(path, overwrite=overwrite)
    assert sorted((str(p), p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*")) == before


def test_folders_that_cannot_be_written_to_are_named(run, tmp_path):
    with pytest.raises(RecordError, match="no name"):
        run.save("/")
    with pytest.raises(RecordError, match="There is no folder"):
        run.save(tmp_path / "absent" / "run")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):  # the superuser may write everywhere but here
        closed = Path("/proc")
    with pytest.raises(RecordError, match=r"could not be written: \w+"):
        run.save(closed / "run")


def test_a_full_disk_leaves_the_old_run(run, tmp_path, monkeypatch):
    path = Run("old").save(tmp_path / "run")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        run.save(path, overwrite=True)
    assert Run.load(path).spec == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_rename_that_fails_puts_the_old_run_back(run, tmp_path, monkeypatch):
    path = Run("old").save(tmp_path / "run")
    rename = os.rename

    def stubborn(old, new):
        if str(old).endswith(".part"):
            raise OSError(5, "Input/output error")
        rename(old, new)

    monkeypatch.setattr(os, "rename", stubborn)
    with pytest.raises(RecordError, match="Input/output"):
        run.save(path, overwrite=True)
    assert Run.load(path).spec == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


KILLED = """
import os, signal, sys, warnings
from pathlib import Path
import torch, safetensors.torch
from hooklab.records import Run
warnings.simplefilter("ignore")
folder, overwrite = Path(sys.argv[1]), sys.argv[2] == "over"
new = Run("new", data={"a.x": torch.ones(3)}, axes={"a.x": ("pos",)})
old = Run("old", data={"a.x": torch.zeros(3)}, axes={"a.x": ("pos",)})

def dying(step, after):
    count = [0]
    def wrap(call):
        def wrapped(*args, **kwargs):
            count[0] += 1
            if count[0] == step and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if count[0] == step and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return wrapped
    for name in ("fsync", "rename", "rmdir", "unlink"):
        setattr(os, name, wrap(getattr(os, name)))
    safetensors.torch.save_file = wrap(safetensors.torch.save_file)
    Path.write_text = wrap(Path.write_text)

def outcome(path):
    try:
        return Run.load(path).spec
    except ValueError as error:
        return "nothing" if "There is no saved run" in str(error) and not path.exists() else f"half: {error}"

for after in (False, True):
    for step in range(1, 40):
        path = folder / f"{overwrite}{after}{step}" / "run"
        path.parent.mkdir()
        if overwrite:
            old.save(path)
        child = os.fork()
        if not child:
            dying(step, after)
            new.save(path, overwrite=overwrite)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed, found = os.WIFSIGNALED(status), outcome(path)
        new.save(path, overwrite=found != "nothing")
        print(int(killed), found.replace(" ", "_"), outcome(path))
        if not killed:
            break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed half-way")
@pytest.mark.parametrize("mode, before", [("over", "old"), ("new", "nothing")], ids=["replacing a run", "a new run"])
def test_a_save_that_is_killed_leaves_the_run_from_before_or_the_new_one(mode, before, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), mode], capture_output=True, text=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = [line.split() for line in done.stdout.splitlines()]
    killed = [row for row in rows if row[0] == "1"]
    assert len(killed) >= 14
    assert {found for _, found, _ in killed} == {before, "new"}
    assert all(found == "new" for alive, found, _ in rows if alive == "0")
    assert all(later == "new" for _, _, later in rows)


def test_a_run_that_was_set_aside_is_found_with_a_warning(run, tmp_path):
    path = run.save(tmp_path / "run")
    path.rename(tmp_path / ".run.old")
    with pytest.warns(HooklabWarning, match="interrupted") as caught:
        assert Run.load(path) == run
    assert caught[0].filename == __file__
    with pytest.raises(RecordError, match=r"\.run\.old exists"):
        Run("new").save(path)
    Run("new").save(path, overwrite=True)
    assert Run.load(path).spec == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


# Loading what is not as it was


def edit(path, change):
    document = json.loads((path / "run.json").read_text())
    change(document)
    (path / "run.json").write_text(json.dumps(document))


def cut(name):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-7])


def flip(path):
    stored = bytearray((path / "arrays.safetensors").read_bytes())
    stored[-1] ^= 1
    (path / "arrays.safetensors").write_bytes(stored)


@pytest.mark.parametrize("damage, word", [
    pytest.param(cut("run.json"), "cut short or is no JSON", id="a record cut short"),
    pytest.param(cut("arrays.safetensors"), "arrays.safetensors is not the file that was saved", id="arrays cut short"),
    pytest.param(flip, "arrays.safetensors is not the file that was saved", id="one bit of the arrays"),
    pytest.param(lambda path: (path / "arrays.safetensors").unlink(), "arrays.safetensors is missing", id="no arrays"),
    pytest.param(lambda path: (path / "run.json").unlink(), "run.json is missing", id="no record"),
    pytest.param(lambda path: edit(path, lambda d: d["record"]["metrics"]["clean"].update(prob=0.6)), "it was changed",
                 id="another number"),
    pytest.param(lambda path: edit(path, lambda d: d.update(hookrun=2)), r"version 2 .*reads up to 1.*newer hooklab",
                 id="a newer version"),
    pytest.param(lambda path: edit(path, lambda d: d.update(hookrun=0)), "version 0", id="a version that never was"),
    pytest.param(lambda path: edit(path, lambda d: d.pop("hookrun")), "does not say which version", id="no version"),
    pytest.param(lambda path: (path / "run.json").write_text("[1]"), "does not say which version", id="other JSON"),
    pytest.param(lambda path: (path / "run.json").write_text('{"hookrun": NaN}'), "NaN is no JSON", id="no strict JSON"),
    pytest.param(lambda path: (path / "run.json").write_text("[" * 100_000), "no JSON", id="JSON without end"),
    pytest.param(lambda path: edit(path, lambda d: d.pop("sha256")), "it was changed", id="no checksums"),
])
def test_damage_is_named(damage, word, run, tmp_path):
    path = run.save(tmp_path / "run")
    damage(path)
    with pytest.raises(RecordError, match=word):
        Run.load(path)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(RecordError, match="There is no saved run"):
        Run.load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match="is a file"):
        Run.load(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match=r"run\.json is missing"):
        Run.load(tmp_path / "folder")


def by_hand(path, record, arrays=None):
    """A saved run written without the code under test."""
    path.mkdir()
    save_file(arrays or {}, path / "arrays.safetensors")
    said = json.dumps(record, sort_keys=True)
    sums = {"arrays.safetensors": hashlib.sha256((path / "arrays.safetensors").read_bytes()).hexdigest(),
            "record": hashlib.sha256(said.encode()).hexdigest()}
    (path / "run.json").write_text(json.dumps({"hookrun": 1, "sha256": sums, "record": record}))
    return path


def test_the_format_is_as_described(tmp_path):
    record = {"spec": "metric prob", "metrics": {"a": {"prob": {"$float": "-inf"}}},
              "data": {"a.x": {"$tensor": "t", "dtype": "bfloat16", "shape": [1, 2]}},
              "axes": {"a.x": {"$tuple": ["pos", "head"]}},
              "views": {"$tuple": [{"$record": "ViewRequest", "view": "grid", "count": None, "sites": {"$tuple": []},
                                    "opts": {}}]},
              "given": {"odd": {"$dict": [[1, {"$array": "n", "dtype": "<f4", "shape": []}]]},
                        "words": {"$text": ["a", "bc"], "dtype": "<U2", "shape": [2]}}}
    arrays = {"t": torch.tensor([[1, 2]], dtype=torch.bfloat16), "n": torch.tensor(0.5)}
    assert Run.load(by_hand(tmp_path / "run", record, arrays)) == Run(
        "metric prob", {"a.x": arrays["t"]}, {"a.x": ("pos", "head")}, {"a": {"prob": -math.inf}},
        views=(ViewRequest("grid"),), given={"odd": {1: np.array(0.5, np.float32)}, "words": np.array(["a", "bc"])})


@pytest.mark.parametrize("record", [
    pytest.param({"spec": {"$call": "os.system"}}, id="an unknown tag"),
    pytest.param({"given": {"x": {"$record": "Popen", "args": "ls"}}}, id="a class that is no record"),
    pytest.param({"given": {"x": {"$record": "Text"}}}, id="a record without its parts"),
    pytest.param({"given": {"x": {"$tensor": "absent", "dtype": "float32", "shape": []}}}, id="an array that is absent"),
    pytest.param({"given": {"x": {"$tensor": "t", "dtype": "load", "shape": []}}}, id="a dtype that is a function"),
    pytest.param({"given": {"x": {"$tensor": "t", "dtype": "float32", "shape": [7]}}}, id="another shape"),
    pytest.param({"given": {"x": {"$array": "t", "dtype": "|O", "shape": [2]}}}, id="an array of objects"),
    pytest.param({"given": {"x": {"$float": "big"}}}, id="a number that is none"),
    pytest.param({"given": {"x": {"$dict": [[[], 1]]}}}, id="a key that cannot be one"),
    pytest.param({"colour": "red"}, id="a field that a run lacks"),
    pytest.param({"data": {"x": 1}}, id="data without axes"),
])
def test_records_that_say_something_else_are_refused(record, tmp_path):
    with pytest.raises(RecordError, match="holds something else"):
        Run.load(by_hand(tmp_path / "run", record, {"t": torch.ones(2)}))


def test_paths_may_be_text_and_start_at_home(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run.save("~/run") == tmp_path / "run"
    assert Run.load("~/run") == run
    monkeypatch.chdir(tmp_path)
    assert Run.load("run") == run


def test_a_newer_version_is_refused_before_its_contents_are_read(tmp_path, monkeypatch, run):
    monkeypatch.setattr(saving, "VERSION", 7)
    path = run.save(tmp_path / "run")
    monkeypatch.setattr(saving, "VERSION", 6)
    (path / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(RecordError, match="version 7"):
        Run.load(path)
