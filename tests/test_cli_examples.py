"""Every example that a command shows runs, one after the other as a reader would try them, beside the files it names."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hooklab import load
from hooklab.cli import COMMANDS, main
from hooklab.data import Writer, open_store

ROOT = Path(__file__).parent.parent
NAMES = ["Mary", "John", "Tom", "Anna"]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "experiment.hook": 'prompt "The capital of France is"\nanswer " Paris" vs " Rome"\nmetric logit_diff\nzero L2H0\n',
    "heads.hook": "zero {heads}\n",
    "prompts.jsonl": lines({"text": f"{name} went to the store", "name": name} for name in NAMES),
    "receivers.jsonl": lines({"prompt": f"When {a} and {b} went to the store, {b} gave a drink to", "right": f" {a}",
                              "wrong": f" {b}"} for a, b in [("Mary", "John"), ("Tom", "Anna")]),
    "capitals.jsonl": lines([{"question": "The capital of France is", "answer": "Paris"}]),
}
"""What the examples read, by the name they use for it."""


OWN = {"run": {"heads.hook": FILES["experiment.hook"].replace("L2H0", "{heads}")}}
"""Of a command that means something else by a name."""


def prepared(folder, command):
    """A folder with everything that the examples of a command name."""
    for name, text in (FILES | OWN.get(command, {})).items():
        (folder / name).write_text(text, encoding="utf-8")
    if command == "runs":
        model = load("lab")
        for name, prompt in (("capital", "The capital of France is"), ("mary", "When Mary went to the store")):
            (folder / "results").mkdir(exist_ok=True)
            model.run(f'prompt "{prompt}"\nmetric prob\nanswer " Paris"').save(folder / "results" / name)
    for shift, name in enumerate(("acts", "other") if command == "store" else ()):
        with Writer(folder / name, ["L0.resid_post"]) as writer:
            for i, example in enumerate(("paris", "rome")):
                stream = torch.randn(3 + i, 4, generator=torch.Generator().manual_seed(i))
                writer.add(example, {"L0.resid_post": stream + shift}, tokens=range(3 + i))
        open_store(folder / name).tag("baseline" if name == "acts" else "edited")
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.NAME)
def test_every_example_of_a_command_runs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(prepared(tmp_path, command.NAME))
    assert command.EXAMPLES, "its help shows no example"
    for example in command.EXAMPLES:
        words = shlex.split(example)
        assert words[0] == command.NAME
        status = main(words)
        told = capsys.readouterr()
        assert status == 0, f"{example}: {told.err}"
        assert told.out.strip(), f"{example} prints nothing"
        if "--json" in words:
            json.loads(told.out)


def test_an_example_runs_as_a_process_of_its_own(tmp_path):
    done = subprocess.run([sys.executable, "-m", "hooklab", "store", "diff", "acts", "other", "--json"], text=True,
                          capture_output=True, cwd=prepared(tmp_path, "store"), check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["sites"]) == ["L0.resid_post"]
