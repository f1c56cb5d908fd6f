"""Saved runs as a list in Python and on the command line: what is read of them, how they are found, what is broken."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.cli import main
from hooklab.data import runs
from hooklab.data.store.writer import Writer
from hooklab.errors import RecordError
from hooklab.records import saving

WHERE = {"first": ("2024-01-05T10:00:00+00:00", "openai-community/gpt2", "aaaa1111bbbb2222", 0.75),
         "second": ("2024-02-05T10:00:00+00:00", "/models/lab/weights", "cccc3333dddd4444", 0.25),
         "third": ("2024-03-05T10:00:00+00:00", "openai-community/gpt2", "eeee5555ffff6666", float("nan"))}


def a_run(name):
    made, model, mark, value = WHERE[name]
    return hl.Run(f'prompt "{name} to {{who}}"\nmetric prob\nsave L0.z', {"main.L0.z": torch.zeros(2, 300)},
                  {"main.L0.z": ("batch", "pos")}, metrics={"main": {"prob": value}, "hooked": {"prob": value / 2}},
                  provenance={"model": {"name": model, "fingerprint": mark}, "made": made},
                  given={"who": ["Mary's aunt", {"deep": name.upper()}], "vec": torch.ones(3)})


@pytest.fixture
def folder(tmp_path):
    for name in ("second", "third", "first"):  # not in the order in which they say they were made
        a_run(name).save(tmp_path / name)
    return tmp_path


def keys(found):
    return [one.key for one in found]


def test_runs_stand_in_the_order_in_which_they_were_made_with_what_they_say(folder):
    found = runs(folder)
    assert keys(found) == ["first", "second", "third"] == keys(runs(str(folder)))
    one = found["second"]
    assert one.spec == a_run("second").spec and one.metrics == {"main": {"prob": 0.25}, "hooked": {"prob": 0.125}}
    assert one.provenance == a_run("second").provenance and one.path == folder / "second" and one.error == ""
    assert one.load() == hl.Run.load(folder / "second")
    assert keys(found[1:]) == ["second", "third"] and found[-1].key == "third"
    assert keys(runs(folder / "first")) == ["first"], "the folder of one run"
    assert "second" in repr(found) and "2024-02-05 10:00:00" in repr(found) and "second" in found._repr_html_()
    assert repr(runs(folder)[:0]) == "no runs"
    with pytest.raises(RecordError, match='Did you mean "first"'):
        found["frist"]


READ = []
sys.addaudithook(lambda event, given: READ.append(str(given[0])) if READ and event == "open" else None)


def test_nothing_but_run_json_is_read_save_the_head_of_the_arrays(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("tensors were read")

    monkeypatch.setattr("safetensors.torch.load", refuse)
    taken = []
    read = Path.open

    def counting(self, *given, **more):
        file = read(self, *given, **more)
        inner = file.read
        if self.name == saving.ARRAYS:
            class Counted:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def read(self, size=-1):
                    taken.append(len(data := inner(size)))
                    return data
            return Counted()
        return file

    monkeypatch.setattr(Path, "open", counting)
    READ[:] = ["start"]
    try:
        found = runs(folder).where(prob=(0, 1), prompt="first", model="gpt2", after="2024-01-01")
    finally:
        opened, READ[:] = READ[1:], []
    assert keys(found) == ["first"]
    assert {Path(one).name for one in opened if str(folder) in one} == {saving.RECORD, saving.ARRAYS}
    sizes = [(folder / name / saving.ARRAYS).stat().st_size for name in WHERE]
    assert 0 < sum(taken) < sum(sizes) - 3 * 2 * 300 * 4 + 1, "no byte of a tensor"


@pytest.mark.parametrize(("asked", "names"), [
    ({"model": "gpt2"}, ["first", "third"]), ({"model": "openai-community/gpt2"}, ["first", "third"]),
    ({"model": "lab"}, ["second"]), ({"model": "cccc3"}, ["second"]), ({"model": ["lab", "aaaa"]}, ["first", "second"]),
    ({"after": "2024-02-05 10:00"}, ["second", "third"]), ({"before": "2024-02-05 10:00"}, ["first"]),
    ({"after": "2024-01-05T12:00+02:00", "before": "2024-03-01"}, ["first", "second"]),
    ({"spec": "save L0.z"}, ["first", "second", "third"]), ({"spec": "second to"}, ["second"]),
    ({"prompt": "third to"}, ["third"]), ({"prompt": "Mary's"}, ["first", "second", "third"]),
    ({"prompt": "FIRST"}, ["first"]), ({"prompt": "save"}, []),
    ({"prob": (0.2, 0.3)}, ["second"]), ({"prob": (0.3, None)}, ["first"]),
    ({"hooked.prob": (0.3, None)}, ["first"]), ({"main.prob": 0.25}, ["second"]),
    ({"prob": lambda value: value != value}, ["third"]), ({"model": "gpt2", "prob": (0, 1)}, ["first"])])
def test_runs_are_found_by_what_they_say(folder, asked, names):
    assert keys(runs(folder).where(**asked)) == names


def test_runs_are_found_by_an_opened_model_and_by_what_was_tokenized(tmp_path):
    models = [hl.load("lab"), hl.load(build("gpt2"), verify=False)]
    models[0].run("prompt {p}\nmetric entropy", p="When Mary went").save(tmp_path / "lab")
    models[1].run("prompt {p}\nmetric entropy", p=[[3, 4, 5]]).save(tmp_path / "tiny")
    found = runs(tmp_path)
    assert keys(found.where(model=models[0])) == ["lab"] and keys(found.where(model=models[1].hf)) == ["tiny"]
    assert keys(found.where(model="lab", prompt="Mary")) == ["lab"]
    assert keys(found.where(lambda run: "tokens" not in run.spec and run.flat["main.entropy"] > 0)) == keys(found)


@pytest.mark.parametrize(("asked", "says"), [
    ({"model": "gpt-2"}, 'Did you mean "gpt2"'), ({"prbo": (0, 1)}, 'Did you mean "prob"'), ({"promt": "x"}, '"prompt"'),
    ({"after": "soon"}, "takes a moment"), ({"spec": 3}, "takes a text"), ({"prob": "high"}, "takes a number")])
def test_an_unknown_name_is_an_error_with_the_nearest_right_one(folder, asked, says):
    with pytest.raises(RecordError, match=says):
        runs(folder).where(prob=(0.9, 1)).where(**asked)


def cut_arrays(path):
    (path / saving.ARRAYS).write_bytes((path / saving.ARRAYS).read_bytes()[:-1])


def cut_record(path):
    (path / saving.RECORD).write_text((path / saving.RECORD).read_text()[:100])


def odd_tokens(path):
    """A record that says it is whole and is none."""
    document = json.loads((path / saving.RECORD).read_text())
    document["record"]["tokens_of"] = [3]
    document["sha256"]["record"] = saving._digest(document["record"])
    (path / saving.RECORD).write_text(json.dumps(document))


@pytest.mark.parametrize("harm", [cut_arrays, cut_record, odd_tokens])
def test_a_broken_run_is_listed_with_its_error(folder, harm, capsys):
    harm(folder / "second")
    found = runs(folder)
    assert sorted(keys(found)) == ["first", "second", "third"] and keys(found.broken) == ["second"]
    assert str(folder) in found["second"].error and found["first"].error == ""
    assert keys(found.where(lambda run: run.error)) == ["second"] and keys(found.where(prob=(0, 1))) == ["first"]
    assert "1 cannot be read" in repr(found)
    table = found.to_pandas().set_index("run")
    assert table.loc["second", "error"] == found["second"].error and table.loc["first", "main.prob"] == 0.75
    assert main(["runs", str(folder), "--json"]) == 1
    told = {one["run"]: one for one in json.loads(capsys.readouterr().out)}
    assert "error" in told["second"] and told["third"]["metrics"]["main"] == {"prob": None}
    assert main(["runs", str(folder), "--model", "gpt2"]) == 1
    said = capsys.readouterr()
    assert "second" not in said.out and "second" in said.err, "it might be one of those that were asked for"


def test_what_is_no_run_is_not_listed_and_a_folder_without_runs_is_empty(folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / ".third.abc.part").mkdir()
    shutil.copy(folder / "first" / "run.json", tmp_path / ".third.abc.part" / "run.json")
    assert keys(runs(tmp_path)) == ["first", "second", "third"]
    assert len(runs(tmp_path / "notes")) == 0 == len(runs(tmp_path / "notes").where(model="x", prob=(0, 1)))
    for wrong in (tmp_path / "nowhere", folder / "first" / "run.json", 3, ""):
        with pytest.raises(RecordError):
            runs(wrong)
    pd.testing.assert_frame_equal(runs(tmp_path / "notes").to_pandas(), pd.DataFrame(
        columns=["run", "path", "made", "model", "fingerprint", "bytes", "spec", "error"]))


def test_a_run_whose_replacing_was_interrupted_is_listed_as_the_one_from_before(folder):
    (folder / "first").rename(folder / ".first.old")
    (one,) = [one for one in runs(folder) if one.key.startswith("first")]
    assert "interrupted" in one.key and one.path == folder / "first" and one.load() == a_run("first")


# The command line ----------------------------------------------------------------------------------------------------------


def listed(capsys, *words):
    status = main(["runs", *map(str, words), "--json"])
    return status, [one["run"] for one in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(("words", "names"), [
    ([], ["first", "second", "third"]), (["--model", "lab"], ["second"]), (["--metric", "prob=0.3:"], ["first"]),
    (["--metric", "prob=:0.3", "--metric", "hooked.prob=0.1:"], ["second"]), (["--metric", "main.prob=0.75"], ["first"]),
    (["--after", "2024-02-01", "--before", "2024-03-01"], ["second"]), (["--prompt", "THIRD"], ["third"]),
    (["--spec", "nothing"], []), (["--model", "lab", "--model", "aaaa1111"], ["first", "second"])])
def test_the_command_lists_what_the_function_does(folder, capsys, words, names):
    assert listed(capsys, folder, *words) == (0, names)


def test_the_command_prints_a_table_and_says_where_there_is_nothing(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["run", "made"]
    assert [line.split()[0] for line in lines[1:]] == ["first", "second", "third"]
    assert main(["runs", "--spec", "nothing"]) == 0 and "no runs like that in" in capsys.readouterr().out
    (folder / "empty").mkdir()
    assert main(["runs", "empty"]) == 0 and "no runs in" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "says"), [
    (["nowhere"], "no folder nowhere"), (["--model", "lub"], 'Did you mean "lab"'), (["--metric", "prob"], "NAME=LOW:HIGH"),
    (["--metric", "prob=:"], "NAME=LOW:HIGH"), (["--metric", "prob=a:b"], "NAME=LOW:HIGH"), (["--after", "x"], "a moment"),
    (["--metric", "prbo=0:"], 'Did you mean "prob"')])
def test_a_mistake_is_status_2_and_one_line(folder, capsys, monkeypatch, words, says):
    monkeypatch.chdir(folder)
    assert main(["runs", *words]) == 2
    told = capsys.readouterr()
    assert not told.out and says in told.err and told.err.count("\n") == 1


def test_stores_are_listed_by_their_tags(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, tags in {"a": ["base", "long"], "b": ["edited"], "c": []}.items():
        with Writer(tmp_path / name, ["L0.resid_post"]) as writer:
            writer.add("x", {"L0.resid_post": torch.zeros(2, 3)}, tokens=range(2))
        if tags:
            hl.open_store(tmp_path / name).tag(*tags)

    def found(*words, status=0):
        assert main(["store", "ls", "--json", *words]) == status
        return [one["path"] for one in json.loads(capsys.readouterr().out)]

    assert found() == ["a", "b", "c"] and found("--tag", "base") == ["a"]
    assert found("--tag", "edited", "--tag", "long") == ["a", "b"]
    assert main(["store", "ls", "--tag", "bse"]) == 2 and 'Did you mean "base"' in capsys.readouterr().err
    (tmp_path / "b" / "manifest.json").write_text('{"hookstore": 99}')
    assert found("--tag", "base", status=1) == ["a", "b"], "of b it cannot be told"
    assert main(["store", "ls", str(tmp_path / "a"), "--tag", "base"]) == 0 and "no stores" in capsys.readouterr().out
