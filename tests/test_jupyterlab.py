"""The magic in a real JupyterLab: cells run, errors show, completion works, and every cell has one output.

The browser is the system's Chromium, driven by playwright; where either is missing, the tests are skipped. Screenshots
go to pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or "")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="there is no Chromium on this machine")

BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync")
PATIENCE = 90_000
READY = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext, kernel = session?.session?.kernel;
    return session?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""

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


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab with its own settings, on a free port; the notebook is in its folder."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=cells), folder / "t.ipynb")
    port, token = _free_port(), secrets.token_hex(16)
    settings = folder / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "IPYTHONDIR": "ipython"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **{name: str(folder / place) for name, place in places.items()}, "PYTHONPATH": path,
                   "JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
             "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}",
             f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly",
             "--ServerApp.terminals_enabled=False"],
            stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        try:
            _wait_for(process, f"http://127.0.0.1:{port}/api/status?token={token}", folder / "lab.log")
            yield folder, f"http://127.0.0.1:{port}/lab/tree/t.ipynb?token={token}&reset"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for(process, address, log):
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.15)
    pytest.fail(f"jupyter lab did not start: {log.read_text()}")


class Notebook:
    """The open notebook: cells by number, counted from 0."""

    def __init__(self, page, pictures):
        self.page, self.pictures = page, pictures

    def cell(self, n):
        return self.page.locator(".jp-Notebook .jp-Cell").nth(n)

    def choose(self, n):
        self.cell(n).locator(".cm-content").click()

    def run(self, n):
        """Run a cell and wait until it has; the texts of its outputs."""
        self.choose(n)
        self.page.evaluate("void window.jupyterapp.commands.execute('notebook:run-cell')")
        self.page.wait_for_function("""n => /\\[\\d+\\]/.test(document.querySelectorAll('.jp-Notebook .jp-Cell')[n]
            .querySelector('.jp-InputPrompt').textContent)""", arg=n, timeout=PATIENCE)
        self.page.wait_for_function(READY, timeout=PATIENCE)
        self.cell(n).scroll_into_view_if_needed()
        self.page.screenshot(path=str(self.pictures / f"cell_{n}.png"))
        return self.cell(n).locator(".jp-OutputArea-child").all_inner_texts()

    def offered(self, picture=None):
        """What the menu offers after Tab."""
        self.page.keyboard.press("Tab")
        menu = self.page.locator(".jp-Completer:visible .jp-Completer-match")
        menu.first.wait_for()
        if picture:
            self.page.screenshot(path=str(self.pictures / picture))
        return menu.all_inner_texts()


@pytest.fixture(scope="module")
def notebook(server):
    folder, address = server
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE)
        page.wait_for_function(READY, timeout=PATIENCE)
        yield Notebook(page, folder)
        browser.close()


@pytest.fixture(scope="module")
def outputs(notebook):
    """The outputs of the cells above the last one, run in order."""
    return [notebook.run(n) for n in range(len(CELLS) - 1)]


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


def test_a_site_is_completed_in_the_cell(outputs, notebook):
    last = len(CELLS) - 1
    notebook.choose(last)
    notebook.page.keyboard.press("Control+End")
    assert notebook.offered() == ["resid_mid"]
    notebook.page.keyboard.press("Enter")
    playwright.expect(notebook.cell(last).locator(".cm-content")).to_contain_text("zero L1.resid_mid")
    notebook.page.keyboard.type("\nnoise L")
    offered = notebook.offered("completion.png")
    assert {"L*", "L0", "L4", "L*H*"} <= set(offered)
    assert "list" not in offered
    notebook.page.keyboard.press("Escape")


def test_the_saved_notebook_holds_one_output_a_cell(outputs, notebook, server):
    notebook.page.evaluate("void window.jupyterapp.commands.execute('docmanager:save')")
    saved = server[0] / "t.ipynb"
    for _ in range(100):
        cells = json.loads(saved.read_text(encoding="utf-8"))["cells"]
        if cells[4].get("outputs"):
            break
        time.sleep(0.2)
    assert [len(cell["outputs"]) for cell in cells[:5]] == [0, 1, 1, 1, 1]
    kinds = [cell["outputs"][0]["output_type"] for cell in cells[1:5]]
    assert kinds == ["execute_result", "execute_result", "error", "stream"]
    assert "^^^^^" in "".join(cells[3]["outputs"][0]["traceback"])
