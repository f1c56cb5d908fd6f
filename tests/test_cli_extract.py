"""`hooklab extract`: what the help shows works, results as text and JSON, and one line for every mistake."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.cli import extract as command
from hooklab.cli import main
from hooklab.data import open_store
from hooklab.model import load as loading

ROOT = Path(__file__).parent.parent
NAMES = ["The Eiffel Tower", "Mary", "John", "John and Mary"]


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture
def here(tmp_path, monkeypatch, lab):
    rows = [{"text": f"{name} is in the city of", "name": name} for name in NAMES]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", lambda name, **_: lab)
    return tmp_path


@pytest.mark.parametrize("example", command.EXAMPLES)
def test_the_examples_of_the_help_run(example, here, capsys):
    assert main(shlex.split(example)) == 0
    assert capsys.readouterr().out


def test_a_store_is_made_gone_on_with_and_told_as_json(here, lab, capsys):
    words = ["extract", "--data", "prompts.jsonl", "--sites", "L*.resid_post", "--at", "last", "--out", "acts", "--metadata",
             "name", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"]["examples"] == 4 and told["store"]["sites"]["L0.resid_post"]["dtype"] == "float32"
    store = open_store(here / "acts")
    assert store.metadata["name"] == NAMES
    wanted = lab.capture("John is in the city of", "L2.resid_post", at="last")["L2.resid_post"]
    torch.testing.assert_close(store["L2.resid_post"][2], wanted, atol=1e-4, rtol=1e-4)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["report"] | {"seconds": 0} == told["report"] | {
        "resumed": 4, "passes": 0, "tokens": 0, "padded": 0, "seconds": 0}


def test_sums_and_metrics_without_a_store(here, lab, capsys):
    (here / "off.hook").write_text("zero L1.attn_out\n")
    assert main(["extract", "--data", "prompts.jsonl", "--sites", "L2.resid_post", "--no-store", "--reduce", "mean", "--at",
                 "last", "--metric", "sure = top", "--spec", "off.hook", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    edits = {"L1.attn_out": torch.zeros_like}
    acts = [lab.capture(f"{name} is in the city of", "L2.resid_post", edits=edits, full=True) for name in NAMES]
    np.testing.assert_allclose(told["reduced"]["mean L2.resid_post"]["values"],
                               np.mean([one["L2.resid_post"][0, -1].numpy() for one in acts], 0), atol=1e-3)
    np.testing.assert_allclose(told["metrics"]["sure"], [float(one.output.logits[0, -1].softmax(-1).max()) for one in acts],
                               atol=1e-3)
    assert told["store"] is None and sorted(p.name for p in here.iterdir()) == ["off.hook", "prompts.jsonl"]


def test_a_dry_run_counts_and_writes_nothing(here, capsys):
    words = ["extract", "--data", "prompts.jsonl", "--sites", "L0.z", "--out", "acts", "--dry-run"]
    assert main([*words, "--timed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 4 and told["passes"] == 1 and told["bytes"] > 0 and told["seconds"] > 0
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("Forecast: ") and not (here / "acts").exists()


@pytest.mark.parametrize(("words", "text"), [
    (["--sites", "L0.resid_pst", "--out", "q"], 'Did you mean "resid_post"?'),
    (["--sites", "L0.z"], "nothing would be kept"),
    (["--sites", "L0.z", "--out", "q", "--template", "{nme}"], "no column 'nme'"),
    (["--out", "q"], "nothing would be kept"),
    (["--metric", "entropie"], "entropy"), (["--metric", "top", "--spec", "no.hook"], "no.hook cannot be read"),
    (["--metric", "top", "--timed"], "--dry-run"), (["--metric", "a=top", "--metric", "a=entropy"], "given twice"),
    (["--metric", "top", "--data", "x" * 5000], "cannot be read"), (["--sites", "L0.z", "--out", "x" * 300], "could not be"),
    (["--sites", "L0.z", "--out", "q", "--store-as", "float17"], "float17"),
    (["--metric", "top", "--data", "no.jsonl"], "no.jsonl")])
def test_mistakes_are_one_line_and_status_two(words, text, here, capsys):
    assert main(["extract", "--data", "prompts.jsonl", *words]) == 2
    told = capsys.readouterr()
    assert text in told.err and told.err.count("\n") == 1 and told.out == "" and not (here / "q").exists()


def test_as_a_process(here):
    done = subprocess.run([sys.executable, "-m", "hooklab", "extract", "--data", str(here / "prompts.jsonl"), "--sites",
                           "L0.z", "--out", str(here / "acts")], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "4 examples" in done.stdout and open_store(here / "acts").complete


def test_what_is_wrong_with_a_spec_is_shown_line_by_line(here, capsys):
    (here / "e.hook").write_text("zero L0H0\nzero nope\n")
    assert main(["extract", "--data", "prompts.jsonl", "--metric", "top", "--spec", "e.hook"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("hooklab: in e.hook:\n") and "(line 2, column 6)" in told.err and told.out == ""


def test_the_extent_is_asked_for_by_its_word(here, lab, capsys):
    assert main(["extract", "--data", "prompts.jsonl", "--sites", "L1.resid_post", "--no-store", "--reduce", "extent",
                 "--json"]) == 0
    every = [lab.capture(f"{name} is in the city of", "L1.resid_post")["L1.resid_post"] for name in NAMES]
    found = json.loads(capsys.readouterr().out)["reduced"]["extent L1.resid_post"]
    assert found == pytest.approx([min(one.min().item() for one in every), max(one.max().item() for one in every)], rel=1e-4)
