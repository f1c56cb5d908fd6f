"""One click to a running notebook: what Binder, Colab and a dev container are told fits together, and works here.

The image itself is not built: that takes Docker and conda. `benchmarks/binder.py` runs a session in the same packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from importlib.util import find_spec
from pathlib import Path

import anywidget._util
import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hooklab as hl
from hooklab.views import colab

ROOT = Path(__file__).parent.parent
BINDER, DEV = ROOT / "binder", ROOT / ".devcontainer"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPTS = ("postBuild", "start")
IMAGE_BRINGS = {"ipywidgets", "traitlets", "IPython"}
"""What repo2docker's own environment has, in the versions that its JupyterLab goes with."""


def conda_and_pip():
    """The packages of the environment by name, with their versions."""
    listed = yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"]
    conda = dict(line.split("=", 1) for line in listed if isinstance(line, str) and "=" in line)
    (pip,) = [line["pip"] for line in listed if isinstance(line, dict)]
    return conda, {canonicalize_name(name): version for name, version in (line.split("==") for line in pip)}


def pinned():
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def post_build():
    """The program inside postBuild."""
    (code,) = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON\n", (BINDER / "postBuild").read_text(), re.DOTALL)
    return code


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_run(name):
    file = BINDER / name
    data = file.read_bytes()
    assert data.startswith(b"#!/bin/bash\n") and b"\r" not in data and data.endswith(b"\n")
    assert file.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_a_failing_step_fails_the_build():
    assert "set -euo pipefail" in (BINDER / "postBuild").read_text().splitlines()


def test_start_becomes_what_it_is_given_on_one_thread_and_offline():
    code = "import os; print(*(os.environ[n] for n in ('OMP_NUM_THREADS', 'HF_HUB_OFFLINE')), os.getppid())"
    done = subprocess.run([str(BINDER / "start"), sys.executable, "-c", code, "an argument"], capture_output=True, text=True,
                          check=True, env={"PATH": os.environ["PATH"]})
    assert done.stdout.split() == ["1", "1", str(os.getpid())]


def test_versions_are_the_tested_ones():
    conda, pip = conda_and_pip()
    python = conda.pop("python")
    conda["torch"] = conda.pop("pytorch-cpu")
    assert not set(conda) & set(pip)
    assert {**conda, **pip} == {name: pinned().get(name) for name in {**conda, **pip}}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={python}"


def test_everything_that_hooklab_asks_for_is_there_and_recent_enough():
    conda, pip = conda_and_pip()
    conda["torch"] = conda.pop("pytorch-cpu")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    there = {**conda, **pip}
    for one in asked:
        if one.name not in IMAGE_BRINGS:
            assert one.specifier.contains(there[canonicalize_name(one.name)]), one


def test_the_benchmark_takes_the_packages_of_the_environment():
    conda, pip = conda_and_pip()
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks/binder.py"), "--packages"], capture_output=True, text=True,
                          check=True)
    said = {canonicalize_name(name): version for name, version in (line.split("==") for line in done.stdout.split())}
    assert said == {**{n: v for n, v in conda.items() if n not in ("python", "pytorch-cpu")}, **pip}


def test_no_file_names_a_package_registry():
    host = re.compile(r"index[-]url|find-links|channel-alias|pypi|pythonhosted|anaconda|npmjs|download\.pytorch", re.I)
    files = [file for folder in (BINDER, DEV) for file in folder.iterdir()]
    assert len(files) >= 7
    assert not [(file.name, found[0]) for file in files if (found := host.search(file.read_text()))]


def sources(book):
    return ["".join(cell["source"]) for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"]


@pytest.mark.parametrize("book", NOTEBOOKS, ids=[book.stem for book in NOTEBOOKS])
def test_what_a_notebook_imports_is_in_the_environment(book):
    conda, pip = conda_and_pip()
    there = {*conda, *pip, *sys.stdlib_module_names, *IMAGE_BRINGS, "torch", "hooklab"}
    imported = {name for code in sources(book) for name in re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE)}
    assert {{"sklearn": "scikit-learn", "PIL": "pillow"}.get(name, name) for name in imported} <= there


@pytest.mark.parametrize("book", NOTEBOOKS, ids=[book.stem for book in NOTEBOOKS])
def test_a_notebook_installs_hooklab_where_it_is_missing_and_only_there(book):
    """As IPython takes the first cell: what begins with % installs, the rest is Python."""
    first = sources(book)[0]
    assert re.search(r"^    %pip install -q .*hooklab", first, re.MULTILINE)
    code = re.sub(r"^    %pip (.*)$", r"    installed.append('''\1''')", first, flags=re.MULTILINE)
    for missing in (False, True):
        space = {"installed": []}
        exec(code.replace('"hooklab"', '"no_such_package"') if missing else code, space)
        assert len(space["installed"]) == missing


def test_links_to_binder_and_colab_lead_to_files_that_are_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*"), BINDER / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.suffix in (".md", ".ipynb"))
    paths = [*re.findall(r"mybinder\.org/v2/gh/[\w.-]+/[\w.-]+/[\w.-]+\?urlpath=(?:lab|doc)/tree/([^\s)\"\\]+)", text),
             *re.findall(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/([^\s)\"\\]+)", text)]
    assert len(paths) == len(re.findall(r"mybinder\.org/v2|colab\.research\.google\.com/github", text))
    assert [path for path in ["notebooks/00_tour.ipynb", *paths] if not (ROOT / path).is_file()] == []


def test_the_settings_are_ones_that_jupyterlab_knows():
    if find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed")
    for plugin, values in json.loads((BINDER / "overrides.json").read_text()).items():
        package, name = plugin.split(":")
        schema = json.loads((Path(sys.prefix) / "share/jupyter/lab/schemas" / package / f"{name}.json").read_text())
        assert set(values) <= set(schema["properties"])


def test_what_post_build_tries_holds():
    code = post_build()
    here = re.sub(r"^assert not torch\.cuda.*\n", "", code, flags=re.MULTILINE)  # this machine may have a GPU
    assert code.count("\n") == here.count("\n") + 1
    exec(here, {})


def test_a_session_fitted_into_its_memory_when_it_was_last_measured():
    page = (ROOT / "benchmarks/results/binder.md").read_text()
    (peak,) = re.findall(r"\*\*peak\*\* \| \*\*(\d+) MB", page)
    assert 100 < int(peak) < 2000 and "Failed" not in page


def test_repo2docker_makes_of_it_what_it_should(tmp_path):
    program = shutil.which("repo2docker")
    if program is None:
        pytest.skip("repo2docker is not installed")
    shutil.copytree(BINDER, tmp_path / "repo" / "binder")
    done = subprocess.run([program, "--no-build", "--debug", "."], cwd=tmp_path / "repo", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "Building conda environment for python=3.11" in said
    steps = ["COPY --chown=0:0 src/binder/environment.yml",
             'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"',
             "COPY --chown=0:0 src/ ", "RUN ./binder/postBuild", 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"']
    places = [said.find(step) for step in steps]
    assert -1 not in places and places == sorted(places)


# Dev container


def test_the_dev_container_does_what_the_readme_says():
    told = json.loads((DEV / "devcontainer.json").read_text())
    (command,) = re.findall(r"<!-- test -->\n```bash\n(.*?)\n```", (ROOT / "README.md").read_text())
    setup, tests = command.rsplit(" && ", 1)
    assert "-m pytest" in tests
    assert told["postCreateCommand"]["package"] == setup
    assert f"({told['postCreateCommand']['front end']} &&" in (ROOT / ".ci/run").read_text()
    python = told["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python.removeprefix("${containerWorkspaceFolder}/") in tests


def test_the_dev_container_has_python_a_browser_and_node():
    told = json.loads((DEV / "devcontainer.json").read_text())
    lines = (DEV / told["build"]["dockerfile"]).read_text().replace("\\\n", " ").splitlines()
    (base,) = [line for line in lines if line.startswith("FROM ")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert base.split()[1].startswith(f"python:{project['requires-python'].removeprefix('>=')}-")
    (installed,) = [line for line in lines if "apt-get install" in line]
    assert {"chromium", "nodejs", "npm", "git"} <= set(installed.split())
    user = told["remoteUser"]
    assert f"USER {user}" in lines and any(line.endswith(f" {user}") for line in lines if "useradd" in line)


# Colab


def a_view():
    return hl.view.grid(hl.Scores(np.eye(3), ("layer", "head")))


@pytest.fixture
def on_colab(monkeypatch):
    """The module by which Colab takes widgets that are not its own, as the kernel there has it."""
    output = types.ModuleType("google.colab.output")
    output._widgets = types.SimpleNamespace(_installed_url=None)
    output.enable_custom_widget_manager = lambda: setattr(output._widgets, "_installed_url", "https://colab/manager.js")
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    anywidget._util.enable_custom_widget_manager_once.cache_clear()
    yield output
    anywidget._util.enable_custom_widget_manager_once.cache_clear()


SAID = {colab.WIDGET: {"colab": {"custom_widget_manager": {"url": "https://colab/manager.js"}}}}


def test_on_colab_a_view_says_with_what_it_is_shown(on_colab):
    data, about = a_view()._repr_mimebundle_()
    assert colab.WIDGET in data and about == SAID


def test_on_colab_a_box_of_widgets_can_say_so_too(on_colab):
    assert colab.about() == SAID == colab.about()


def test_elsewhere_nothing_is_said():
    assert colab.about() == {}
    assert a_view()._repr_mimebundle_()[1] == {}
