"""Real notebooks in a real browser: a server of JupyterLab, Notebook 7 or marimo, the system's Chromium, an open page.

Tests and the script that takes pictures drive notebooks with this, always in the same order:

    with serve(folder) as server, chromium() as browser, server.open(browser, ["1 + 1"]) as notebook:
        assert notebook.run(0) == ["2"]

A server lives in its own folder (settings, kernels' files, trusted notebooks), on a free port, behind a token, and ends
with the process that started it, however that ends. Chromium cannot resolve any name, so nothing reaches the network;
what a page asks for outside of its server is written down, and so are its errors and the dialogs it opens.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or "")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
PATIENCE = 90_000
"""Milliseconds after which something that should have happened is held not to happen."""
expect.set_options(timeout=20_000)
WIDE = {"width": 1280, "height": 1000}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
STATE = "application/vnd.jupyter.widget-state+json"

SETTINGS = {
    # What saves by itself while a test saves finds the file changed, and Lab asks the reader what to do.
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}
PLACES = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
          "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "JUPYTERLAB_SETTINGS_DIR": "settings", "IPYTHONDIR": "ipython",
          "XDG_CONFIG_HOME": "home/config", "XDG_CACHE_HOME": "home/cache", "XDG_STATE_HOME": "home/state",
          "XDG_DATA_HOME": "home/data", "MPLCONFIGDIR": "home/matplotlib"}
JUPYTER = ("-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port={port}", "--ServerApp.port_retries=0",
           "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token={token}", "--ServerApp.root_dir={folder}",
           "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True",
           "--JupyterNotebookApp.expose_app_in_browser=True",
           "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly",
           "--ServerApp.terminals_enabled=False")
MARIMO = ("-m", "marimo", "run", "{folder}/app.py", "--headless", "--no-check", "--port={port}", "--token-password={token}")
KEEPER = """
import subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end():
    sys.stdin.buffer.read()
    child.terminate()
    try:
        child.wait(15)
    except subprocess.TimeoutExpired:
        child.kill()
threading.Thread(target=end, daemon=True).start()
sys.exit(child.wait())
"""
"""Runs a server until it, or the process that holds the other end of the standard input, ends."""

READY = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext, kernel = session?.session?.kernel;
    return session?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
"""The toolbar says "idle" before there is a kernel; the session itself does not."""
ASIDE = """async (code) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel, printed = [];
    const request = kernel.requestExecute({ code, store_history: false });
    request.onIOPub = ({ header, content }) => {
        if (header.msg_type === 'stream') printed.push(content.text);
        if (header.msg_type === 'error') printed.push(content.traceback.join('\\n'));
    };
    await request.done;
    return printed.join('');
}"""
IN_TIME = """given => Promise.race([(%s)(given), new Promise((_, stop) => setTimeout(
    () => stop(new Error('not done in time; open dialog: ' + document.querySelector('.jp-Dialog')?.innerText)), %d))])"""
"""Playwright waits for a promise of the page as long as it takes; the page itself gives up."""
THEMES = {False: "JupyterLab Light", True: "JupyterLab Dark"}
PANEL = "window.jupyterapp.shell.currentWidget"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window and without a network."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _running(arguments: tuple[str, ...], folder: Path, probe: str) -> Iterator[tuple[str, str]]:
    """A server of these arguments, once it answers at `probe`; its address and its token."""
    port, token = _free_port(), secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **{name: str(folder / ".server" / place) for name, place in PLACES.items()},
                   "PYTHONPATH": path, "JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", KEEPER, sys.executable,
               *(part.format(port=port, token=token, folder=folder) for part in arguments)]
    log = folder / ".server/log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as written:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT,
                                   env=environment, start_new_session=True)
        assert process.stdin is not None
        try:
            _wait_for(process, address + probe.format(token=token), log)
            yield address, token
        finally:
            process.stdin.close()
            process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address, timeout=2) as answer:
            answer.read()
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.15)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def _write_settings(folder: Path) -> None:
    for name, values in SETTINGS.items():
        place = folder / ".server/settings" / f"{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(values))


@contextmanager
def serve(folder: Path) -> Iterator[Jupyter]:
    """A server of JupyterLab and, where it is installed, Notebook 7; `folder` is its root and holds its own settings."""
    _write_settings(folder)
    with _running(JUPYTER, folder, "/api/status?token={token}") as (address, token):
        yield Jupyter(folder, address, token)


@contextmanager
def serve_marimo(folder: Path, cells: list[str]) -> Iterator[str]:
    """marimo with an app of these cells; the address to open. A cell's last line is what it shows."""
    script = "import marimo\n\napp = marimo.App()\n" + "".join(map(_marimo_cell, ["import marimo as mo", *cells]))
    (folder / "app.py").write_text(script)
    with _running(MARIMO, folder, "/health") as (address, token):
        yield f"{address}/?access_token={token}"


def _marimo_cell(code: str) -> str:
    """marimo finds out by itself what a cell reads and defines; only the frame of the function is needed."""
    return f"\n\n@app.cell\ndef _():\n{textwrap.indent(code, '    ')}\n    return\n"


@dataclass
class Watch:
    """What happened on a page that should not: errors, requests to other machines, dialogs."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def over(self, page: Page, inside: tuple[str, ...]) -> Watch:
        """Start to watch a page whose own addresses begin with one of `inside`."""
        page.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        page.on("request", lambda request: None if request.url.startswith(inside) else self.outside.append(request.url))
        page.on("dialog", self._dismiss)
        return self

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def watched(browser: Browser, *inside: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A page in a context of its own, and its watch."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        yield page, Watch().over(page, (*inside, "data:", "blob:"))
    finally:
        context.close()


def until(check: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """The first true value of `check`; an AssertionError when there is none for so long."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value


@dataclass(frozen=True)
class Jupyter:
    """A running server: its folder, where notebooks lie, its address and its token."""

    folder: Path
    address: str
    token: str

    @contextmanager
    def open(self, browser: Browser, cells: list[str] | Path, *, name: str = "t",
             app: str = "lab/tree", **options: Any) -> Iterator[Notebook]:
        """Open a notebook of these cells, or a copy of a saved one, in Lab (`lab/tree`) or Notebook 7 (`notebooks`).

        Below the cells stands an empty one, in which `Notebook.below` runs its code. The kernel is a new one that ran none.
        `options` are those of a page, such as `device_scale_factor=2`.
        """
        file = self.folder / f"{name}.ipynb"
        if isinstance(cells, Path):
            shutil.copy(cells, file)
        else:
            nbformat.write(nbformat.v4.new_notebook(
                metadata=KERNEL, cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, ""]]), file)
        with watched(browser, self.address, self.address.replace("http", "ws"), **options) as (page, watch):
            page.goto(f"{self.address}/{app}/{file.name}?token={self.token}&reset")
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            page.wait_for_function(READY)
            yield Notebook(page, watch, file)


@dataclass(frozen=True)
class Notebook:
    """An open notebook: cells by number, counted from 0; the last one is for `below`."""

    page: Page
    watch: Watch
    file: Path

    def cell(self, n: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(n)

    def choose(self, n: int) -> None:
        """Put the cursor into a cell."""
        self.cell(n).locator(".cm-content").click()

    def command(self, name: str, **arguments: Any) -> None:
        """Start a command of the application; it is not waited for."""
        self.page.evaluate("([name, given]) => void window.jupyterapp.commands.execute(name, given)", [name, arguments])

    def run(self, n: int, picture: Path | None = None) -> list[str]:
        """Run a cell and wait until it has; the texts of its outputs."""
        prompt = self.cell(n).locator(".jp-InputPrompt").text_content()
        self.page.evaluate(f"n => {{ {PANEL}.content.activeCellIndex = n }}", n)
        self.command("notebook:run-cell")
        self.page.wait_for_function("""([n, before]) => {
            const now = document.querySelectorAll('.jp-Notebook .jp-Cell')[n].querySelector('.jp-InputPrompt').textContent;
            return /\\[\\d+\\]/.test(now) && now !== before; }""", arg=[n, prompt])
        self.page.wait_for_function(READY)
        self.cell(n).scroll_into_view_if_needed()
        if picture:
            self.page.screenshot(path=str(picture))
        return self.cell(n).locator(".jp-OutputArea-child").all_inner_texts()

    def python(self, code: str) -> str:
        """What the code prints, run by the kernel beside the cells; its traceback when it fails."""
        return str(self._done(ASIDE, code)).strip()

    def below(self, code: str) -> str:
        """What the code prints, run in the last cell."""
        n = self.cells() - 1
        self.write(n, code)
        return "".join(self.run(n)).strip()

    def cells(self) -> int:
        return int(self.page.evaluate(f"() => {PANEL}.content.widgets.length"))

    def write(self, n: int, code: str) -> None:
        self.page.evaluate(f"([n, code]) => {PANEL}.content.widgets[n].model.sharedModel.setSource(code)", [n, code])

    def offered(self, picture: Path | None = None) -> list[str]:
        """What the menu offers after Tab."""
        self.page.keyboard.press("Tab")
        menu = self.page.locator(".jp-Completer:visible .jp-Completer-match")
        menu.first.wait_for()
        if picture:
            self.page.screenshot(path=str(picture))
        return menu.all_inner_texts()

    def theme(self, *, dark: bool) -> None:
        self.command("apputils:change-theme", theme=THEMES[dark])
        sign = f"body[data-jp-theme-light='{str(not dark).lower()}'][data-jp-theme-name='{THEMES[dark]}']"
        self.page.wait_for_selector(sign, state="attached")

    def save(self) -> Any:
        """Save; the file's content, with the state of the widgets in its metadata."""
        self._done(f"async () => {{ await {PANEL}.context.save(); }}")
        return nbformat.read(self.file, as_version=4)

    def without_kernel(self) -> None:
        """Shut the kernel down, as its menu does."""
        self._done(f"() => {PANEL}.sessionContext.shutdown()")
        self.page.wait_for_function(f"() => !{PANEL}.sessionContext.session?.kernel")

    def _done(self, function: str, given: Any = None) -> Any:
        """What a function of the page promises, when it is there; an error after `PATIENCE`."""
        return self.page.evaluate(IN_TIME % (function, PATIENCE), given)


__all__ = ["CHROMIUM", "PATIENCE", "STATE", "Jupyter", "Notebook", "Watch", "chromium", "expect", "serve",
           "serve_marimo", "until", "watched"]
