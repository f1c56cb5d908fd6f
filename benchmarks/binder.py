"""What a session on Binder holds in memory: JupyterLab and a kernel, from before the first cell to after the last.

    python3.11 -m venv /path/to/env && /path/to/env/bin/pip install torch jupyterlab ipywidgets  # a CPU build of torch
    /path/to/env/bin/pip install …              # the packages of binder/environment.yml; `--packages` prints them
    python benchmarks/binder.py /path/to/env [--notebook notebooks/00_tour.ipynb] [--limit 2.0]

The image itself needs Docker and conda; this takes an environment with the same packages, and does there what the image
does, in a copy of the repository: `binder/postBuild`, then JupyterLab through `binder/start`. Chromium opens the notebook at
the address that the badge has, runs every cell, and clicks into a view, whose choice must reach the kernel. Meanwhile the
resident memory of the server and of everything it started is added up, twenty times a second; pages that processes share
are counted for each, so the sum is an upper bound. Exits with 1 where a cell or a view fails, or the sum passes the limit.
A view is a module of its own on the page, so its errors are told from JupyterLab's, whose table of contents
makes some. The playwright of the tests drives Chromium. Results go to benchmarks/results/binder.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
RESULT = ROOT / "benchmarks" / "results" / "binder.md"
CARRIED = ("hooklab", "notebooks", "binder", "pyproject.toml", "README.md", "LICENSE")
FLAGS = ("--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True")
ALIVE = ("import hooklab as hl\nalive = hl.view.tokens(hl.load('lab'), 'When Mary and John went to the store')\nalive",
         "print(dict(alive.selection))")
"""A view, and what it says about itself after its second token was clicked."""


@dataclass
class Memory:
    """Resident memory of a process and all it started, in megabytes, sampled until `done`."""

    process: psutil.Process
    peak: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """The sum now; the largest is kept, with its parts."""
        parts: dict[str, float] = {}
        for one in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.Error):
                kind = "kernel" if any("ipykernel" in word for word in one.cmdline()) else "JupyterLab"
                kind = kind if "python" in one.name() or "jupyter" in one.name() else one.name()
                parts[kind] = parts.get(kind, 0.0) + one.memory_info().rss / 1e6
        total = sum(parts.values())
        if total > self.peak:
            self.peak, self.parts = total, parts
        return total

    def watch(self) -> None:
        while not self.done.wait(0.05):
            with suppress(psutil.Error):
                self.now()


def packages(file: Path = ROOT / "binder" / "environment.yml") -> list[str]:
    """What pip can install of the environment's packages, as `name==version`; PyTorch comes first and by hand."""
    found = re.findall(r"^\s+- ([\w.-]+)={1,2}([\w.]+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [f"{name}=={version}" for name, version in found if name not in ("python", "pytorch-cpu")]


def copied(folder: Path) -> Path:
    """A copy of what an image holds of the repository."""
    for name in CARRIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(source, folder / name)
    return folder


def surroundings(environment: Path, home: Path) -> dict[str, str]:
    """The variables of a shell in the image, with a home of its own."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "JUPYTER", "IPYTHON", "XDG_", "OMP_", "HF_"))}
    return {**kept, "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home),
            "PYTHONUNBUFFERED": "1"}


@contextmanager
def session(folder: Path, variables: dict[str, str]) -> Iterator[tuple[str, str, Memory]]:
    """JupyterLab as a session starts it; its address, its token, and its memory, watched."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    words = [str(folder / "binder/start"), "jupyter", "lab", *FLAGS, f"--ServerApp.port={port}",
             f"--IdentityProvider.token={token}", *(["--allow-root"] if os.geteuid() == 0 else [])]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        memory = Memory(psutil.Process(process.pid))
        watcher = threading.Thread(target=memory.watch, daemon=True)
        watcher.start()
        try:
            for _ in range(600):
                with suppress(OSError), urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=2):
                    break
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
            yield address, token, memory
        finally:
            memory.done.set()
            watcher.join()
            process.terminate()
            process.wait(30)


def settings(address: str, token: str) -> bool:
    """Whether JupyterLab took the settings of the image."""
    plugin = "@jupyterlab/apputils-extension:notification"
    with urllib.request.urlopen(f"{address}/lab/api/settings/{plugin}?token={token}") as answer:
        schema = json.load(answer)["schema"]["properties"]
    ours = json.loads((ROOT / "binder/overrides.json").read_text())[plugin]
    return all(schema[name]["default"] == value for name, value in ours.items())


RUN = """async n => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = n;
    await window.jupyterapp.commands.execute('notebook:run-cell');
    return notebook.widgets[n].model.sharedModel.toJSON().outputs;
}"""
"""Runs a cell and gives its outputs, from the document: cells that are out of sight are not on the page."""
ADD = """code => {
    const notebook = window.jupyterapp.shell.currentWidget.content, cells = notebook.model.sharedModel;
    cells.insertCell(notebook.widgets.length, { cell_type: 'code', source: code });
    return notebook.widgets.length - 1;
}"""
WIDGET = "application/vnd.jupyter.widget-view+json"


def walk(notebook: Path, address: str, token: str, memory: Memory) -> tuple[list[list[str]], dict[str, str]]:
    """Run the notebook in Chromium; what was measured, as rows, and everything that failed."""
    import nbformat
    from browser import READY, chromium, watched

    code = [n for n, cell in enumerate(nbformat.read(notebook, as_version=4).cells) if cell.cell_type == "code"]
    failed: dict[str, str] = {}
    with chromium() as browser, watched(browser, address, address.replace("http", "ws")) as (page, watch):
        server, began = memory.now(), time.monotonic()
        page.goto(f"{address}/lab/tree/{notebook.parent.name}/{notebook.name}?token={token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(READY)
        opened, ready = time.monotonic() - began, memory.now()
        began, widgets = time.monotonic(), 0
        for n in code:
            for output in page.evaluate(RUN, n):
                widgets += WIDGET in output.get("data", {})
                if output["output_type"] == "error":
                    failed[f"cell {n}"] = f"{output['ename']}: {output['evalue']}"
        ran, after = time.monotonic() - began, memory.now()
        failed |= clicked(page)
        ours = [text for text in watch.errors if "blob:" in text or "/static/lab/" not in text]
        failed |= {f"page error {n}": text for n, text in enumerate(ours)}
        failed |= {f"request {n} to elsewhere": text for n, text in enumerate(watch.outside)}
    return [["JupyterLab alone", f"{server:.0f} MB", ""],
            ["the notebook open, its kernel idle", f"{ready:.0f} MB", f"{opened:.1f} s"],
            [f"{len(code)} cells run, {widgets} of them with widgets", f"{after:.0f} MB", f"{ran:.1f} s"],
            [f"errors of JupyterLab's own on the page: {len(watch.errors) - len(ours)}", "", ""]], failed


def clicked(page: Any) -> dict[str, str]:
    """Click a token of a view in a new cell at the end; what failed of that."""
    from browser import expect

    page.evaluate(RUN, page.evaluate(ADD, ALIVE[0]))
    view = page.locator(".jp-OutputArea .hooklab-view[data-view=tokens]").last
    expect(view).to_have_attribute("data-ready", "1", timeout=60_000)
    view.locator(".hl-tok").nth(1).click()
    said = page.evaluate(RUN, page.evaluate(ADD, ALIVE[1]))
    return {} if "'pos': 1" in str(said) else {"a click in a view": f"the kernel says {said}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environment", type=Path, nargs="?", help="a virtual environment with the packages of the image")
    parser.add_argument("--notebook", type=Path, help="the notebook to run (default: the first of notebooks/)")
    parser.add_argument("--limit", type=float, default=2.0, help="gigabytes that the sum may reach (default: 2.0)")
    parser.add_argument("--packages", action="store_true", help="print what pip installs, and stop")
    parser.add_argument("--built", action="store_true", help="leave out postBuild: the environment has been through it")
    options = parser.parse_args()
    if options.packages:
        print(*packages(), sep="\n")
        return 0
    notebook = options.notebook or min((ROOT / "notebooks").glob("*.ipynb"), default=None)
    if options.environment is None or notebook is None:
        parser.error("give the environment" if options.environment is None else "there is no notebook: give --notebook")
    load, environment = os.getloadavg()[0], options.environment.absolute()
    with tempfile.TemporaryDirectory(prefix="binder-") as home:
        folder = copied(Path(home))
        place = folder / "notebooks" / notebook.name
        if not place.exists():
            shutil.copy(notebook, place)
        variables = surroundings(environment, folder)
        if not options.built:
            subprocess.run(["./binder/postBuild"], cwd=folder, env=variables, check=True)
        shutil.rmtree(folder / "hooklab")  # what is imported is what postBuild installed
        with session(folder, variables) as (address, token, memory):
            took = settings(address, token)
            rows, failed = walk(place, address, token, memory)
    failed |= {} if took else {"settings": "JupyterLab did not take binder/overrides.json"}
    failed |= {"memory": f"{memory.peak:.0f} MB"} if memory.peak > options.limit * 1000 else {}
    rows.append(["**peak**", f"**{memory.peak:.0f} MB**", ""])
    rows += [[f"of that, {name}", f"{size:.0f} MB", ""] for name, size in sorted(memory.parts.items())]
    told = report(f"`{notebook.name}` in {made_of(environment)}; {os.cpu_count()} cores, {platform.machine()}, load of the "
                  f"machine at the start {load:.1f}", rows, failed, options.limit)
    RESULT.write_text(told, encoding="utf-8")
    print(told)
    return 1 if failed else 0


def made_of(environment: Path) -> str:
    """The versions of an environment that matter here."""
    code = ("import importlib.metadata as m, sys\nprint(f'Python {sys.version.split()[0]}', "
            "*(f'{n} {m.version(n)}' for n in ('torch', 'jupyterlab', 'ipywidgets', 'anywidget')), sep=', ')")
    return subprocess.run([str(environment / "bin" / "python"), "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip()


def report(where: str, rows: list[list[str]], failed: dict[str, str], limit: float) -> str:
    """The page of results."""
    verdict = ("Every cell ran, a click in a view reached the kernel, and nothing was fetched from elsewhere."
               if not failed else "**Failed:** " + "; ".join(f"{name}: {text}" for name, text in failed.items()))
    return "\n".join([
        "# Memory of a session on Binder", "",
        f"Generated by `python benchmarks/binder.py ENVIRONMENT`; do not edit. {where}. The environment was made by pip "
        "from the versions of `binder/`: not by conda, and not in the image.", "",
        "| | resident memory | took |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), "",
        f"The limit is {limit * 1000:.0f} MB. {verdict}", ""])


if __name__ == "__main__":
    sys.exit(main())
