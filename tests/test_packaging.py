"""The package as it is shipped: light to import, complete when built, and silent about where it was made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import hooklab as hl

ROOT = Path(__file__).parent.parent


def test_public_names_resolve():
    for name in hl.__all__:
        assert getattr(hl, name) is not None
    assert set(hl.__all__) <= set(dir(hl))


def test_the_wheel_holds_the_shipped_model(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert hl.__version__ in wheel.name
    for file in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        assert f"hooklab/model/lab/weights/{file}" in names
    assert not [name for name in names if name.startswith("tests")]


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


def test_no_file_speaks_of_the_place_where_it_was_written():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.splitlines()] if listed.returncode == 0 else list(ROOT.rglob("*.py"))
    place = re.compile(r"(?<![\w.])/(?:work|root|opt|tmp)/[a-z]|index-url|subagent", re.IGNORECASE)
    for file in files:
        if file.suffix in {".py", ".md", ".toml", ".txt", ".json"} and file.name != "test_packaging.py" and file.is_file():
            assert not place.search(file.read_text(encoding="utf-8")), file


def test_the_readme_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(import hooklab.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code + "\nassert stream.shape[1] == logits.shape[1] == t.tokens.width == 15\n")
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "Mary" in done.stdout
