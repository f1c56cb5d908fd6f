"""Versions of code, and functions that are built from them again."""

from __future__ import annotations

import linecache
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from hooklab.bench import Bench, code_of
from hooklab.errors import RecordError
from hooklab.records.exact import same

ROOT = Path(__file__).parent.parent
COUNT = iter(range(10**6))

BASE = """
import functools
import json
import numpy as np

SHIFT = 1
TABLE = {"a": [1, 2]}

def deep(x):
    return x + SHIFT

def helper(x, by=2):
    return deep(x) * by

class Scale:
    factor = 3
    def __call__(self, x):
        return x * self.factor

@functools.lru_cache
def cached(x):
    return x + 10

def entry(x, extra=5):
    "What it does."
    parts = [helper(one) for one in (x, extra)]
    return {"sum": sum(parts), "scaled": Scale()(x), "cached": cached(x), "table": TABLE["a"][0], "np": np.float64(x).item(),
            "text": json.dumps(parts)}
"""


def cell(text, names=None):
    """Run a text as a cell of a notebook is run: under a file name of its own that only linecache knows."""
    file = f"<cell {next(COUNT)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names = {"__name__": "__main__"} if names is None else names
    exec(compile(text, file, "exec"), names)
    return names


def version(text, name="entry"):
    return code_of(cell(text)[name]).version


# Versions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old, new", [
    ("x + SHIFT", "x - SHIFT"), ("SHIFT = 1", "SHIFT = 2"), ("[1, 2]", "[1, 3]"), ("by=2", "by=3"), ("extra=5", "extra=6"),
    ("factor = 3", "factor = 4"), ("x * self.factor", "x + self.factor"), ("x + 10", "x + 11"),
    ("(x, extra)", "(extra, x)"), ("json.dumps", "json.loads"),
    ("SHIFT = 1", "SHIFT = 1.0"), ("SHIFT = 1", "SHIFT = True"), ("@functools.lru_cache\n", ""),
    ("np.float64", "np.float32"),
])
def test_an_edit_of_anything_that_the_function_reads_gives_a_new_version(old, new):
    assert old in BASE
    assert version(BASE.replace(old, new)) != version(BASE)


@pytest.mark.parametrize("old, new", [
    ("def deep", "\n\n# a word\n\ndef deep"), ("x + SHIFT", "(x  +\n        SHIFT)  # again"), ("What it does", "What"),
    ("def entry", "UNUSED = 1\ndef entry"),
    ("x + SHIFT\n", "x + SHIFT\n\ndef nobody(x):\n    return 0\n"),
])
def test_comments_layout_line_numbers_and_other_code_change_no_version(old, new):
    assert version(BASE.replace(old, new)) == version(BASE)


def test_closure_variables_and_the_functions_in_them_count():
    text = """
    def make(scale, inner):
        def entry(x):
            return inner(x) * scale
        return entry
    def inner(x): return x + {0}
    entry = make({1}, inner)
    """
    versions = {version(textwrap.dedent(text).format(a, b)) for a in (1, 2) for b in (3, 4)}
    assert len(versions) == 4


def test_functions_that_call_each_other_and_themselves_have_a_version():
    text = "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - {})\nentry = even"
    assert version(text.format(1)) == version(text.format(1)) != version(text.format(2))


def test_a_set_in_the_code_hashes_alike_in_every_process(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("from hooklab.bench import code_of\ndef f(x):\n    return x in {'a', 'b', 'cde'}, (1, {'q', 'r'})\n"
                      "print(code_of(f).version)\n")
    seen = {subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}).stdout for seed in ("1", "2")}
    assert len(seen) == 1


def test_a_redefinition_in_a_notebook_is_the_current_source():
    """As in a session: the same name, defined again; both are found as they are."""
    names = cell("def entry(x):\n    return x + 1\n")
    old = names["entry"]
    cell("def entry(x):\n    return x + 2\n", names)
    assert "x + 2" in code_of(names["entry"]).source and "x + 1" in code_of(old).source
    assert code_of(names["entry"]).version != code_of(old).version


def test_a_file_that_is_edited_after_it_was_loaded_is_not_taken_for_the_code_that_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"edited{next(COUNT)}"
    file = tmp_path / f"{name}.py"
    file.write_text("def entry(x):\n    return x + 1\n")
    module = __import__(name)
    file.write_text("# moved\n\ndef entry(x):\n    return x + 2\n")
    linecache.checkcache()
    code = code_of(module.entry)
    assert code.nodes[0].about["sure"] is False


def test_helpers_in_a_module_of_the_users_count_by_attribute_and_by_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def versions(body):
        name = f"mine{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(body)
        by_attribute = cell(f"import {name} as mine\ndef entry(x):\n    return mine.scale(x)\n")["entry"]
        assert by_attribute(1) is not None
        return code_of(by_attribute).version

    body = "K = 2\ndef scale(x):\n    return x * K\ndef other(x):\n    return 0\n"
    assert versions(body) == versions(body.replace("return 0", "return 1")) != versions(body.replace("K = 2", "K = 3"))
    (tmp_path / "inside.py").write_text("def scale(x):\n    return x\n")
    entry = cell("def entry(x):\n    from inside import scale\n    return scale(x)\n")["entry"]
    before = code_of(entry).version
    (tmp_path / "inside.py").write_text("def scale(x):\n    return -x\n")
    assert code_of(entry).version != before


def test_lambdas_partials_methods_and_decorated_functions_have_versions():
    names = cell("import functools\n"
                 "def keep(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
                 "@keep\ndef one(x):\n    return x + 1\n"
                 "two = functools.partial(one, 3)\nthree, four = (lambda x: x * 2), (lambda x: x * 3)\n"
                 "class A:\n    def __init__(self, k): self.k = k\n    def m(self, x): return x * self.k\n"
                 "five, six = A(1).m, A(2).m\n")
    found = [code_of(names[name]).version for name in ("one", "two", "three", "four", "five", "six")]
    assert len(set(found)) == 6
    assert code_of(names["four"]).source == "lambda x: x * 3"


def test_tensors_count_by_content_and_models_not_at_all():
    names = cell("import torch\nW = torch.arange(3.0)\ndef entry(x):\n    return x @ W\n"
                 "def other(model):\n    return G.sum()\n")
    first = code_of(names["entry"]).version
    names["W"] = torch.arange(3.0)
    assert code_of(names["entry"]).version == first
    names["W"][1] = 7
    assert code_of(names["entry"]).version != first
    names["G"] = torch.nn.Linear(2, 2)
    first = code_of(names["other"])
    names["G"] = torch.nn.Linear(2, 2)
    assert code_of(names["other"]).version == first.version and code_of(names["other"]).models != first.models


def test_a_version_of_a_bench_shows_a_nested_helpers_edit(tmp_path):
    bench = Bench(tmp_path / "b")
    for text in (BASE, BASE.replace("x + SHIFT", "x - SHIFT"), BASE):
        bench.experiment(cell(text)["entry"])(1)
    assert [one.runs for one in bench.versions("entry")] == [2, 1]
    one, two, three = bench.runs("entry")
    assert one.version == three.version != two.version
    assert "-    return x - SHIFT" in bench.diff(two, one).source.splitlines()


# Restoring -------------------------------------------------------------------------------------------------------------


def restored(tmp_path, function, *args, **kwargs):
    """The function restored from what one call of it left behind, in a bench opened anew, and the record."""
    bench = Bench(tmp_path / "b")
    value = bench.experiment(function, name="entry")(*args, **kwargs)
    again = Bench(tmp_path / "b")
    record = again.runs("entry")[-1]
    assert same(record.result, value)
    return again.restore(record.id), record, value


def test_a_function_is_restored_with_its_helpers_and_gives_the_same(tmp_path):
    names = cell(BASE)
    function, record, value = restored(tmp_path, names["entry"], 3)
    names.clear()
    assert same(function(3), value) and function.source == record.source
    assert function.function.__globals__["deep"].__globals__ is function.function.__globals__
    assert code_of(function.function).version == record.version


@pytest.mark.parametrize("text, args", [
    ("def make(a):\n    b = [a]\n    def entry(x, *, k=(1, 2)):\n        return x + b[0] + a + sum(k)\n    return entry\n"
     "entry = make(4)", (3,)),
    ("entry = lambda x, y=2: x * y", (3,)),
    ("def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\nentry = even", (7,)),
    ("def make():\n    def fact(n):\n        return 1 if n < 2 else n * fact(n - 1)\n    return fact\nentry = make()", (5,)),
    ("import functools\ndef base(a, b): return a - b\nhalf = functools.partial(base, b=1)\n"
     "def entry(x): return half(x)", (3,)),
    ("import torch\n@torch.no_grad()\ndef helper(x): return (x * torch.ones(2, requires_grad=True)).requires_grad\n"
     "def entry(x): return helper(x)", (3,)),
    ("from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n    b: int = 2\n"
     "    def total(self): return self.a + self.b\n"
     "def entry(x): return P(x).total()", (3,)),
    ("class A:\n    def go(self, x): return x + 1\nclass B(A):\n    def go(self, x): return super().go(x) * 2\n"
     "def entry(x): return B().go(x)", (3,)),
    ("def entry(x):\n    text = '''one\ntwo'''\n    return text * x", (2,)),
    ("def outer():\n    def entry(x):\n        return '''a\n  b''' * x\n    return entry\nentry = outer()", (2,)),
    ("import numpy as np\nW = np.arange(4).reshape(2, 2)\ndef entry(x): return (W @ W).tolist() + [x]", (2,)),
    ("def entry(x):\n    '''doc'''\n    return [y for y in range(x) if (lambda z: z % 2)(y)]", (5,)),
])
def test_all_kinds_of_functions_are_restored_and_keep_their_version(tmp_path, text, args):
    names = cell(text)
    function, record, value = restored(tmp_path, names["entry"], *args)
    names.clear()
    assert same(function(*args), value)
    assert code_of(function.function).version == record.version


def test_what_is_restored_does_not_see_or_touch_todays_names(tmp_path):
    names = cell("STEP = 1\nSEEN = []\ndef entry(x):\n    SEEN.append(x)\n    return x + STEP, len(SEEN)")
    function, _, _ = restored(tmp_path, names["entry"], 3)
    names["STEP"] = 100
    assert function(3) == (4, 1) and names["SEEN"] == [3]


def test_restoring_refuses_a_model_with_other_weights_unless_forced(tmp_path):
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    bench = Bench(tmp_path / "b")

    def norm(model):
        return model.weight.norm().item()

    wanted = bench.experiment(norm)(one)
    record = bench.runs("norm")[0]
    assert list(record.models) == ["model"] and record.models["model"] in record.arguments["model"]
    function = Bench(bench.folder).restore(record.id)
    assert function(one) == wanted
    with pytest.raises(RecordError, match="other weights"):
        function(other)
    with pytest.raises(RecordError, match="other weights"):
        bench.restore(record.id, model=other)
    assert bench.restore(record.id, force=True)(other) != wanted
    assert bench.rerun(record.id).same  # this process still has the model
    with pytest.raises(RecordError, match="fingerprint .* give it, model="):
        Bench(bench.folder).rerun(record.id)
    assert Bench(bench.folder).rerun(record.id, model=one).same
    forced = Bench(bench.folder).rerun(record.id, model=other, force=True)
    assert not forced.same and forced.differences[0][3] == pytest.approx(abs(norm(other) - wanted))


def test_what_was_not_kept_must_be_given(tmp_path):
    names = cell("import threading\nLOCK = threading.Lock()\ndef entry(x):\n    with LOCK:\n        return x")
    bench = Bench(tmp_path / "b")
    bench.experiment(names["entry"])(3)
    record = bench.runs()[0]
    assert any("LOCK" in one for one in record.lost)
    with pytest.raises(RecordError, match="LOCK .* was not kept as data: give it"):
        bench.restore(record)
    assert bench.restore(record, given={"LOCK": names["LOCK"]})(4) == 4


def test_source_that_is_not_the_code_that_ran_is_not_restored_unasked(tmp_path):
    made = types.FunctionType(compile("x + 1", "<made>", "eval").replace(co_name="made"), {}, "made")
    bench = Bench(tmp_path / "b")
    bench.experiment(lambda: 0, name="fine")()
    names = {"__name__": "__main__"}
    exec("def entry(x):\n    return x", names)
    bench.experiment(names["entry"])(1)
    with pytest.raises(RecordError, match="the source of entry was not to be had"):
        bench.restore(bench.runs("entry")[0])
    assert code_of(made).source == ""


def test_a_code_file_that_was_changed_is_not_run(tmp_path):
    function, record, _ = restored(tmp_path, cell(BASE)["entry"], 3)
    file = tmp_path / "b" / "codes" / f"{record.version}.json"
    file.write_text(file.read_text().replace("return x + SHIFT", "return x - SHIFT"))
    with pytest.raises(RecordError, match="compiles to other code|not what was kept"):
        function.bench.restore(record)
    file.write_text(file.read_text().replace('"SHIFT"', '"TABLE"').replace('"digest": "', '"digest": "0', 1))
    with pytest.raises(RecordError, match="not what was kept"):
        function.bench.restore(record)


# Running again ---------------------------------------------------------------------------------------------------------


def test_a_rerun_says_the_same_and_is_a_run_of_the_same_version(tmp_path):
    bench = Bench(tmp_path / "b")

    @bench.experiment(seed=1)
    def noisy(n, *more, scale=1.0, **rest):
        bench.log("n", n)
        return {"draw": torch.randn(n) * scale, "more": more, "rest": rest}

    noisy(3, torch.ones(2), scale=2.0, k=[1])
    again = Bench(bench.folder).rerun(bench.runs()[0].id)
    assert again.same and bool(again) and "came out the same" in repr(again)
    assert again.new.version == again.old.version and again.new.id != again.old.id
    assert same(again.new.result, again.old.result) and again.new.arguments == again.old.arguments
    assert len(bench.versions("noisy")) == 1 and bench.get(again.new.id).source == again.old.source


def test_a_rerun_says_what_differs_and_by_how_much(tmp_path):
    bench = Bench(tmp_path / "b")
    calls = iter(range(9))

    @bench.experiment
    def drifts(x):
        now = next(calls)
        return {"a": x + 0.25 * now, "t": np.array([1.0, now]), "same": 1, "list": [now] if now else []}

    drifts(1.0)
    record = bench.runs()[0]
    again = bench.rerun(record, given={"calls": calls})
    found = {where: by for where, _, _, by in again.differences if not where.startswith("number")}
    assert not again.same and found["result['a']"] == 0.25 and found["result['t']"] == 1.0
    assert "result['list']" in found and "result['same']" not in found and "No seed was set" in repr(again)
    for wrong in (-1, float("nan"), "a"):
        with pytest.raises(RecordError, match="a tolerance is a number"):
            bench.rerun(record, tolerance=wrong)


def test_a_tolerance_forgives_small_differences_only(tmp_path):
    bench = Bench(tmp_path / "b")
    steps = iter([0.0, 1e-6, 1e-2])

    @bench.experiment
    def drifts():
        return torch.tensor([1.0, float("nan")]) + next(steps)

    drifts()
    record = bench.runs()[0]
    assert bench.rerun(record, tolerance=1e-4, given={"steps": steps}).same
    assert not bench.rerun(record, tolerance=1e-4, given={"steps": steps}).same


def test_a_failure_that_fails_again_is_the_same(tmp_path):
    bench = Bench(tmp_path / "b")

    def fails(x):
        raise ValueError(f"no {x}")

    with pytest.raises(ValueError):
        bench.experiment(fails)(2)
    assert bench.rerun(bench.runs()[0]).same


def test_a_difference_names_code_arguments_environment_and_results(tmp_path):
    bench = Bench(tmp_path / "b")
    for step, seed in ((1, 0), (2, None)):
        text = f"def entry(x, t):\n    return {{'loss': x + {step}, 'kept': 1}}"
        bench.experiment(cell(text)["entry"], seed=seed)(step, torch.ones(2) * step)
    one, two = bench.runs()
    found = bench.diff(one.id, two.id)
    assert "+    return {'loss': x + 2, 'kept': 1}" in found.source.splitlines()
    assert found.arguments["x"] == ("1", "2") and "t" in found.arguments and found.metrics == {"loss": ("2.0", "4.0")}
    assert found.result == {"result['loss']": ("2", "4")} and found.environment == {"seed": ("0", "None")}
    assert not bench.diff(one, one) and "no difference" in repr(bench.diff(one, one))
    assert "<pre>" in found._repr_html_() and "loss" in repr(found)


# Tools -----------------------------------------------------------------------------------------------------------------


def test_tools_are_handed_by_name_in_either_order_of_the_decorators(tmp_path):
    import hooklab as hl

    bench = Bench(tmp_path / "b")

    @bench.experiment
    @bench.uses("lens", "sweep")
    def one(x, sweep, lens):
        return [lens is hl.lens, sweep is hl.sweep, x]

    @bench.uses("lens")
    @bench.experiment
    def two(lens, **rest):
        return callable(lens)

    assert one(1) == [True, True, 1] and two() is True and two(lens=None) is False
    record = bench.runs("one")[0]
    assert list(record.arguments) == ["x"] and set(record.about["tools"]) == {"lens", "sweep"}
    assert bench.rerun(record).same and bench.rerun(bench.runs("two")[0]).same


def test_an_unknown_tool_names_the_nearest(tmp_path):
    bench = Bench(tmp_path / "b")
    with pytest.raises(RecordError, match='no tool .lenss.*Did you mean "lens"'):
        bench.uses("lenss")(lambda lenss: 0)
    with pytest.raises(RecordError, match="has no parameter lens"):
        bench.uses("lens")(lambda x: 0)
    with pytest.raises(RecordError, match="a name of hooklab's own"):
        bench.tool(lambda: 0, name="lens")
    with pytest.raises(RecordError, match="no parameter of"):
        bench.uses(lambda x: x)


def test_own_tools_belong_to_the_version_and_are_restored(tmp_path):
    bench = Bench(tmp_path / "b")
    for by in (2, 3):
        names = cell(f"def scale(x):\n    return x * {by}\n"
                     "class CountsWords:\n    def __init__(self, model): self.model = model\n"
                     "    def __call__(self, text): return len(text.split()) + self.model\n"
                     "def entry(x, scale, counter: CountsWords): return scale(x) + counter('a b')")
        bench.model = 10
        bench.own_tools = {}
        bench.tool(names["scale"])
        bench.tool(names["CountsWords"])
        assert bench.experiment(bench.uses(names["entry"]))(4) == 4 * by + 12
    bench.own_tools = {}
    one, two = bench.runs()
    assert one.version != two.version
    assert bench.restore(one)(4) == 20 and bench.rerun(two).same


def test_tools_of_installed_packages_are_found(tmp_path, monkeypatch):
    package = tmp_path / "plugged_tools-1.2.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-tools\nVersion: 1.2\n")
    (package / "entry_points.txt").write_text("[hooklab.tools]\nplugged = plugged_tools:tripled\nbroken = nowhere:f\n")
    (tmp_path / "plugged_tools.py").write_text("def tripled(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    bench = Bench(tmp_path / "b")
    assert bench.tools()["plugged"] == "plugged_tools:tripled" and bench.tools()["lens"] == "hooklab"
    assert bench.experiment(bench.uses("plugged")(lambda x, plugged: plugged(x)), name="f")(2) == 6
    assert bench.runs("f")[0].about["tools"] == {"plugged": "plugged_tools:tripled of plugged-tools 1.2"}
    with pytest.raises(RecordError, match="the tool broken could not be loaded"):
        bench.uses("broken")(lambda broken: 0)


def test_plots_are_handed_again_when_a_run_is_done_again(tmp_path):
    bench = Bench(tmp_path / "b")

    @bench.plots(heads=(1, 2))
    @bench.experiment
    def drawn(x, heads):
        heads[0, 0].plot([x])
        return heads.size

    drawn(1)
    again = bench.rerun(bench.runs()[0])
    assert again.same and again.new.result == 2 and again.new.figures["heads"].is_file()


