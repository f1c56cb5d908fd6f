"""`hooklab bench`: what it prints, what it keeps, and its exit status; its examples run as they stand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import build, tokenizer

from hooklab.cli import bench as command
from hooklab.cli import main
from hooklab.data.evaluation.record import Evaluation

ROOT = Path(__file__).parent.parent
RECEIVERS = [("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
             ("When Mary and John went to the store, Mary gave a drink to", " John", " Mary"),
             ("Then Simon and Adam went to the office. Simon passed a small drink to", " Adam", " Simon")]
CAPITALS = [("The capital of France is", "Paris"), ("Paris is the capital of", "France"),
            ("The capital of Italy is", "Rome")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    rows = [{"prompt": a, "right": b, "wrong": c} for a, b, c in RECEIVERS]
    (tmp_path / "receivers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"question": a, "answer": b} for a, b in CAPITALS]
    (tmp_path / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "heads.hook").write_text("# which heads\nzero {heads}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(words, capsys, status=0):
    assert main(["bench", *shlex.split(words)]) == status
    return capsys.readouterr().out


@pytest.mark.parametrize("example", command.EXAMPLES)
def test_every_example_of_the_help_runs(example, capsys):
    assert main(shlex.split(example)) == 0
    assert capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--help"])
    assert example in capsys.readouterr().out


def test_as_a_subprocess(folder):
    done = subprocess.run([sys.executable, "-m", "hooklab", *shlex.split(command.EXAMPLES[1])], capture_output=True,
                          text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert [row["answer"] for row in json.loads(done.stdout)["rows"]] == ["Paris", "France", "Rome"]


def test_edits_come_as_a_grid_with_the_difference_to_the_model_as_it_is(capsys):
    words = """pairs receivers.jsonl --how choices --edits heads.hook --grid 'heads=["L0H*", "L4H*"]'"""
    data = json.loads(bench(f"{words} --json", capsys))
    assert data["baseline"]["value"] == 1
    assert data["accuracy"]["coords"] == {"heads": ["L0H*", "L4H*"]}
    assert data["accuracy"]["value"][0] < data["accuracy"]["value"][1] == 1
    assert data["difference"]["value"] == pytest.approx([data["accuracy"]["value"][0] - 1, 0])
    assert len(data["rows"]) == 9
    shown = bench(words, capsys)
    assert "heads=L0H*" in shown
    assert "question by question" in shown
    one = json.loads(bench("pairs receivers.jsonl --how choices --edits heads.hook --set heads=L0H* --json", capsys))
    assert one["accuracy"]["value"] == data["accuracy"]["value"][0]


def test_a_folder_keeps_rows_and_activations_and_the_same_command_goes_on(folder, capsys):
    words = "jsonl capitals.jsonl --stop . --pattern '\\w+' --capture L2.resid_post --capture-at last --out kept/here"
    assert "saved in" in bench(words, capsys)
    first = (folder / "kept" / "here" / "rows.jsonl").read_bytes()
    assert json.loads(bench(f"{words} --json", capsys))["saved"] == str(folder / "kept" / "here")
    assert (folder / "kept" / "here" / "rows.jsonl").read_bytes() == first
    found = Evaluation.load("kept/here")
    assert found.complete
    assert found.activations(found.rows[0])["L2.resid_post"].shape == (1, 144)
    assert main(["bench", *shlex.split(words), "--seed", "1"]) == 2
    assert "something else: seed was 0 and is 1" in capsys.readouterr().err


def test_too_few_right_answers_are_status_one(folder, capsys):
    bench("pairs receivers.jsonl --how choices --at-least 1", capsys)
    (prompt, right, wrong), *rest = RECEIVERS
    rows = [{"prompt": a, "right": b, "wrong": c} for a, b, c in [(prompt, wrong, right), *rest]]
    (folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench("pairs mixed.jsonl --how choices --at-least 0.66", capsys)
    bench("pairs mixed.jsonl --how choices --at-least 0.67", capsys, status=1)


def test_a_model_that_is_named_and_a_limit_after_shuffling(folder, capsys):
    build("llama").save_pretrained(folder / "tiny")
    tokenizer().save_pretrained(folder / "tiny")
    (folder / "words.jsonl").write_text("".join(json.dumps({"prompt": f"w{i} w2", "right": " w3", "wrong": " w4"}) + "\n"
                                                for i in range(9)))
    words = "pairs words.jsonl --how choices --model tiny --limit 4 --json --shuffle"
    data = json.loads(bench(f"{words} 1", capsys))
    ids = [row["id"] for row in data["rows"]]
    assert data["asked"]["model"]["family"] == "llama"
    assert len(ids) == 4
    assert ids == [row["id"] for row in json.loads(bench(f"{words} 1", capsys))["rows"]]
    assert ids != [row["id"] for row in json.loads(bench(f"{words} 2", capsys))["rows"]]


@pytest.mark.parametrize(("words", "says"), [
    ("pair receivers.jsonl", 'Did you mean "pairs"'),
    ("pairs nowhere.jsonl", "nowhere.jsonl"),
    ("jsonl receivers.jsonl", "receivers.jsonl:1"),
    ("pairs receivers.jsonl --edits none.hook", "no file none.hook"),
    ("pairs receivers.jsonl --edits heads.hook", "no value for {heads}"),
    ("pairs receivers.jsonl --edits heads.hook --grid heads", "takes NAME=VALUE"),
    ("pairs receivers.jsonl --edits heads.hook --grid heads=3", "takes a list"),
    ("pairs receivers.jsonl --edits heads.hook --set heads=L9H0", "no layer 9"),
    ("pairs receivers.jsonl --pattern (", "no regular expression"),
    ("pairs receivers.jsonl --edits heads.hook --grid heads=[\"L0H0\"] --grid heads=[\"L1H0\"]", "given twice"),
    ("pairs receivers.jsonl --how choices --at-least 90", "a share from 0 to 1"),
    ("pairs receivers.jsonl --how choices --at-least nan", "a share from 0 to 1"),
    ("pairs receivers.jsonl --temperature nan", "0 or more"),
    ("pairs receivers.jsonl --stop ", "this cannot be asked"),
    ("pairs receivers.jsonl --capture L0.z", "folder"),
    ("pairs receivers.jsonl --grade nice", "no grader 'nice'"),
])  # fmt: skip
def test_mistakes_are_status_two_with_nothing_on_standard_output(words, says, capsys):
    assert main(["bench", *words.split(" ")]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("hooklab: ")
    assert captured.out == ""
