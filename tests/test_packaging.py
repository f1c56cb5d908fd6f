"""The package as it is shipped: light to import, complete when built, and silent about where it was made."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import hooklab as hl
from hooklab.families import _BUILT_IN, WRAPPERS
from hooklab.views.assets import MOST_CARRIED, carried

ROOT = Path(__file__).parent.parent
PACKAGES = [hl, hl.analysis, hl.bench, hl.check, hl.data, hl.view]


def test_public_names_resolve():
    for name in hl.__all__:
        assert getattr(hl, name) is not None
    assert set(hl.__all__) <= set(dir(hl))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_that_is_loaded_on_first_use_is_where_it_is_said_to_be(package):
    for name in package._HOME:  # asked of the loader itself: a submodule that happens to be imported would stand in for it
        assert package.__getattr__(name) is not None


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_name_is_the_same_whichever_is_imported_first_it_or_a_module_called_so(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package._HOME)
    for name in modules:
        assert package.__getattr__(name) is importlib.import_module(f"{package.__name__}.{name}")


@pytest.mark.parametrize(("asked", "place"), [
    ("hl.head_scores", "It is hl.analysis.head_scores"), ("hl.train_sae", "It is hl.sae.train_sae"),
    ("hl.Store", "It is hl.data.Store"), ("hl.attention", "It is hl.view.attention"),
    ("hl.profile", "It is hl.bench.profile"), ("hl.analysis.lenses", "Did you mean hl.lens?"),
    ("hl.head_score", "Did you mean hl.analysis.head_scores?"), ("hl.swep", "Did you mean 'sweep'?"),
    ("hl.analysis.heads_scores", "Did you mean 'head_scores'?")])
def test_a_name_that_stands_elsewhere_is_said_to_stand_there(asked, place):
    with pytest.raises(AttributeError) as caught:
        eval(asked)
    assert str(caught.value).endswith(f". {place}")


def test_asking_for_a_hidden_name_loads_nothing():
    code = "import sys, hooklab; assert not hasattr(hooklab, '_repr_png_'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_builder_is_begun_by_its_packages_name():
    assert isinstance(hl.spec, ModuleType) and str(hl.spec().seed(3)) == "seed 3"
    with pytest.raises(TypeError):
        hl.spec("seed 3")


def test_the_wheel_holds_the_shipped_model(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in (ROOT / "hooklab" / "views" / "static").iterdir():
        assert f"hooklab/views/static/{file.name}" in names
    assert not [name for name in names if name.startswith("widgets") or name.endswith((".ts", ".tsx"))]
    assert hl.__version__ in wheel.name
    for file in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        assert f"hooklab/model/lab/weights/{file}" in names
    assert not [name for name in names if name.startswith("tests")]


def test_the_source_archive_holds_what_the_views_are_built_from(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for file in ("package.json", "package-lock.json", "build.mjs", "tsconfig.json", "README.md", "src/core/stage.ts",
                 "src/page/host.ts", "tests/stage.test.ts"):
        assert f"widgets/{file}" in names
    assert {"hooklab/views/static/host.js", "hooklab/views/static/grid.css"} <= names
    assert not [name for name in names if "node_modules" in name]


def test_every_view_of_the_front_end_is_built_and_within_its_limit():
    """A module travels with every instance of its view, so a large one makes large notebooks."""
    static = ROOT / "hooklab" / "views" / "static"
    sources = {path.stem for path in (ROOT / "widgets" / "src" / "views").iterdir()}
    assert {path.stem for path in static.glob("*.js")} == sources | {"host"}
    assert {path.stem for path in static.glob("*.css")} == sources
    assert not [name for name in sources if len(carried(name)) > MOST_CARRIED]
    assert not [path.name for path in static.glob("*.css") if path.stat().st_size > MOST_CARRIED]


def test_ci_checks_the_front_end_and_that_it_is_the_one_that_is_shipped():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "npm ci" in script and "npm run check" in script and "git status --porcelain -- hooklab/views/static" in script


def test_constraints_pin_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-") for line in wanted}
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line}
    assert names <= pinned
    assert "://" not in text
    assert "+" not in text


def test_the_readme_gives_two_commands_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"<!-- (\w+) -->\n```bash\n(.*?)\n```", readme)
    assert [name for name, _ in commands] == ["demo", "test"]
    assert commands[0][1].endswith("hooklab demo")
    assert "-m pytest" in commands[1][1]
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()


def own_files():
    """The project's files: what git tracks or, in an unpacked archive, everything outside hidden and cache folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and (ROOT / ".git").exists():
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    tops = [path for path in ROOT.iterdir() if not path.name.startswith(".")]
    found = [ROOT / ".ci" / "run", *(file for top in tops for file in ([top] if top.is_file() else top.rglob("*")))]
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]


def test_no_file_speaks_of_the_place_where_it_was_written():
    place = re.compile(rb"(?<![\w.])/(?:work|root|opt|tmp|home)/[a-z]|file://|index-url|pypi\.org", re.IGNORECASE)
    files = [file for file in own_files() if file.suffix not in {".safetensors", ".png", ".gif"} and file != Path(__file__)]
    assert ROOT / "README.md" in files
    spoken = {str(file.relative_to(ROOT)): found[0] for file in files if (found := place.search(file.read_bytes()))}
    assert not spoken


def test_the_readme_cell_runs_and_its_claims_hold():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((model, text),) = re.findall(r"<!-- cell -->\n```\n%%hook (\w+)\n(.*?)```", readme, re.DOTALL)
    with hl.load(model) as opened:
        run = opened.run(text)
    assert len(run.expectations) == 2 and all(claim.holds for claim in run.expectations)
    assert run.grid.axes == ("layer", "pos")


def test_the_readme_example_runs(tmp_path):
    """The example prints, to the letter, what stands under it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((code, output),) = re.findall(r"<!-- example -->\n```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def test_the_sweep_of_the_readme_gives_what_stands_under_it(capsys):
    """To the letter, numbers to the third digit: processors differ in the last ones."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((code, output),) = re.findall(r"<!-- sweep -->\n```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    number = re.compile(r"-?\d+\.\d+")
    assert number.sub("0", said).split() == number.sub("0", output).split()
    found, written = ([float(n) for n in number.findall(text)] for text in (said, output))
    assert found == pytest.approx(written, rel=0.02, abs=0.01)


def test_the_experiment_of_the_readme_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"<!-- bench -->\n```python\n(.*?)```", readme, re.DOTALL)[1]
    file = tmp_path / "experiment.py"
    file.write_text(code, "utf-8")
    names = {"hl": hl, "model": hl.load("lab"), "__name__": "experiment", "__file__": str(file)}
    exec(compile(code, str(file), "exec"), names)
    (run,) = names["bench"].runs("heads_that_matter")
    assert run.status == "finished"
    assert run.metrics["strongest"] < -5
    assert "heads_that_matter" in capsys.readouterr().out


def test_the_readme_names_every_family():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Families")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w-]+)`", table))
    assert {name.removesuffix("_text") for name in {*_BUILT_IN, *WRAPPERS}} <= named


def test_links_of_the_readme_and_contributing_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\((?!https://(?:mybinder|colab)\.)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / link).exists(), f"{page}: {link}"
