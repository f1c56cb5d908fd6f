"""The cases of the language once more, as a user has them: in a `%%hook` cell, with values from the notebook."""

from __future__ import annotations

import sys
from functools import cache

import pytest
import torch
from cases import CASES
from IPython.core.interactiveshell import InteractiveShell
from oracle import Oracle

import hooklab as hl
from hooklab.spec.holes import holes
from hooklab.spec.parser import parse

ROWS = [case for case in CASES if "gpt2" in case.families and all(name.isidentifier() for name in holes(parse(case.text)))]


@cache
def oracle():
    return Oracle("gpt2")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    before = sys.displayhook, sys.excepthook
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    made.history_manager.enabled = False
    made.run_cell("%load_ext hooklab")
    from tiny_models import tokenizer

    made.user_ns.update(oracle().given, tiny=hl.load(oracle().hf, tokenizer=tokenizer()))
    yield made
    made.user_ns["tiny"].close()
    made.history_manager.end_session()
    sys.displayhook, sys.excepthook = before
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("case", ROWS[::3], ids=lambda case: case.name)
def test_a_cell_gives_what_the_same_text_gives_in_python(shell, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from safetensors.torch import save_file

    for name, tensors in (case.files(oracle()) if case.files else {}).items():
        save_file(tensors, name)
    made = shell.run_cell(f"%%hook tiny -o found --quiet\n{case.text}")
    assert made.error_in_exec is None and made.error_before_exec is None
    expected = shell.user_ns["tiny"].run(case.text, values=oracle().given)
    found = shell.user_ns["found"]
    assert found.metrics == expected.metrics and list(found.scores) == list(expected.scores)
    assert all(torch.equal(torch.nan_to_num(found[key]), torch.nan_to_num(expected[key])) for key in expected)
