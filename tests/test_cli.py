"""The command line: output, JSON, exit status, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import build, tokenizer

from hooklab import __version__
from hooklab.cli import main


@pytest.fixture
def folder(tmp_path):
    build("llama").save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_verify_prints_a_table(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "Model(llama" in out
    assert "all checks pass" in out


def test_verify_as_json_in_half_precision(folder, capsys):
    assert main(["verify", str(folder), "--json", "--dtype", "bfloat16"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert "bfloat16" in data["title"]


def test_verify_fails_with_status_one(folder, capsys, monkeypatch):
    from dataclasses import replace

    from hooklab.families import FAMILIES

    monkeypatch.setitem(FAMILIES, "llama", replace(FAMILIES["llama"], norm="layer"))
    assert main(["verify", str(folder)]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "text"), [
    (["verify", "./nowhere"], "There is no folder"),
    (["verify", "no-such-model"], "could not be reached"),
    (["verify", "lab", "--dtype", "float7"], 'no dtype "float7"'),
])
def test_mistakes_are_one_line_and_status_two(words, text, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "hooklab", "--version"], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == f"hooklab {__version__}"


def test_lab_shows_its_card(capsys):
    assert main(["lab", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["config"]["model_type"] == "gpt2"
    assert data["bytes"] <= 4_000_000
    assert main(["lab"]) == 0
    assert "MB in" in capsys.readouterr().out
