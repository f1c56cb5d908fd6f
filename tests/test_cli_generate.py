"""`hooklab generate`: what it prints, keeps and refuses."""

from __future__ import annotations

import io
import json
import shlex
import sys

import pytest
import torch
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.analysis.generate import generate
from hooklab.cli import generate as command
from hooklab.cli import main
from hooklab.records import Run

FRANCE = "The capital of France is"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_prints_prompt_and_continuation(capsys):
    assert main(["generate", FRANCE, "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out == f"{FRANCE} Paris.\n"


def test_a_bare_name_keeps_the_embeddings_and_every_layer_of_every_token(tmp_path, capsys):
    assert main(["generate", FRANCE, "--max-new-tokens", "5", "--out", "paris"]) == 0
    assert f"saved in {tmp_path / 'paris'}" in capsys.readouterr().out
    kept = Run.load(tmp_path / "paris").as_dict()
    expected = generate(hl.load("lab"), FRANCE, max_new_tokens=5).as_dict()
    assert kept["response"] == expected["response"] == " Paris."
    assert kept["activations"].keys() == expected["activations"].keys()
    assert all(torch.equal(value, expected["activations"][key]) for key, value in kept["activations"].items())


def test_folders_on_the_way_are_made_and_one_that_is_there_is_kept(tmp_path, capsys, monkeypatch):
    words = ["generate", FRANCE, "--capture", "L1.z", "--max-new-tokens", "2", "--out", "some/where/paris"]
    assert main(words) == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "some/where/paris").iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(command, "opened", lambda *_: pytest.fail("a model was opened"))
    assert main(words) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in (tmp_path / "some/where/paris").iterdir()} == before


def test_a_file_is_no_folder_to_keep_anything_in(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for out in ("file", "file/paris"):
        assert main(["generate", FRANCE, "--out", out]) == 2
        captured = capsys.readouterr()
        assert str(tmp_path / "file") in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert (tmp_path / "file").read_text() == "kept"


def test_json_has_texts_shapes_and_where_it_was_saved(tmp_path, capsys):
    words = ["generate", FRANCE, "--max-new-tokens", "3", "--capture", "L0.resid_post", "--capture", "L2.z",
             "--steps", "0,2", "--out", "kept", "--json"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["texts"]["main"][0]["new"] == " Paris."
    n = len(hl.load("lab").tokens(FRANCE).ids[0])
    assert data["saved_activations"]["main.L0.resid_post"] == {"axes": ["batch", "pos", "d_model"], "shape": [1, n + 1, 144]}
    assert data["saved_activations"].keys() == {"main.L0.resid_post", "main.L2.z"}
    assert data["saved"] == str(tmp_path / "kept")


def test_draws_with_a_seed_are_those_of_the_function(capsys):
    words = ["generate", "Mary went to the", "--temperature", "1.2", "--top-k", "40", "--top-p", "0.95", "--seed", "5",
             "--samples", "3", "--max-new-tokens", "6", "--json"]
    found = []
    for _ in range(2):
        assert main(words) == 0
        found.append([one["text"] for one in json.loads(capsys.readouterr().out)["texts"]["main"]])
    run = generate(hl.load("lab"), "Mary went to the", None, temperature=1.2, top_k=40, top_p=0.95, seed=5, samples=3,
                   max_new_tokens=6)
    assert found[0] == found[1] == run.text
    assert len(set(found[0])) > 1


def test_edits_act_and_texts_end_the_writing(capsys):
    assert main(["generate", FRANCE, "--edit", "prompt other = \"The capital of Spain is\"",
                 "--edit", "patch L2.resid @last from other", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out == f"{FRANCE} Madrid.\n"
    assert main(["generate", FRANCE, "--stop", "x", "--stop", " Par"]) == 0
    assert capsys.readouterr().out == f"{FRANCE} Paris\n"


def test_a_claim_that_does_not_hold_is_status_one(capsys):
    words = ["generate", FRANCE, "--max-new-tokens", "2", "--edit", 'answer " Paris"', "--edit", "metric prob", "--edit"]
    assert main([*words, "expect main.prob > 0.5"]) == 0
    capsys.readouterr()
    assert main([*words, "expect main.prob < 0.5"]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{FRANCE} Paris.\n"
    assert "HookExpectError" in captured.err


@pytest.mark.parametrize(("words", "says"), [
    (["", "--json"], "prompt is empty"),
    (["half \udc80"], "no valid text"),
    ([FRANCE, "--steps", "0,50"], "no step 50"),
    ([FRANCE, "--steps", "late"], "all, prompt, new"),
    ([FRANCE, "--model", "./nowhere"], "There is no folder"),
    ([FRANCE, "--device", "abacus"], 'no device "abacus"'),
    ([FRANCE, "--capture", "L9.z"], "this model has 5 layers"),
    ([FRANCE, "--capture", "L0.zz"], "zz"),
    ([FRANCE, "--edit", "zap L0"], 'no verb "zap"'),
    ([FRANCE, "--top-p", "2"], "at most 1"),
    ([FRANCE, "--max-new-tokens", "0"], "at least 1"),
    ([FRANCE, "--chat"], "chat template"),
])  # fmt: skip
def test_mistakes_are_status_two_with_nothing_on_standard_output(words, says, tmp_path, capsys):
    assert main(["generate", *words, "--out", "kept"]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("hooklab: ")
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{FRANCE}\n".encode())))
    assert main(["generate", "-", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out == f"{FRANCE} Paris.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert main(["generate", "-"]) == 2
    assert "no text" in capsys.readouterr().err


def test_a_chat_goes_through_the_template_of_the_model_that_is_named(tmp_path, capsys):
    folder = tmp_path / "tiny"
    build("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    assert main(["generate", "the store", "--chat", "--model", str(folder), "--max-new-tokens", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["texts"]["main"][0]["text"].startswith("user : the store assistant :")
    assert data["provenance"]["model"]["family"] == "llama"


@pytest.mark.parametrize("example", command.EXAMPLES)
def test_every_example_of_the_help_runs(example, capsys):
    assert main([*shlex.split(example), "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["generate", "--help"])
    assert example in capsys.readouterr().out
