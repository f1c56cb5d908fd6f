"""The command line: output, JSON, exit status, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import build, tokenizer

from hooklab import __version__
from hooklab.cli import main
from hooklab.cli.card import section
from hooklab.families import FAMILIES

ROOT = Path(__file__).parent.parent


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
    assert main(["verify", str(folder), "--json", "--dtype", "bfloat16", "--device", "cpu"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert "bfloat16" in data["title"]


def test_verify_fails_with_status_one(folder, capsys, monkeypatch):
    monkeypatch.setitem(FAMILIES, "llama", replace(FAMILIES["llama"], norm="layer"))
    assert main(["verify", str(folder)]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "text"), [
    (["verify", "./nowhere"], "There is no folder"),
    (["verify", "no-such-model"], "could not be reached"),
    (["verify", "lab", "--dtype", "float7"], 'no dtype "float7"'),
    (["verify", "lab", "--device", "abacus"], 'no device "abacus"'),
    (["demo", "--out", "no/such/folder/page.html"], "There is no folder"),
])
def test_mistakes_are_one_line_and_status_two(words, text, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("words", [[], ["nonsense"], ["verify"], ["card", "--colour"]])
def test_unknown_words_show_the_usage(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err.startswith("usage: hooklab")


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "hooklab", "--version"], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert done.stdout.strip() == f"hooklab {__version__}"


def test_a_reader_who_leaves_early_is_no_error():
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {sys.executable} -m hooklab card | head -n 1"],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_card_of_the_shipped_model(capsys):
    assert main(["card", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["config"]["model_type"] == "gpt2"
    assert data["bytes"] <= 4_000_000
    assert data["abilities"]
    assert main(["card"]) == 0
    assert "MB in" in capsys.readouterr().out


def test_a_table_of_the_card_is_read_by_its_heading():
    card = "### Other\n\n| a |\n| --- |\n| 9 |\n\n### Abilities\n\n| held-out | n |\n| --- | --- |\n| facts | 12 |\n\n## B\n"
    assert section(card, "Abilities") == [{"held-out": "facts", "n": "12"}]
    assert section(card, "None") == []


def test_demo_writes_into_a_folder_and_opens_the_page(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = tmp_path / "hooklab-demo.html"
    page.write_text("mine")
    assert main(["demo", "--out", str(tmp_path), "--open", "--force"]) == 0
    assert opened == [page.as_uri()]
    assert page.read_text().startswith("<!doctype html>")
    assert "hooklab-demo.html" in capsys.readouterr().out
