"""Mistakes that were found by using the notebook, the command line and the records, each held by a test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import hooklab as hl
from hooklab import html
from hooklab.cli import main
from hooklab.errors import HooklabWarning, RecordError
from hooklab.magics.commands import usage
from hooklab.problems import Problem, SpecError
from hooklab.records import Run, Scores, ViewRequest, compare

ROOT = Path(__file__).parent.parent
STORE = 'prompt "When Mary and John went to the store, John gave a drink to"\nanswer " Mary" vs " John"\nmetric logit_diff\n'
FAILING = f"{STORE}zero L2H0\nexpect hooked.logit_diff > 300"


@pytest.fixture
def ip(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    shell.Completer.use_jedi = False
    shell.run_cell("%load_ext hooklab")
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def shown(ip, cell, capsys):
    """What a cell prints, without colours."""
    capsys.readouterr()
    ip.run_cell(cell)
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)


# The cell ------------------------------------------------------------------------------------------------------------


def test_other_lines_that_a_message_mentions_count_like_the_cell(ip, capsys):
    out = shown(ip, '%%hook lab\nprompt clean = "a"\nprompt clean = "b"', capsys)
    assert "(line 3, column 8)" in out
    assert "a prompt already, on line 2" in out


def test_a_claim_that_fails_keeps_its_results(ip, capsys):
    assert "HookExpectError" in shown(ip, f"%%hook lab -o kept\n{FAILING}", capsys)
    (claim,) = ip.user_ns["kept"].expectations
    assert (claim.right, claim.holds) == (300.0, False)
    assert "hooked.logit_diff" in shown(ip, "print(get_ipython().run_line_magic('hook', 'history'))", capsys)
    assert "the same in all" in shown(ip, "print(get_ipython().run_line_magic('hook', 'replay'))", capsys)


def test_a_claim_that_fails_in_a_file_keeps_its_results(ip, tmp_path):
    (tmp_path / "f.hook").write_text(FAILING)
    assert isinstance(ip.run_cell("%hook run f -o kept").error_in_exec, SpecError)
    assert ip.user_ns["kept"].metrics["hooked"]["logit_diff"] < 300


def test_a_claim_that_fails_on_another_model_is_no_reason_not_to_compare():
    old = Run("spec", metrics={"a": {"prob": 0.5}})
    error = SpecError([Problem("expect", "does not hold", 1, 1)], "spec")
    error.run = Run("spec", metrics={"a": {"prob": 0.25}})

    def run(spec, values):
        raise error

    assert old.replay(SimpleNamespace(run=run)).largest == 0.25


def test_a_warning_is_one_line_and_comes_with_every_run_of_the_cell(tmp_path):
    cell = f'%%hook lab -q\n{STORE}scale L1.mlp by {{float("nan")}}'
    script = ("from IPython.core.interactiveshell import InteractiveShell as Shell; shell = Shell.instance()\n"
              f"for cell in ['%load_ext hooklab', {cell!r}, {cell!r}]: shell.run_cell(cell)\n"
              "import warnings; assert warnings.formatwarning.__module__ == 'warnings'")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True,
                          cwd=ROOT, env={**os.environ, "IPYTHONDIR": str(tmp_path)})
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["HooklabWarning"] * 2


@pytest.mark.parametrize(("line", "column", "width", "hint"), [
    pytest.param("--plan --code", 15, 6, "choose one", id="two options that exclude each other"),
    pytest.param('"lab', 8, 4, 'write "lab"', id="quotes that are not closed"),
])  # fmt: skip
def test_the_caret_of_the_first_line_stands_under_the_word(ip, capsys, line, column, width, hint):
    out = shown(ip, f"%%hook {line}\n{STORE}", capsys)
    assert f"    | {' ' * (column - 1)}{'^' * width}\n" in out
    assert hint in out


@pytest.mark.parametrize("option", ["--foo", "-x"])
def test_an_unknown_option_is_not_mistaken_for_a_short_one(ip, capsys, option):
    assert not re.search("did you mean `-[a-z]`", shown(ip, f"%%hook lab {option}\n{STORE}", capsys))


def test_a_name_in_quotes_is_no_variable(ip, capsys):
    ip.user_ns["lab"] = 5
    assert 'in quotes, "lab" is what hl.load opens' in shown(ip, f"%%hook lab\n{STORE}", capsys)
    assert isinstance(ip.run_cell(f'%%hook "lab"\n{STORE}').result, Run)


def test_completing_a_prompt_warns_of_nothing(ip):
    ip.run_cell(f"%%hook lab -q\n{STORE}")
    text = '%%hook lab\nprompt "zzz Mary"\nzero L1.mlp @" M'
    with warnings.catch_warnings(), provisionalcompleter():
        warnings.simplefilter("error", HooklabWarning)
        assert [one.text for one in ip.Completer.completions(text, len(text))] == [' Mary"']


def test_every_command_is_explained_in_the_same_column():
    lines = [line for line in usage().splitlines() if line.startswith("  ")]
    assert max(map(len, lines)) < 100
    starts = [found.end() for line in lines if (found := re.match(r"  (?:%hook(?: \S+)+)? {2,}", line))]
    assert len(starts) >= 9
    assert len(set(starts)) == 1


# The command line ----------------------------------------------------------------------------------------------------


def test_a_claim_that_fails_still_prints_and_keeps_the_result(tmp_path, capsys):
    (tmp_path / "f.hook").write_text(FAILING)
    assert main(["run", str(tmp_path / "f.hook"), "--json", "--out", str(tmp_path / "kept")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["expectations"][0]["holds"] is False
    assert "HookExpectError" in err
    assert Run.load(tmp_path / "kept").metrics["hooked"] == json.loads(out)["metrics"]["hooked"]


def test_a_place_that_is_not_there_is_known_before_the_run(tmp_path, capsys, monkeypatch):
    (tmp_path / "f.hook").write_text(STORE)
    monkeypatch.setattr("hooklab.model.load.load", lambda *_, **__: pytest.fail("the model was opened"))
    assert main(["run", str(tmp_path / "f.hook"), "--out", str(tmp_path / "no" / "kept")]) == 2
    assert "There is no folder" in capsys.readouterr().err


# Pictures ------------------------------------------------------------------------------------------------------------


def texts(page, tag):
    return [re.sub("<[^>]*>", "", one) for one in re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.S)]


def test_numbers_of_one_map_have_the_same_decimals():
    page = html.heat([[7.25, -0.00012], [0.0, 0.5]], ["a", "b"], ["c", "d"])
    assert texts(page, "td")[1:] == ["7.25", "0.00", "0", "0.50"]
    assert "d: -0.00012" in page


def test_a_scale_says_zero_where_nothing_is_below_it():
    assert ">0<span" in html.heat([[0.5]], ["a"], ["b"])
    assert ">-0.5<span" in html.heat([[-0.5]], ["a"], ["b"])


def test_several_maps_share_one_scale_that_covers_them_all():
    scores = Scores(np.array([[[-1.0, 2.0]], [[1.5, 0.5]]]), ("c", "layer", "pos"))
    page = scores._repr_html_()
    assert page.count('role="img"') == 1
    assert ">-2<span" in page
    assert texts(page, "caption") == ["c 0", "c 1"]


def test_a_wide_map_has_its_columns_named_upright():
    names = [f"{i}: something" for i in range(20)]
    wide = html.heat([[0.5] * 20], ["a"], names)
    assert "hl-tall" in wide
    assert texts(wide, "span")[:2] == names[:2]
    assert "hl-tall" not in html.heat([[0.5] * 3], ["a"], names[:3])


def test_attention_too_faint_to_see_is_left_blank():
    pattern = torch.tensor([[[[1.0, 0.0], [0.9999, 0.0001]]]])
    run = Run(data={"a.L0.pattern": pattern}, axes={"a.L0.pattern": ("batch", "head", "query_pos", "key_pos")},
              views=(ViewRequest("attention"),))
    assert texts(run._repr_html_(), "td")[1:] == ["1.00", "", "1.00", ""]


@pytest.fixture
def likely():
    return Run(scores={name: Scores([[0.75, 0.25, 1e-5]], ("batch", "rank"), unit="probability",
                                    labels=np.array([[" Mary", "<b>", " x"]])) for name in ("clean.top", "hooked.top")})


def test_next_tokens_of_all_runs_are_one_table(likely):
    page = likely._repr_html_()
    assert page.count("<table") == 1
    assert texts(page, "td")[1:] == ["·Mary 0.750", "&lt;b&gt; 0.250", "·x"] * 2


def test_next_tokens_are_named_in_plain_text(likely):
    assert "clean   ' Mary' 0.75, '<b>' 0.25, ' x' 1e-05" in repr(likely)
    assert "rank 3" not in repr(likely)


def test_a_column_of_text_has_its_heading_on_the_same_side():
    assert 'class="hl-text">prompt' in html.table(["run", "prompt", "prob"], [["a", "b", 0.5]])
    assert '<th scope="col">prob' in html.table(["run", "prompt", "prob"], [["a", "b", 0.5]])


# Comparisons ---------------------------------------------------------------------------------------------------------


def test_other_tokens_do_not_hide_how_far_the_numbers_are_apart():
    old, new = (Run(scores={"a.lens": Scores([0.5, value], ("layer",), labels=np.array(["x", label]))})
                for value, label in ((0.25, " gave"), (0.5, " brought")))
    found = compare(old, new)
    assert [(row.what, row.old, row.new) for row in found.different if not np.isfinite(row.difference)] == [
        ("text of scores a.lens at layer 1", "' gave'", "' brought'")]
    assert "largest difference 0.25; 1 is text" in repr(found)
    assert "<td>inf</td>" not in found._repr_html_()



def test_a_folder_that_somebody_makes_meanwhile_is_named_as_taken(tmp_path, monkeypatch):
    run, rename = Run("mine", metrics={"a": {"prob": 0.5}}), os.rename

    def late(old, new):
        monkeypatch.setattr(os, "rename", rename)
        Run("theirs").save(new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(RecordError, match="kept exists: choose another name"):
        run.save(tmp_path / "kept")
    assert Run.load(tmp_path / "kept").spec == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


# The README ----------------------------------------------------------------------------------------------------------


def test_the_error_that_the_readme_shows_is_the_one_that_comes(ip, capsys):
    block = re.search(r"```text\n(HookModelError:.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    cell = [line.split(" | ", 1)[1] for line in block.splitlines() if re.match(r"  \d", line)]
    assert len(cell) == 2
    assert shown(ip, "\n".join(["%%hook lab", *cell]), capsys).rstrip() == block.rstrip()


@pytest.mark.parametrize("text", [
    'prompt "When Mary and John went"\nsave L1.pattern\nshow attention L1',
    'prompt a = "When Mary and John went"\nrun cut on a:\n    save L1.pattern\n    zero L0H1\nshow attention L1H2',
    'prompt "When Mary and John went"\nshow attention L1\nshow attention L1H[0,2]'])
def test_what_is_saved_can_be_shown(text):
    found = hl.load("lab").run(text)
    assert any(key.endswith("L1.pattern") for key in found.data) and found.views


@pytest.mark.parametrize("axes", ["query_pos key_pos", "query_pos head key_pos", "batch query_pos head key_pos"])
def test_a_pattern_of_one_head_may_be_written_with_or_without_an_axis_for_it(axes):
    model = hl.load("lab")
    text = "When Mary and John went to the store"
    size = len(model.tokens(text).pieces[0])
    pattern = torch.softmax(torch.randn(size, size, generator=torch.Generator().manual_seed(0)).masked_fill(
        torch.triu(torch.ones(size, size, dtype=torch.bool), 1), -torch.inf), -1)
    given = pattern[:, None] if "head" in axes else pattern
    given = given[None] if "batch" in axes else given
    run = model.run(f'prompt "{text}"\nset L1H2.pattern to {{p}}\nsave L1.z', p=given)
    v = model.capture(text, "L1.v")["L1.v"][0, :, 2]
    assert torch.allclose(run["L1.z"][0, :, 2], pattern @ v, atol=1e-5)


INDENTED = """
    prompt a = "When Mary and John went"

    # a note
    run cut on a:
        zero L0H1
        save L1.z
    show top 3
"""


def dedented(text):
    import textwrap

    return textwrap.dedent(text)


@pytest.mark.parametrize("text", [INDENTED, INDENTED.lstrip("\n"), INDENTED.replace("    ", "\t"),
                                  INDENTED.replace("\n", "\r\n"), "# a note\n" + INDENTED,
                                  INDENTED.replace("L0H1", "{[0,\n1]}")])
def test_a_text_that_is_indented_as_a_whole_is_read_as_it_is_without_its_indent(text):
    spec = hl.parse(text)
    assert str(spec) == str(hl.parse(dedented(text) if "{" not in text else text.replace("{[0,\n1]}", "{[0, 1]}"))
                            ).replace("{[0, 1]}", "{[0,\n1]}")
    line = next(i for i, one in enumerate(text.split("\n"), 1) if "zero" in one)
    assert spec.body[1].body[0].span.line == line
    assert spec.body[1].body[0].span.column == text.split("\n")[line - 1].index("zero") + 1


def test_an_indented_text_runs_in_python_in_a_cell_and_from_a_file(ip, capsys, tmp_path):
    model = hl.load("lab")
    text = INDENTED.replace('"When Mary and John went"', "{words}")
    run = model.run(text, words="When Mary went")
    assert torch.equal(run["cut.L1.z"], model.run(dedented(text), words="When Mary went")["cut.L1.z"])
    assert str(model.plan(INDENTED)) == str(model.plan(dedented(INDENTED)))
    ip.user_ns["words"] = "When Mary went"
    ip.run_cell("%%hook lab -o found -q" + text)
    assert torch.equal(ip.user_ns["found"]["cut.L1.z"], run["cut.L1.z"])
    path = tmp_path / "indented.hook"
    path.write_text(INDENTED, encoding="utf-8")
    assert main(["run", str(path), "--model", "lab"]) == 0


def test_mistakes_of_an_indented_text_are_shown_where_they_stand_in_it():
    with pytest.raises(SpecError) as caught:
        hl.parse('\n    prompt "x"\n    zero L0H0 @@\n    zero foo.bar.z')
    assert [(one.line, one.column) for one in caught.value.problems] == [(3, 16), (4, 18)]
    with pytest.raises(SpecError) as caught:
        hl.load("lab").run('\n    prompt "Mary"\n    zero L99H0')
    assert [(one.line, one.column) for one in caught.value.problems] == [(3, 10)]


@pytest.mark.parametrize(("text", "line"), [('prompt "x"\n    zero L0H0', 2), ('  prompt "x"\n\tzero L0H0', 2),
                                            ('    prompt "x"\n  zero L0H0\nzero L1H0', 2),
                                            ('  prompt "x"\n    zero L0H0\n  zero L1H0', 2)])
def test_lines_without_an_indent_in_common_are_refused_as_before(text, line):
    with pytest.raises(SpecError, match="this line is indented, and no block is open|cannot stand") as caught:
        hl.parse(text)
    assert caught.value.problems[0].line == line


@pytest.mark.parametrize(("n", "line"), [(1, None), (4, None), (5, "… and 1 more prompt: show top 5"),
                                         (32, "… and 28 more prompts: show top 5")])
def test_next_tokens_of_many_prompts_take_four_rows_where_they_are_not_asked_for(n, line):
    model = hl.load("lab")
    words = ["When Mary went"] * n
    run = model.run("prompt {words}\nmetric entropy", words=words)
    drawn = run._repr_html_()
    assert drawn.count("rank 1:") == min(n, 4)
    assert repr(run).count("main · ") == (min(n, 4) if n > 1 else 0)
    for shown in (drawn, repr(run)):
        assert (line in shown) if line else "more prompt" not in shown
    asked = model.run("prompt {words}\nmetric entropy\nshow top 2", words=words)._repr_html_()
    assert asked.count("next token: main") == min(n, 16)
    other = model.run("prompt {words}\nmetric entropy\nshow table", words=words)._repr_html_()
    assert "next token" not in other
