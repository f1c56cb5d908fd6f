"""The magic in a real JupyterLab: cells run, errors show, completion works, and every cell has one output.

The browser is the system's Chromium, driven by playwright; where either is missing, the tests are skipped. Screenshots
go to pytest's temporary folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")

from browser import CHROMIUM, expect

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="there is no Chromium on this machine")

PROMPTS = ('prompt clean = "When John and Mary went to the store, John gave a drink to"\n'
           'prompt corrupt = "When John and Mary went to the store, Mary gave a drink to"\n'
           'answer " Mary" vs " John"\nmetric logit_diff\n')
CELLS = [
    "%load_ext hooklab",
    '%%hook lab -o plain\nprompt "When John and Mary went to the store, John gave a drink to"\nanswer " Mary" vs " John"\n'
    "metric logit_diff\nzero L2H0",
    f"%%hook -o grid\n{PROMPTS}run patched on corrupt:\n    patch each L*.resid @each from clean\nshow grid",
    f"%%hook\n{PROMPTS}run on corrupt:\n    ablat L1.mlp",
    "print('SHAPE', grid.grid.axes, grid.grid.values.shape)",
    "%%hook lab\nzero L1.resid_m",
]
LAST = len(CELLS) - 1


@pytest.fixture(scope="module")
def notebook(jupyter, chromium):
    with jupyter.open(chromium, CELLS, name="magic") as notebook:
        yield notebook


@pytest.fixture(scope="module")
def outputs(notebook, tmp_path_factory):
    """The outputs of the cells above the last one, run in order."""
    pictures = tmp_path_factory.mktemp("cells")
    # On a slow machine a run shows how far it is, and that line stays behind, empty.
    return [[text for text in notebook.run(n, pictures / f"cell_{n}.png") if text.strip()] for n in range(LAST)]


def test_lab_saves_only_when_it_is_told_to(notebook):
    assert notebook.page.evaluate("() => window.jupyterapp.commands.isToggled('docmanager:toggle-autosave')") is False


def test_loading_the_extension_says_nothing(outputs):
    assert outputs[0] == []


def test_a_plain_cell_has_one_output_with_both_runs(outputs):
    assert len(outputs[1]) == 1
    assert "logit_diff" in outputs[1][0]
    assert "hooked" in outputs[1][0]


def test_a_patching_grid_is_one_output_and_a_value_of_the_kernel(outputs, notebook):
    assert len(outputs[2]) == 1
    assert "patched" in outputs[2][0]
    assert "SHAPE ('layer', 'pos')" in outputs[4][0]
    assert notebook.cell(2).locator(".jp-OutputArea-output table, .jp-OutputArea-output img, "
                                    ".jp-OutputArea-output svg, .jp-OutputArea-output canvas").count() >= 1


def test_an_error_has_its_caret_and_no_traceback(outputs):
    assert len(outputs[3]) == 1
    lines = [line.rstrip() for line in outputs[3][0].splitlines() if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("HookNameError"))
    assert 'no verb "ablat"  (line 7, column 5)' in lines[start]
    assert lines[start + 2:start + 4] == ["  7 |     ablat L1.mlp", "    |     ^^^^^"]
    assert "Traceback" not in outputs[3][0]
    assert "did you mean" in outputs[3][0]


def test_a_site_is_completed_in_the_cell(outputs, notebook, tmp_path):
    notebook.choose(LAST)
    notebook.page.keyboard.press("Control+End")
    assert notebook.offered() == ["resid_mid"]
    notebook.page.keyboard.press("Enter")
    expect(notebook.cell(LAST).locator(".cm-content")).to_contain_text("zero L1.resid_mid")
    notebook.page.keyboard.type("\nnoise L")
    offered = notebook.offered(tmp_path / "completion.png")
    assert {"L*", "L0", "L4", "L*H*"} <= set(offered)
    assert "list" not in offered
    notebook.page.keyboard.press("Escape")


def test_the_saved_notebook_holds_one_output_a_cell(outputs, notebook):
    cells = notebook.save().cells
    kept = [[one for one in cell.outputs if "data" not in one or any(one["data"].values())] for cell in cells[:5]]
    kinds = [[one.output_type for one in outputs] for outputs in kept]
    assert kinds == [[], ["execute_result"], ["execute_result"], ["error"], ["stream"]], cells[:2]
    assert "^^^^^" in "".join(kept[3][0].traceback)


def test_nothing_fails_on_the_page_and_nothing_is_fetched(outputs, notebook):
    assert notebook.watch.errors == []
    assert notebook.watch.outside == []
