"""`hooklab run`: output, JSON, files, values for braces, exit status, and where mistakes are shown."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hooklab as hl
from hooklab.cli import main
from hooklab.cli.run import as_data
from hooklab.records import Run, compare
from hooklab.spec.manual import SECTIONS
from hooklab.spec.parser import parse

ROOT = Path(__file__).parent.parent
STORE = 'prompt "When Mary and John went to the store, John gave a drink to"\nanswer " Mary" vs " John"\nmetric logit_diff\n'


@pytest.fixture
def spec(tmp_path):
    def write(text, name="x.hook"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def typed(monkeypatch):
    def give(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def test_a_spec_prints_its_metrics(spec, capsys):
    assert main(["run", spec(f"{STORE}zero L2H0")]) == 0
    out = capsys.readouterr().out
    numbers = {line.split()[0]: line.split()[1] for line in out.splitlines() if len(line.split()) == 2}
    expected = hl.load("lab").run(f"{STORE}zero L2H0").metrics
    for name in ("main", "hooked"):
        assert float(numbers[name]) == pytest.approx(expected[name]["logit_diff"], rel=1e-3)


def test_json_holds_every_number(spec, capsys):
    text = f"{STORE}run patched on main:\n    zero each L*H*\n    save L1.mlp @last\nexpect main.logit_diff > 0"
    assert main(["run", spec(text), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    run = hl.load("lab").run(text)
    assert data["metrics"]["main"] == run.metrics["main"]
    grid = data["scores"]["patched.logit_diff"]
    assert grid["axes"] == ["layer", "head"]
    assert grid["values"] == run.grid.values.tolist()
    assert data["expectations"][0] | {"text": ""} == {"text": "", "left": run.metrics["main"]["logit_diff"], "right": 0.0,
                                                      "holds": True}
    assert data["provenance"]
    assert data["saved_activations"]
    assert data["spec"] == text


def test_numbers_that_are_none_are_null():
    data = as_data(Run(metrics={"a": {"loss": float("nan"), "prob": float("-inf")}}))
    assert json.loads(json.dumps(data, allow_nan=False))["metrics"] == {"a": {"loss": None, "prob": None}}


def test_standard_input_and_json_files_give_the_same(spec, typed, capsys):
    text = f"{STORE}zero L2H0"
    as_json = json.dumps(parse(text).to_json())
    printed = []
    for file, stdin in ((spec(text), ""), ("-", text), ("-", as_json), (spec(as_json, "x.json"), "")):
        typed(stdin)
        assert main(["run", file, "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out)["metrics"])
    assert all(metrics == printed[0] for metrics in printed)


def test_the_whole_result_is_kept(spec, tmp_path, capsys):
    out = tmp_path / "kept"
    assert main(["run", spec(f"{STORE}save L1.resid"), "--out", str(out)]) == 0
    assert f"saved in {out}" in capsys.readouterr().out
    assert compare(Run.load(out), hl.load("lab").run(f"{STORE}save L1.resid")).same


def test_a_folder_that_is_there_is_kept_and_nothing_runs(spec, tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    assert main(["run", spec("prompt no_such_thing"), "--out", str(tmp_path / "kept")]) == 2
    assert main(["run", spec(STORE), "--out", str(tmp_path / "kept")]) == 2
    captured = capsys.readouterr()
    assert "choose another folder" in captured.err
    assert captured.out == ""
    assert list((tmp_path / "kept").iterdir()) == []


def test_braces_take_json_and_plain_text(spec, capsys):
    file = spec("prompt {text}\nanswer {right} vs \" John\"\nmetric logit_diff\nscale L1.mlp by {k}")
    sets = ["--set", "text=When Mary and John went to the store, John gave a drink to", "--set", 'right=" Mary"',
            "--set", "k=0.5"]
    assert main(["run", file, "--json", *sets]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics == hl.load("lab").run(f"{STORE}scale L1.mlp by 0.5").metrics


def test_braces_never_run_python(spec, tmp_path, capsys):
    target = tmp_path / "pwned"
    assert main(["run", spec(f'{STORE}steer L1.resid by {{open("{target}", "w")}}')]) == 2
    err = capsys.readouterr().err
    assert "no value for {open(" in err
    assert not target.exists()


@pytest.mark.parametrize(("text", "words", "lines"), [
    (f"{STORE}steer L1.resid by {{vec}}", [],
     ["no value for {vec}", "4 | steer", "  | " + " " * 18 + "^^^^^", "--set 'vec=…'"]),
    (f"{STORE}steer L1.resid by {{vec}}", ["--set", "vex=1"], ["did you mean `vec`?"]),
    (f"{STORE}steer L1.resid by {{vec}}", ["--set", "vec=[1,"], ["this is no JSON"]),
    (f"{STORE}ablat L1", [], ['no verb "ablat"  (line 4, column 1)', "  | ^^^^^", "ablate"]),
    (f"{STORE}zero L99.mlp", [], ["(line 4, column", "4 | zero L99.mlp"]),
    (f"{STORE}zero L1.mlp\nzero L2..3\nablat L1", [], ["(line 5,", "(line 6,"]),
])  # fmt: skip
def test_mistakes_in_a_spec_are_shown_where_they_stand(spec, capsys, text, words, lines):
    file = spec(text)
    assert main(["run", file, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"hooklab: in {file}:\n")
    assert [line for line in lines if line not in captured.err] == []


@pytest.mark.parametrize(("words", "text"), [
    (["nowhere.hook"], "There is no file nowhere.hook."),
    (["{spec}", "--model", "./nowhere"], "There is no folder"),
    (["{spec}", "--dtype", "float7"], 'no dtype "float7"'),
    (["{spec}", "--device", "abacus"], 'no device "abacus"'),
    (["{binary}"], "is no text in UTF-8"),
    (["{folder}"], "could not be read"),
])  # fmt: skip
def test_other_mistakes_are_one_line(spec, tmp_path, capsys, words, text):
    (tmp_path / "binary.hook").write_bytes(b"\xff\xfe\x00")
    places = {"spec": spec(STORE), "binary": str(tmp_path / "binary.hook"), "folder": str(tmp_path)}
    assert main(["run", *(word.format(**places) for word in words)]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1


def test_a_claim_that_fails_is_status_one(spec, capsys):
    assert main(["run", spec(f"{STORE}expect main.logit_diff > 1000")]) == 1
    assert "HookExpectError" in capsys.readouterr().err


def test_a_plan_runs_nothing(spec, capsys, monkeypatch):
    from hooklab.model.model import Model

    monkeypatch.setattr(Model, "run", lambda *_, **__: pytest.fail("it ran"))
    assert main(["run", spec(f"{STORE}zero L2H0"), "--plan"]) == 0
    assert "hooked" in capsys.readouterr().out
    assert main(["run", spec(f"{STORE}zero L2H0"), "--plan", "--json"]) == 0
    assert "hooked" in json.loads(capsys.readouterr().out)["plan"]


def test_the_model_is_the_lines_then_the_specs(spec, tmp_path, capsys):
    text = f'model "./nowhere" dtype=bfloat16\n{STORE}'
    assert main(["run", spec(text)]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["run", spec(f'model "lab" dtype=bfloat16\n{STORE}'), "--json"]) == 0
    assert "bfloat16" in json.dumps(json.loads(capsys.readouterr().out)["provenance"])


def test_being_stopped_is_status_130(spec, monkeypatch):
    from hooklab.model.model import Model

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "run", stop)
    assert main(["run", spec(STORE)]) == 130


def test_from_a_shell_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    file = tmp_path / "x.hook"
    file.write_bytes(("\ufeff" + STORE + "zero L2H0").replace("\n", "\r\n").encode())
    done = subprocess.run([sys.executable, "-m", "hooklab", "run", str(file), "--json"], capture_output=True, text=True,
                          check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["metrics"]["hooked"]["logit_diff"] > 0


@pytest.mark.parametrize("example", [example for section in SECTIONS.values() for example in section.examples],
                         ids=[section.name for section in SECTIONS.values() for _ in section.examples])
def test_every_example_of_the_reference_runs_on_the_shipped_model(example, typed, capsys):
    typed(example)
    assert main(["run", "-", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["spec"] == example
