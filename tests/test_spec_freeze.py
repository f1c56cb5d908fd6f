"""A spec with the values of its Python: what becomes text, what stays beside it, and the file that holds both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hooklab
from hooklab.problems import SpecError
from hooklab.spec.freeze import Frozen
from hooklab.spec.parser import parse

P = 'prompt "a"\n'


def _said(text, value):
    return f"{text.splitlines()[-1]} = {repr(value)[:30]}"


LITERALS = [
    ("prompt {x}", "hi", 'prompt "hi"'), ("prompt {x}", ["a", 'b"'], 'prompt ["a", "b\\""]'),
    ("prompt {x}", ("a",), 'prompt ["a"]'),
    (P + "answer {x} vs {x}", " b", P + 'answer " b" vs " b"'),
    (P + "steer L0.resid by {x}", 2, P + "steer L0.resid_post by 2"),
    (P + "steer L0.resid by 4 * {x} - unit({x})", -0.5, P + "steer L0.resid_post by 4 * -0.5 - unit(-0.5)"),
    (P + "steer L0.resid by -{x}", 1e-7, P + "steer L0.resid_post by -1e-07"),
    (P + "let v = {x}", -0.0, P + "let v = -0.0"),
    (P + "scale L0H1 by each {x}", [0, -1, 2.5], P + "scale L0H1 by each [0, -1, 2.5]"),
    (P + "sweep c in {x}", range(3), P + "sweep c in [0, 1, 2]"),
    (P + "sweep c in {x}", ["a", 1], P + 'sweep c in ["a", 1]'),
    (P + "save L0.resid @{x}", -1, P + "save L0.resid_post @-1"),
    (P + "save L0.resid @{x}", [0, -1], P + "save L0.resid_post @[0, -1]"),
    (P + "save L0.resid @{x}", np.array([0, 2]), P + "save L0.resid_post @[0, 2]"),
    (P + "save L0.resid @{x}", slice(1, None), P + "save L0.resid_post @1:"),
    (P + "save L0.resid @[0, {x}]", "last", P + "save L0.resid_post @[0, last]"),
    (P + "mark m = {x}", "first(2)", P + "mark m = first(2)"),
    (P + "generate 3 temperature={x}", 0.5, P + "generate 3 temperature=0.5"),
    (P + "generate 3 stop={x}", "b", P + 'generate 3 stop="b"'),
    (P + "generate 3 stream={x}", True, P + "generate 3 stream=true"),
    (P + "clamp L0N1 min={x}", -3, P + "clamp L0N1 min=-3"),
    ("prompt y = repeat_random({x}, seed={x})", 4, "prompt y = repeat_random(4, seed=4)"),
    (P + "run on main:\n    steer L0.resid by {x}", 1, P + "run on main:\n    steer L0.resid_post by 1"),
    (P + "sae enc = {x} at L0.resid", "file.safetensors", P + 'sae enc = "file.safetensors" at L0.resid_post'),
]


@pytest.mark.parametrize(("text", "value", "expected"), LITERALS, ids=[_said(*row[:2]) for row in LITERALS])
def test_what_the_language_can_write_becomes_text(text, value, expected):
    frozen = parse(text).freeze({"x": value})
    assert str(frozen.spec) == expected
    assert frozen.values == {}


BESIDE = [
    (P + "steer L0.resid by {x}", [0.5, 1.0]), (P + "steer L0.resid by {x}", float("nan")),
    (P + "steer L0.resid by {x}", 10**30),
    (P + "patch L0.resid from {x}", "file"), (P + "zero {x}", ["L0H1", "L1H0"]), ("prompt {x}", [[1, 2], [3, 4]]),
    (P + "sweep c in {x}", [[1], [2]]), (P + "sweep c in {x}", list(range(5000))),
    ("prompt {x} chat=true", [{"role": "user", "content": "a"}]),
    (P + "prompt b = {x}", {1: (2, None, True)}), (P + "save L0.resid @{x}", "} odd"),
]


@pytest.mark.parametrize(("text", "value"), BESIDE, ids=[_said(*row) for row in BESIDE])
def test_what_it_cannot_write_stays_beside_and_survives_the_file(text, value, tmp_path):
    spec = parse(text)
    frozen = spec.freeze({"x": value})
    assert frozen.spec == spec
    again = Frozen.load(frozen.save(tmp_path / "a.npz"))
    assert again.spec == spec and repr(again.values) == repr({"x": value})
    assert again.digest == frozen.digest


ARRAYS = [
    np.arange(6, dtype=np.float16).reshape(2, 3), np.array([True, False]), np.array(["é", "b"]), np.float32(0.1),
    np.zeros((0, 3)),
    np.array([1 + 2j]), np.arange(6).reshape(2, 3).T,
    torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(2),
    torch.randn(2, 3).T,
    torch.ones(2, requires_grad=True), torch.zeros(0, 4), torch.tensor([[1.0, 2.0]], dtype=torch.float16),
    torch.tensor([True]),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: f"{type(value).__name__} {value.dtype} {tuple(value.shape)}")
def test_arrays_come_back_exactly(value, tmp_path):
    frozen = parse(P + "steer L0.resid by {x}").freeze({"x": value})
    back = Frozen.load(frozen.save(tmp_path / "a.npz")).values["x"]
    assert isinstance(back, torch.Tensor) == isinstance(value, torch.Tensor)
    assert (back.dtype, tuple(back.shape)) == (value.dtype, tuple(value.shape))
    assert torch.equal(back, value.detach()) if isinstance(back, torch.Tensor) else np.array_equal(back, value)


@pytest.mark.parametrize(("values", "said"), [
    ({}, "{x} has no value"), ({"x": 1, "y": 2}, "no hole of this spec is {y}"), ({"x": 1, "x1": 2}, "did you mean x?"),
    ({"x": len}, "cannot be stored"), ({"x": object()}, "cannot be stored"), ({"x": [torch]}, "cannot be stored"),
])
def test_values_that_do_not_fit_are_refused(values, said):
    with pytest.raises(SpecError) as error:
        parse(P + "steer L0.resid by {x}").freeze(values)
    assert said in str(error.value)


def test_a_missing_value_stands_under_its_braces():
    with pytest.raises(SpecError) as error:
        parse(P + "steer L0.resid by 2 * {f(a)}").freeze({})
    (problem,) = error.value.problems
    assert (problem.line, problem.column, problem.width) == (2, 23, 6)


def test_a_spec_that_the_values_make_wrong_is_refused():
    with pytest.raises(SpecError, match="1 or more"):
        parse("prompt x = repeat_random({n})").freeze({"n": 0})


def test_frozen_values_run_as_those_given(tmp_path):
    lab = hooklab.load("lab")
    text = 'prompt "The capital of France is"\nmetric entropy\nsave L1.resid @{where} as kept\nsteer L0.resid by {k} * {v}'
    values = {"k": 2.0, "v": torch.linspace(-1, 1, lab.facts.d_model), "where": [0, -1]}
    plain = lab.run(text, values=values)
    frozen = Frozen.load(parse(text).freeze(values).save(tmp_path / "a.npz"))
    again = lab.run(frozen.spec, values=frozen.values)
    assert set(frozen.values) == {"v"} and "{k}" not in str(frozen.spec) and "{where}" not in str(frozen.spec)
    assert torch.equal(torch.as_tensor(plain["kept"]), torch.as_tensor(again["kept"]))
    assert plain.metrics == again.metrics
    assert plain.metrics["hooked"] != plain.metrics["main"]


# The file ---------------------------------------------------------------------------------------------------------------


@pytest.fixture()
def stored(tmp_path):
    return parse(P + "steer L0.resid by {x}").freeze({"x": np.arange(4.0)}).save(tmp_path / "spec")


def test_a_file_is_not_overwritten_unless_asked(stored):
    frozen = parse("prompt {x}").freeze({"x": "b"})
    with pytest.raises(SpecError, match="already"):
        frozen.save(stored)
    frozen.save(stored, overwrite=True)
    assert str(Frozen.load(stored).spec) == 'prompt "b"'
    assert [path.name for path in stored.parent.iterdir()] == ["spec.npz"]


def _rewritten(path: Path, **changed: object) -> None:
    with np.load(path) as file:
        parts = dict(file)
    manifest = json.loads(bytes(parts["manifest"]))
    manifest |= {key: value for key, value in changed.items() if key != "a0"}
    parts |= {"manifest": np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)}
    np.savez(path, **(parts | ({"a0": changed["a0"]} if "a0" in changed else {})))


@pytest.mark.parametrize(("changed", "said"), [
    ({"a0": np.arange(5.0)}, "was changed"), ({"a0": np.arange(4, dtype=np.float32)}, "was changed"),
    ({"text": "lens"}, "was changed"),
    ({"values": {}}, "was changed"), ({"hookfreeze": 2}, "version 2"), ({"arrays": {"a7": ""}}, "no frozen spec"),
    ({"arrays": 3}, "no frozen spec"),
], ids=lambda x: repr(x)[:40])
def test_a_file_that_was_changed_is_refused(stored, changed, said):
    _rewritten(stored, **changed)
    with pytest.raises(SpecError, match=said):
        Frozen.load(stored)


@pytest.mark.parametrize("content", [b"", b"PK", b"no file of arrays", b"\x93NUMPY", b"\x80\x04N."])
def test_a_file_that_is_none_is_refused(stored, content):
    stored.write_bytes(content)
    with pytest.raises(SpecError):
        Frozen.load(stored)


def test_a_file_that_is_cut_short_is_refused(stored):
    whole = stored.read_bytes()
    for end in range(0, len(whole), 97):
        stored.write_bytes(whole[:end])
        with pytest.raises(SpecError):
            Frozen.load(stored)


def test_a_file_that_is_not_there_or_holds_objects_is_refused(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        Frozen.load(tmp_path / "none.npz")
    np.savez(tmp_path / "objects.npz", manifest=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SpecError, match="no frozen spec"):
        Frozen.load(tmp_path / "objects.npz")


def test_python_in_a_file_is_not_run(tmp_path):
    text = P + 'steer L0.resid by {open("made", "w").write("x")}'
    source = 'open("made", "w").write("x")'
    path = parse(text).freeze({source: [1.0]}).save(tmp_path / "a.npz")
    code = f"from hooklab.spec.freeze import Frozen; print(Frozen.load({str(path)!r}).values)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=tmp_path, check=True,
                          env={"PYTHONPATH": str(Path(__file__).parent.parent)})
    assert done.stdout.strip() == repr({source: [1.0]})
    assert not (tmp_path / "made").exists()
