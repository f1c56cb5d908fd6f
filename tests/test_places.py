"""The places where people type: a plain Python prompt, a notebook kernel, a file that is edited and reloaded."""

from __future__ import annotations

import importlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_models import build

from hooklab.errors import HooklabWarning, TraceError
from hooklab.model.model import Model

ROOT = Path(__file__).parent.parent


class Prompt:
    """A Python session at a terminal."""

    def __init__(self):
        self.ours, theirs = pty.openpty()
        env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TERM": "dumb", "PYTHON_BASIC_REPL": "1"}
        self.process = subprocess.Popen([sys.executable, "-q"], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        self.text = ""

    def type(self, line):
        os.write(self.ours, (line + "\n").encode())

    def wait_for(self, words, seconds=120):
        end = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.ours], [], [], 0.5)[0]:
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


def test_a_plain_python_prompt():
    session = Prompt()
    try:
        session.wait_for(">>> ")
        session.type("from tiny_models import build; from hooklab.model.model import Model; m = Model(build('gpt2'))")
        session.type("print('re' + 'ady')")
        session.wait_for("ready")
        for line in ("for i in range(2):", "    with m.trace([[3, 4, 5 + i]]):", "        z = m.layers[0].z.save()",
                     "    print('shape', tuple(z.shape))", ""):
            session.type(line)
            time.sleep(0.2)
        session.wait_for("shape (1, 3, 4, 8)")
        assert session.text.count("shape (1, 3, 4, 8)") in (1, 2)
    finally:
        session.close()


AGAIN = '''prompt "When Mary and John went to the store, John gave a drink to"
answer " Mary" vs " John"
metric logit_diff
steer L2.resid @last by {vec} + {moved(2)}'''
ALONE = AGAIN.replace("{vec} + {moved(2)}", "{w}")
# One cell text again and again while what its names mean changes; `NAMED` names the model, `BARE` does not.
REDEFINED = f"""%load_ext hooklab
---
import hooklab as hl, torch
del m
lab, d = hl.load("lab"), 144
def moved(k): return torch.zeros(d)
def said(step):
    told = r.metrics["hooked"]["logit_diff"]
    print(step, "as plain" if told == r.metrics["main"]["logit_diff"] else "as forced" if told == forced else told)
vec, way = torch.zeros(d), torch.arange(d) % 7
forced = lab.run({ALONE!r}, w=way * 4.0).metrics["hooked"]["logit_diff"]
---
NAMED
---
said("both nothing:")
---
vec = way * 4.0
---
NAMED
---
said("the vector:")
---
vec = torch.zeros(d)
def moved(k): return way * 2.0 * k
---
NAMED
---
said("the function:")
---
vec = torch.zeros(d)
def moved(k): return torch.zeros(d)
---
BARE
---
said("both nothing again:")
---
vec += way * 4
---
BARE
---
said("the same tensor, filled anew:")
---
first, lab = lab, hl.load("lab")
with torch.no_grad():
    _ = [p.zero_() for p in lab.hf.parameters()]
print("two models:", first is not lab)
---
NAMED
---
print("the model:", r.metrics["main"]["logit_diff"])
---
lab = first
---
BARE
---
said("the first model:")
---
first.close(); lab.close(); del first
---
NAMED
---
BARE
---
lab = hl.load("lab")
---
BARE
---
said("opened anew:")"""
NAMED, BARE = f"%%hook lab -o r -q\n{AGAIN}", f"%%hook -o r -q\n{AGAIN}"


def test_a_notebook_kernel(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra: test)")
    import nbformat

    cells = ["import sys; sys.path[:0] = " + repr([str(ROOT), str(ROOT / "tests")]),
             "from tiny_models import build\nfrom hooklab.model.model import Model\nm = Model(build('gpt2'))",
             "%time x = 1\nwith m.trace([[3, 4, 5]]) as t:\n    z = m.layers[0].z.save()\nprint('plain', tuple(z.shape))",
             "%%time\nwith m.trace([[3, 4]]) as t:\n    z = m.layers[0].z.save()\nprint('timed', tuple(z.shape))",
             "%%time\ny = 2\nwith m.trace([[3]]):\n    z = m.layers[0].q.save()\nprint('again', tuple(z.shape))",
             "%%capture\nwith m.trace([[3, 4, 5, 6]]):\n    q = m.layers[0].q.save()",
             "print('captured', tuple(q.shape))"]
    cells += [{"NAMED": NAMED, "BARE": BARE}.get(cell, cell) for cell in REDEFINED.split("\n---\n")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=180, kernel_name="python3", resources=place, allow_errors=True).execute()
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell["outputs"])
    for words in ("plain (1, 3, 4, 8)", "timed (1, 2, 4, 8)", "again (1, 1, 4, 8)", "captured (1, 4, 4, 8)"):
        assert words in printed
    for words in ("both nothing: as plain", "the vector: as forced", "the function: as forced",
                  "both nothing again: as plain", "the same tensor, filled anew: as forced", "two models: True",
                  "the model: 0.0", "the first model: as forced", "opened anew: as forced"):
        assert words in printed, printed
    errors = ["\n".join(out["traceback"]) for cell in notebook.cells for out in cell["outputs"]
              if out["output_type"] == "error"]
    assert ["lab was closed" in error for error in errors] == [True, False]
    assert "lab, the model used last, was closed" in errors[1]


def test_a_file_that_is_edited_and_reloaded_runs_its_new_block(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "edited_module.py"
    text = "def run(m):\n    with m.trace([[3, 4, 5]]):\n        x = m.layers[0].SITE.save()\n    return x\n"
    model = Model(build("gpt2"))
    path.write_text(text.replace("SITE", "resid_pre"))
    module = importlib.import_module("edited_module")
    first = module.run(model)
    path.write_text(text.replace("SITE", "resid_post"))
    os.utime(path, (time.time() + 5, time.time() + 5))
    importlib.reload(module)
    assert not torch.equal(module.run(model), first)


def test_code_without_source_says_what_to_do():
    code = "with m.trace([[3]]):\n    z = m.layers[0].z.save()\n"
    with pytest.raises(TraceError, match="no source for <made up>.*capture"):
        exec(compile(code, "<made up>", "exec"), {"m": Model(build("gpt2"))})


def test_a_prompt_beyond_the_context_of_a_rotary_model_is_remarked_on():
    with pytest.warns(HooklabWarning, match="70 tokens; this model was made for 64"):
        Model(build("llama")).capture([[3] * 70], "L0.q")
