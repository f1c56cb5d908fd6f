"""`%%hook` and `%hook` in a real IPython shell: results, errors, names, files, completions, and what is left behind."""

from __future__ import annotations

import json
import re
import signal
import sys
import warnings

import pytest
import torch
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import hooklab as hl
from hooklab.errors import HooklabError, HooklabWarning
from hooklab.magics import loaded
from hooklab.problems import Problem, SpecError
from hooklab.progress import Progress
from hooklab.records import compare

STORE = 'prompt "When Mary and John went to the store, John gave a drink to"\nanswer " Mary" vs " John"\nmetric logit_diff\n'
TINY = 'prompt "a"\n'


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delattr("builtins._", raising=False)  # doctests leave it there, and IPython then sets none of its own
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    made.Completer.use_jedi = False
    hook, traceback = sys.displayhook, sys.excepthook
    yield made
    sys.displayhook, sys.excepthook = hook, traceback
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def ip(shell, lab):
    shell.run_cell("%load_ext hooklab")
    shell.user_ns["lab"] = lab
    return shell


class Fake:
    """Stands for a model: it remembers what it was asked to run."""

    __module__ = "hooklab.model.model"

    def __init__(self, result="ran", error=None):
        self.result, self.error, self.asked = result, error, []

    def run(self, spec, *, values=None, progress=None):
        self.asked.append((str(spec), values))
        if progress:
            for done in range(5):
                progress(done, 5, "hooked")
        if self.error is not None:
            raise self.error
        return self.result

    def plan(self, spec, *, values=None):
        return ("the plan", str(spec), values)


Fake.__qualname__ = Fake.__name__ = "Model"


def run(ip, cell, capsys=None):
    """The result of a cell, or its error and what was shown of it."""
    if capsys is not None:
        capsys.readouterr()
    done = ip.run_cell(cell)
    if capsys is None:
        if done.error_in_exec or done.error_before_exec:
            raise done.error_in_exec or done.error_before_exec
        return done.result
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)


# Loading -------------------------------------------------------------------------------------------------------------


def state(shell):
    return {"magics": {kind: dict(table) for kind, table in shell.magics_manager.magics.items()},
            "registry": dict(shell.magics_manager.registry), "configurables": list(shell.configurables),
            "matchers": list(shell.Completer.custom_matchers), "names": set(shell.user_ns),
            "events": {name: list(calls) for name, calls in shell.events.callbacks.items()},
            "transforms": [list(shell.input_transformers_cleanup), list(shell.input_transformers_post)]}


def test_nothing_is_left_behind(shell):
    before = state(shell)
    hl.load_ipython_extension(shell)
    assert "hook" in shell.magics_manager.magics["cell"]
    hl.unload_ipython_extension(shell)
    assert state(shell) == before
    hl.unload_ipython_extension(shell)
    assert state(shell) == before


def test_loading_twice_changes_nothing_more(shell):
    hl.load_ipython_extension(shell)
    once = state(shell)
    hl.load_ipython_extension(shell)
    twice = state(shell)
    assert len(twice["matchers"]) == len(once["matchers"])
    assert len(twice["configurables"]) == len(once["configurables"])
    hl.unload_ipython_extension(shell)
    assert "hook" not in shell.magics_manager.magics["line"]


def test_the_three_commands_of_ipython(shell):
    for line in ("%load_ext hooklab", "%load_ext hooklab", "%reload_ext hooklab"):
        run(shell, line)
    assert len(shell.Completer.custom_matchers) == 1
    run(shell, "%unload_ext hooklab")
    assert shell.Completer.custom_matchers == []
    assert "not found" in str(shell.run_cell("%%hook\nzero L1").error_in_exec)


def test_a_magic_of_the_same_name_comes_back(shell):
    shell.register_magic_function(lambda line: "mine", magic_name="hook")
    hl.load_ipython_extension(shell)
    hl.unload_ipython_extension(shell)
    assert shell.run_line_magic("hook", "") == "mine"


def test_importing_hooklab_loads_no_ipython():
    import subprocess

    code = "import sys, hooklab; sys.exit(any(name in sys.modules for name in ('IPython', 'torch', 'lark')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Results -------------------------------------------------------------------------------------------------------------


def test_a_cell_gives_what_the_model_gives(ip, lab):
    result = run(ip, f"%%hook lab\n{STORE}zero L2H0")
    assert compare(result, lab.run(f"{STORE}zero L2H0")).same
    assert ip.user_ns["_"] is result
    assert result.metrics["main"]["logit_diff"] != result.metrics["hooked"]["logit_diff"]


def test_a_result_is_kept_under_its_name_and_shown(ip, capsys):
    shown = run(ip, f"%%hook lab -o kept\n{STORE}", capsys)
    assert "Run · main" in shown
    assert ip.user_ns["kept"].metrics["main"]["logit_diff"] > 0


def test_quiet_shows_nothing_and_keeps_the_result(ip, capsys):
    assert run(ip, f"%%hook lab -q -o kept\n{STORE}", capsys) == ""
    assert ip.user_ns["kept"].metrics["main"]["logit_diff"] > 0


def test_instead_of_running(ip):
    fake = ip.user_ns["m"] = Fake()
    assert run(ip, f"%%hook m --plan\n{TINY}zero L1.mlp") == ("the plan", str(hl_parse(f"{TINY}zero L1.mlp")), {})
    data = json.loads(run(ip, f"%%hook m --json\n{TINY}zero L1.mlp"))
    assert [line["kind"] for line in data["body"]] == ["prompt", "zero"]
    assert "keep the result" in run(ip, "%%hook -h\nx")
    assert fake.asked == []


def hl_parse(text):
    from hooklab.spec.parser import parse

    return parse(text)


def test_code_is_the_same_experiment_as_text(ip):
    pytest.importorskip("hooklab.code")
    code = run(ip, f"%%hook lab --code\n{STORE}zero L2H0")
    compile(code, "code", "exec")
    assert repr(code) == str(code)


# Models --------------------------------------------------------------------------------------------------------------


def test_a_model_is_a_variable_or_a_name_and_then_the_last_one(ip):
    a, b = ip.user_ns["a"], ip.user_ns["b"] = Fake(), Fake()
    del ip.user_ns["lab"]
    run(ip, f"%%hook b\n{TINY}")
    run(ip, f"%%hook\n{TINY}")
    run(ip, f"%%hook a\n{TINY}")
    run(ip, f"%%hook\n{TINY}")
    assert (len(a.asked), len(b.asked)) == (2, 2)


def test_the_only_model_of_the_notebook_is_taken(ip):
    del ip.user_ns["lab"]
    only = ip.user_ns["only"] = Fake()
    run(ip, f"%%hook\n{TINY}")
    assert len(only.asked) == 1


def test_two_models_are_a_question(ip, capsys):
    ip.user_ns.update(a=Fake(), b=Fake())
    del ip.user_ns["lab"]
    shown = run(ip, f"%%hook\n{TINY}", capsys)
    assert "which model: a or b?" in shown
    assert "hint: name it: %%hook b" in shown


def test_without_any_model_it_is_the_shipped_one_and_opened_once(ip):
    del ip.user_ns["lab"]
    run(ip, f"%%hook\n{STORE}")
    session = loaded(ip).session
    first = session.last
    assert first.facts.family == "gpt2"
    run(ip, f"%%hook lab\n{STORE}")
    assert session.last is first


def test_a_spec_names_its_model(ip):
    ip.user_ns["a"] = Fake()
    run(ip, f"%%hook a\n{TINY}")
    result = run(ip, f'%%hook\nmodel "lab" dtype=float32\n{STORE}')
    assert result.metrics["main"]["logit_diff"] > 0


def test_a_closed_model_is_not_used(ip, capsys):
    gone = ip.user_ns["gone"] = Fake()
    run(ip, f"%%hook gone\n{TINY}")
    gone._closed = True
    assert "gone was closed" in run(ip, f"%%hook gone\n{TINY}", capsys)
    with pytest.warns(HooklabWarning, match="gone, the model used last, was closed, so this runs on lab"):
        run(ip, f"%%hook\n{STORE}")
    assert len(gone.asked) == 1


def test_a_closed_model_is_not_replaced_by_the_shipped_one(ip, capsys):
    del ip.user_ns["lab"]
    gone = ip.user_ns["gone"] = Fake()
    run(ip, f"%%hook\n{TINY}")
    gone._closed = True
    shown = run(ip, f"%%hook\n{TINY}", capsys)
    assert "gone, the model used last, was closed" in shown and "open it again, or name another: %%hook lab" in shown
    ip.user_ns["gone"] = again = Fake()
    run(ip, f"%%hook\n{TINY}")
    assert (len(gone.asked), len(again.asked)) == (1, 1)


@pytest.mark.parametrize("line", ["", " mine"])
def test_a_variable_that_holds_another_model_by_now_gives_that_one(ip, line):
    first, second = Fake(), Fake()
    ip.user_ns["mine"] = first
    run(ip, f"%%hook mine\n{TINY}")
    ip.user_ns["mine"] = second
    run(ip, f"%%hook{line}\n{TINY}")
    assert (len(first.asked), len(second.asked)) == (1, 1)
    del ip.user_ns["mine"]
    run(ip, f"%%hook\n{TINY}")
    assert len(second.asked) == 2


@pytest.mark.parametrize(("line", "message", "caret"), [
    ("vec", "vec is no model but of type list", "%%hook vec|       ^^^"),
    ("labb", "did you mean `lab`?", "%%hook labb|       ^^^^"),
    ("./nowhere", "There is no folder", ""),
])  # fmt: skip
def test_what_is_no_model(ip, capsys, line, message, caret):
    ip.user_ns["vec"] = [1]
    shown = run(ip, f"%%hook {line}\n{TINY}", capsys)
    assert message in shown
    assert all(part in shown for part in caret.split("|"))
    assert "Traceback" not in shown


# Python between braces -----------------------------------------------------------------------------------------------


def test_braces_hold_the_notebooks_own_objects(ip):
    fake, vec = Fake(), object()
    ip.user_ns.update(m=fake, vec=vec, calls=[], scale=2)
    run(ip, "%%hook m\n" + TINY + "steer L1.resid by {vec}\nsteer L2.resid @{[scale, scale + 1]} by {calls.append(1)}\n"
                                  "steer L0.resid by {vec} + {calls.append(1)}")
    values = fake.asked[0][1]
    assert values["vec"] is vec
    assert values["[scale, scale + 1]"] == [2, 3]
    assert ip.user_ns["calls"] == [1]


def test_a_function_in_braces_sees_the_notebook_later_too(ip):
    fake = ip.user_ns["m"] = Fake()
    ip.user_ns["k"] = 5
    run(ip, f"%%hook m\n{TINY}metric {{lambda out: [out * k for _ in range(2)]}}")
    assert next(iter(fake.asked[0][1].values()))(3) == [15, 15]


def test_braces_that_fail_are_shown_together(ip, capsys):
    ip.user_ns.update(m=Fake(), vect=1)
    shown = run(ip, f"%%hook m\n{TINY}steer L1.resid by {{vec}}\nsteer L2.resid by 2 * {{1 / 0}}", capsys)
    assert shown == """\
HookValueError: NameError: name 'vec' is not defined  (line 3, column 19)
  2 | prompt "a"
  3 | steer L1.resid by {vec}
    |                   ^^^^^
hint: did you mean `vect`?

HookValueError: ZeroDivisionError: division by zero  (line 4, column 23)
  3 | steer L1.resid by {vec}
  4 | steer L2.resid by 2 * {1 / 0}
    |                       ^^^^^^^
hint: run the expression in a cell of its own to see more
"""
    assert ip.user_ns["m"].asked == []


def test_a_failure_inside_a_function_says_where(ip, capsys):
    ip.user_ns["m"] = Fake()
    run(ip, "def direction(word):\n    return word['up']")
    shown = run(ip, f"%%hook m\n{TINY}steer L1.resid by {{direction({{}})}}", capsys)
    assert "KeyError: 'up'" in shown
    assert "it happened in direction(), line 2" in shown


def test_nothing_of_the_magic_can_be_seen_from_braces(ip, capsys):
    ip.user_ns["m"] = Fake()
    assert "name 'spec' is not defined" in run(ip, f"%%hook m\n{TINY}steer L1.resid by {{spec}}", capsys)


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_mistake_in_a_cell_prints_its_own_lines_only(ip, capsys):
    shown = run(ip, f"%%hook lab\n{STORE}ablat L1", capsys)
    assert shown.startswith('HookNameError: no verb "ablat"  (line 5, column 1)\n  4 | metric logit_diff\n  5 | ablat L1\n'
                            "    | ^^^^^\n")
    assert "Traceback" not in shown


def test_a_mistake_that_only_the_model_sees_counts_lines_the_same(ip, capsys):
    shown = run(ip, f"%%hook lab\n{STORE}zero L77.mlp", capsys)
    assert "(line 5, column " in shown
    assert "5 | zero L77.mlp" in shown
    assert "Traceback" not in shown


def test_a_claim_that_fails_is_an_error(ip, capsys):
    shown = run(ip, f"%%hook lab\n{STORE}expect main.logit_diff > 1000", capsys)
    assert "HookExpectError" in shown
    assert "5 | expect main.logit_diff > 1000" in shown


@pytest.mark.parametrize(("line", "message", "column", "width", "hint"), [
    ("--pln", "no option --pln", 8, 5, "did you mean `--plan`?"),
    ("lab -o", "-o needs a name", 12, 2, "as in -o NAME"),
    ("-o 3x", "'3x' cannot name a variable", 11, 2, "letters"),
    ("-o class", "'class' cannot name a variable", 11, 5, "letters"),
    ("a b", "'b' is one word too many", 10, 1, "MODEL"),
    ("--plan --code", "--plan and --code are two different things", None, None, "choose one"),
    ("-q -q", "-q is given twice", 11, 2, ""),
    ("--quiet=yes", "--quiet takes no value", 8, 11, "write --quiet"),
])  # fmt: skip
def test_a_mistake_in_the_first_line(ip, capsys, line, message, column, width, hint):
    shown = run(ip, f"%%hook {line}\n{TINY}", capsys)
    assert message in shown
    assert f"  1 | %%hook {line}\n" in shown
    if column is not None:
        assert f"(line 1, column {column})" in shown
        assert f"    | {' ' * (column - 1)}{'^' * width}\n" in shown
    assert hint in shown
    assert "usage" not in shown.lower()


def test_any_error_of_hooklab_is_shown_without_a_traceback(ip, capsys):
    ip.user_ns["m"] = Fake(error=HooklabError("the model said\nno"))
    assert run(ip, f"%%hook m\n{TINY}", capsys) == "HooklabError: the model said\nno\n"


def test_a_bug_shows_where_it_is(ip, capsys):
    ip.user_ns["m"] = Fake(error=RuntimeError("a bug"))
    shown = run(ip, f"%%hook m\n{TINY}", capsys)
    assert "Traceback" in shown
    assert "RuntimeError: a bug" in shown


def test_the_error_is_the_one_that_python_sees(ip):
    ip.user_ns["m"] = Fake(error=SpecError([Problem("value", "bad", 1, 1)], TINY))
    done = ip.run_cell(f"%%hook m\n{TINY}")
    assert isinstance(done.error_in_exec, SpecError)
    assert done.error_in_exec.problems[0].line == 1
    assert done.error_in_exec.offset == 1


def test_an_empty_cell_says_what_to_write(ip, capsys):
    assert "this cell is empty" in run(ip, "%%hook lab\n  \n", capsys)


def test_stopping_is_one_line_and_stops_the_rest(ip, capsys):
    ip.user_ns["m"] = Fake(error=KeyboardInterrupt())
    done = ip.run_cell(f"%%hook m -o kept\n{TINY}")
    assert isinstance(done.error_in_exec, KeyboardInterrupt)
    assert capsys.readouterr().out == "Interrupted: nothing was kept from this cell. The model is as it was.\n"
    assert "kept" not in ip.user_ns


def test_stopping_a_real_run_leaves_the_model_as_it_was(ip, lab):
    before = lab.run(f"{STORE}zero L2H0")
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    original, handler = Progress.__call__, signal.signal(signal.SIGINT, signal.default_int_handler)
    Progress.__call__ = lambda self, *args: stop(*args)
    try:
        done = ip.run_cell(f"%%hook lab\n{STORE}zero each L*H*\nshow grid")
    finally:
        Progress.__call__ = original
        signal.signal(signal.SIGINT, handler)
    assert isinstance(done.error_in_exec, KeyboardInterrupt)
    assert compare(lab.run(f"{STORE}zero L2H0"), before).same


def test_warnings_are_still_warnings(ip):
    fake = ip.user_ns["m"] = Fake()
    fake.run = lambda spec, **_: warnings.warn("take care", HooklabWarning, stacklevel=2)
    with pytest.warns(HooklabWarning, match="take care"):
        run(ip, f"%%hook m\n{TINY}")


# Progress ------------------------------------------------------------------------------------------------------------


def clocked(times):
    shown = []
    progress = Progress(lambda line, done, total: shown.append(line), iter(times).__next__)
    return progress, shown


def test_quick_work_shows_no_progress():
    progress, shown = clocked([0.0, 0.1, 0.2, 0.3])
    for done in range(3):
        progress(done, 100)
    progress.close()
    assert shown == []


def test_long_work_shows_one_line_that_goes_away():
    progress, shown = clocked([0.0, 0.5, 0.55, 0.7])
    for done in range(3):
        progress(done, 9, "hooked")
    progress.close()
    assert shown == ["0 % · hooked", "22 % · hooked · about 2 s left", ""]


def test_progress_in_a_notebook_is_one_output_and_empty_at_the_end(ip, monkeypatch):
    from hooklab import progress

    sent = []
    monkeypatch.setattr(progress, "QUIET_FOR", -1)
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(ip.display_pub, "publish", lambda data, metadata=None, **more: sent.append((data, more)))
    ip.kernel = object()
    ip.user_ns["m"] = Fake(error=HooklabError("even when it fails"))
    try:
        ip.run_cell(f"%%hook m\n{TINY}")
    finally:
        del ip.kernel
    idents = {more["transient"]["display_id"] for _, more in sent}
    assert len(idents) == 1
    assert [more["update"] for _, more in sent] == [False] + [True] * (len(sent) - 1)
    assert "<progress value='0' max='5'>" in sent[0][0]["text/html"]
    assert set(sent[-1][0].values()) == {""}


# The line magic ------------------------------------------------------------------------------------------------------


def test_a_cell_is_saved_with_a_header_and_runs_from_there(ip, tmp_path):
    cell = f"{STORE}# my note\nzero L2H0"
    first = run(ip, f"%%hook lab\n{cell}")
    run(ip, "%hook save mine")
    text = (tmp_path / "mine.hook").read_text(encoding="utf-8")
    assert text.startswith(f"# hook language 1, saved by hooklab {hl.__version__}\n# ran under: Python ")
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert "# model: lab, Model(gpt2: " in text
    assert text.endswith(cell + "\n")
    again = run(ip, "%hook run mine.hook lab -o again")
    assert again.metrics == first.metrics
    assert ip.user_ns["again"] is again
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_saving_never_replaces_a_file_unless_told_to(ip, tmp_path, capsys):
    ip.user_ns["m"] = Fake()
    (tmp_path / "mine.hook").write_text("theirs")
    run(ip, f"%%hook m\n{TINY}")
    assert "to replace it add --force" in run(ip, "%hook save mine.hook", capsys)
    assert (tmp_path / "mine.hook").read_text() == "theirs"
    run(ip, "%hook save mine.hook --force")
    assert 'prompt "a"' in (tmp_path / "mine.hook").read_text()


def test_a_saved_header_is_written_once(ip, tmp_path):
    ip.user_ns["m"] = Fake()
    run(ip, f"%%hook m\n{TINY}")
    run(ip, "%hook save one.hook")
    run(ip, "%hook run one.hook m")
    run(ip, "%hook save two.hook")
    assert (tmp_path / "two.hook").read_text() == (tmp_path / "one.hook").read_text()


def test_loading_puts_a_cell_and_runs_nothing(ip, tmp_path):
    fake = ip.user_ns["m"] = Fake()
    (tmp_path / "x.hook").write_text('prompt {open("pwned", "w")}\n')
    inputs = []
    ip.set_next_input = lambda text, replace=False: inputs.append((text, replace))
    run(ip, "%hook load x.hook")
    assert inputs == [('%%hook\nprompt {open("pwned", "w")}', False)]
    assert fake.asked == []
    assert not (tmp_path / "pwned").exists()


def test_a_file_never_runs_python(ip, tmp_path, capsys):
    fake = ip.user_ns["m"] = Fake()
    (tmp_path / "x.hook").write_text('prompt "a"\nsteer L1.resid by {open("pwned", "w")}\n')
    shown = run(ip, "%hook run x.hook m", capsys)
    assert shown.startswith("in x.hook:\nHookValueError: no value for {open(")
    assert "2 | steer" in shown
    assert not (tmp_path / "pwned").exists()
    assert fake.asked == []


def test_a_file_takes_its_values_from_the_line(ip, tmp_path):
    fake = ip.user_ns["m"] = Fake()
    ip.user_ns["vec"] = "the notebook's own"
    (tmp_path / "x.hook").write_text('prompt "a"\nsteer L1.resid by {vec} * {k}\n')
    assert run(ip, "%hook run x.hook m --set 'vec=[1, 2.5]' --set k=3") == "ran"
    assert fake.asked[0][1] == {"vec": [1, 2.5], "k": 3}


@pytest.mark.parametrize(("line", "message"), [
    ("%hook run", "run needs a file"),
    ("%hook run nope.hook", "there is no file nope.hook"),
    ("%hook run x.hok", "a spec file ends in .hook, not in .hok"),
    ("%hook run exs.hook", "did you mean x.hook?"),
    ("%hook run x.hook m --set vec", "--set takes name=value"),
    ("%hook run x.hook m --set vex=1", "did you mean `vec`?"),
    ("%hook run x.hook m --set vec=[1", "this is no JSON"),
    ("%hook replay x", "'x' is no number of a cell"),
    ("%hook replay 7", "no %%hook cell has run yet"),
    ("%hook json", "no %%hook cell has run yet"),
    ("%hook save y.hook", "no %%hook cell has run yet"),
    ("%hook sve", "did you mean `save`?"),
    ("%hook sites 3", "write L0, L-1 or L*"),
    ("%hook help nonsuch", "no help on 'nonsuch'"),
])  # fmt: skip
def test_mistakes_in_the_line_magic(ip, tmp_path, capsys, line, message):
    ip.user_ns["m"] = Fake()
    (tmp_path / "x.hook").write_text('prompt "a"\nsteer L1.resid by {vec}\n')
    shown = run(ip, line, capsys)
    assert message in shown
    assert "Traceback" not in shown


def test_json_of_the_last_cell_is_the_cell(ip):
    ip.user_ns["m"] = Fake()
    run(ip, f"%%hook m\n{TINY}zero L1.mlp @last")
    data = json.loads(run(ip, "%hook json"))
    assert hl_spec().from_json(data) == hl_parse(f"{TINY}zero L1.mlp @last")


def hl_spec():
    from hooklab.spec.ast import Spec

    return Spec


def test_history_and_replay(ip):
    run(ip, f"%%hook lab\n# a note\n{STORE}zero L2H0")
    run(ip, f"%%hook lab -q\n{STORE}noise L0.resid by 0.5")
    history = run(ip, "%hook history")
    first, second = repr(history).split("\n")[1:]
    assert first.startswith('1     prompt "When Mary')
    assert re.search(r"main\.logit_diff \d", first)
    assert second.startswith("2 ")
    assert "<table>" in history._repr_html_()
    assert run(ip, "%hook replay").same
    assert run(ip, "%hook replay 1").same


def test_a_replay_has_the_values_that_the_cell_had(ip):
    ip.user_ns["k"] = 0.0
    run(ip, f"%%hook lab\n{STORE}scale L1.mlp by {{k}}")
    ip.user_ns["k"] = 1.0
    assert run(ip, "%hook replay").same


def test_help_verbs_and_sites(ip, lab):
    assert "each" in run(ip, "%hook help")
    assert "noise PLACES" in repr(run(ip, "%hook verbs"))
    assert "patch each L*.resid" in run(ip, "%hook patch")
    assert "%hook replay" in run(ip, "%hook")
    run(ip, f"%%hook lab -q\n{STORE}")
    rows = run(ip, "%hook sites L1").rows
    assert [row[0] for row in rows] == [f"L1.{name}" for name in lab.sites if name not in
                                        ("embed", "pos_embed", "ln_final_scale", "ln_final", "logits")]
    assert len(run(ip, "%hook sites").rows) == len(hl.SITES)


def test_a_question_mark_shows_the_help(ip, capsys):
    assert "--output, -o NAME" in run(ip, "%%hook?", capsys)


def test_what_a_table_shows_is_escaped(ip):
    from hooklab.magics.show import Table

    assert "<script>" not in Table(("a",), [("<script>",)])._repr_html_()


# Completion ----------------------------------------------------------------------------------------------------------


def completed(ip, text):
    """Texts and kinds offered where `|` stands."""
    cursor = text.index("|")
    with provisionalcompleter():
        found = list(ip.Completer.completions(text.replace("|", "", 1), cursor))
    assert all(one.end == cursor for one in found)
    return {one.text: one.type for one in found}


@pytest.mark.parametrize(("text", "there"), [
    ("%%hook lab\npr|", {"prompt": "verb", "project_out": "verb"}),
    ("%%hook lab\nzero L1.res|", {"resid_pre": "part", "result": "part"}),
    ("%%hook lab\nzero L1 @la|", {"last": "position"}),
    ('%%hook lab\nprompt "When Mary went"\nzero L1 @" M|', {' Mary"': "token"}),
    ("%%hook lab\nsteer L1.resid by {vec_|", {"vec_one": "instance", "vec_two": "instance"}),
    ("%%hook lab\nsteer L1.resid by {d.mo|}", {"d.model_size": None}),
    ("%%hook --o|", {"--output": "option"}),
    ("%%hook la|", {"lab": "model"}),
    ("%hook hi|", {"history": "command"}),
    ("%hook help posit|", {"positions": "topic"}),
    ("%hook run x|", {"x.hook": "file"}),
    ("%hook run x.hook la|", {"lab": "model"}),
])  # fmt: skip
def test_completion(ip, tmp_path, text, there):
    (tmp_path / "x.hook").write_text("")
    ip.user_ns.update(vec_one=1, vec_two=2)
    run(ip, "class d: model_size = 3")
    found = completed(ip, text)
    for word, kind in there.items():
        assert any(word.endswith(one.lstrip(".")) for one in found if one)
        if kind and kind != "instance":
            assert found[word] == kind


def test_completion_knows_the_model(ip):
    found = completed(ip, "%%hook lab\nzero L|")
    layers = sorted(word for word in found if re.fullmatch(r"L\d+", word))
    assert layers == [f"L{n}" for n in range(ip.user_ns["lab"].facts.n_layers)]


def test_other_cells_complete_as_ever(ip):
    ip.user_ns["prompting"] = 1
    assert "prompting" in completed(ip, "promp|")
    assert "prompt" not in completed(ip, "promp|")
    assert "%%hook" in completed(ip, "%%hoo|")


@pytest.mark.parametrize("text", ['%%hook lab\nprompt "|', "%%hook lab\nprompt |", "%%hook lab\nzero L1.nonsuch|",
                                  "%%hook lab -o |", "%%hook lab\nsteer L1 by {nonsuch|", "%%hook lab\nlet pri|"])
def test_where_nothing_fits_nobody_else_answers(ip, tmp_path, text):
    (tmp_path / "file.txt").write_text("")
    assert completed(ip, text) == {}
