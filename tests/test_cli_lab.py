"""`hooklab lab`: copies that never overwrite a reader's work, and a server that comes and goes without a trace."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from hooklab import tutorials
from hooklab.cli import lab, main
from hooklab.errors import HooklabError

ROOT = Path(__file__).parent.parent
STARTING = "import pathlib, sys\nimport hooklab.tutorials as t\nt._PACKAGE = pathlib.Path(sys.argv[1])\n" \
           "from hooklab.cli import main\nsys.exit(main(sys.argv[2:]))"
"""A command line whose tutorials are those of a folder."""


def written(path, text, title):
    cells = [nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_markdown_cell(f"Before it.\n\n# {title}\n\n## Part")]
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell(text)]), path)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """An installed package's folder of two tutorials, a picture, and what is not for readers."""
    folder = tmp_path / "package" / "notebooks"
    (folder / "pictures").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    written(folder / "00_tour.ipynb", "text", "A tour")
    written(folder / "03_heads.ipynb", "text", "Heads")
    (folder / "pictures" / "a.png").write_bytes(b"picture")
    for name in ("README.md", "build.py", ".ipynb_checkpoints/00_tour.ipynb"):
        (folder / name).write_text("not for readers")
    monkeypatch.setattr(tutorials, "_PACKAGE", folder.parent)
    monkeypatch.chdir(tmp_path)
    return folder


FILES = ("00_tour.ipynb", "03_heads.ipynb", "pictures/a.png")


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*")
            if file.is_file() and file.name != tutorials.NOTE}


def test_copies_are_what_is_shipped_for_readers(shipped, tmp_path):
    copies = tutorials.copied(tmp_path / "mine")
    assert copies.written == FILES and not copies.kept and not copies.changed
    assert contents(copies.folder) == {name: (shipped / name).read_bytes() for name in FILES}


def test_an_edited_copy_stays_and_a_deleted_one_comes_back(shipped, tmp_path):
    folder = tutorials.copied(tmp_path / "mine").folder
    (folder / "00_tour.ipynb").write_text("my work")
    (folder / "03_heads.ipynb").unlink()
    again = tutorials.copied(folder)
    assert (again.written, again.changed) == (("03_heads.ipynb",), ())
    assert (folder / "00_tour.ipynb").read_text() == "my work"
    assert "00_tour.ipynb" in again.kept


@pytest.mark.parametrize("edited", [False, True])
def test_a_tutorial_that_changed_is_said_and_not_forced(shipped, tmp_path, edited, capsys):
    folder = tutorials.copied(tmp_path / "mine").folder
    if edited:
        (folder / "00_tour.ipynb").write_text("my work")
    before = contents(folder)
    written(shipped / "00_tour.ipynb", "a better text", "A tour")
    for _ in range(2):  # also the second time
        again = tutorials.copied(folder)
        assert (again.written, again.changed) == ((), ("00_tour.ipynb",))
    assert contents(folder) == before
    assert "00_tour.ipynb" in lab.told(again) and "--fresh" in lab.told(again)
    fresh = tutorials.copied(folder, fresh=True)
    assert fresh.folder.name == "mine-2" and fresh.written == FILES
    assert contents(folder) == before
    assert tutorials.copied(folder, fresh=True).folder.name == "mine-3"


def test_a_file_of_unknown_origin_stays_and_is_said(shipped, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "00_tour.ipynb").write_text("not from here")
    assert tutorials.copied(tmp_path / "mine").changed == ("00_tour.ipynb",)
    (tmp_path / "mine" / tutorials.NOTE).write_text('{"schema": 1, "sha256": 3')
    assert tutorials.copied(tmp_path / "mine").changed == ("00_tour.ipynb",)
    assert (tmp_path / "mine" / "00_tour.ipynb").read_text() == "not from here"


def test_a_link_that_leads_nowhere_is_not_followed(shipped, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "00_tour.ipynb").symlink_to(tmp_path / "elsewhere.ipynb")
    assert tutorials.copied(tmp_path / "mine").changed == ("00_tour.ipynb",)
    assert not (tmp_path / "elsewhere.ipynb").exists()


def test_an_empty_folder_is_fresh_enough(shipped, tmp_path):
    (tmp_path / "mine").mkdir()
    assert tutorials.copied(tmp_path / "mine", fresh=True).folder == tmp_path / "mine"


def test_two_at_a_time_write_every_file_once(shipped, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        all_copies = list(pool.map(lambda _: tutorials.copied(tmp_path / "mine"), range(8)))
        fresh = list(pool.map(lambda _: tutorials.copied(tmp_path / "mine", fresh=True), range(4)))
    assert sorted(name for copies in all_copies for name in copies.written) == sorted(FILES)
    assert not any(copies.changed for copies in all_copies)
    assert len({copies.folder for copies in fresh}) == 4
    assert contents(tmp_path / "mine") == {name: (shipped / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(("word", "name"), [("0", "00_tour"), ("00", "00_tour"), ("3", "03_heads"), ("03_h", "03_heads"),
                                            ("03_HEADS.ipynb", "03_heads"), (" 03_heads ", "03_heads")])
def test_a_tutorial_is_chosen_by_number_or_name(shipped, word, name):
    assert tutorials.chosen(word, tutorials.tutorials()).path.stem == name


def test_titles_are_the_first_headings(shipped):
    assert [(one.number, one.title) for one in tutorials.tutorials()] == [("00", "A tour"), ("03", "Heads")]


@pytest.mark.parametrize(("words", "text"), [
    (["--notebook", "7"], '"7" is no tutorial; choose one of 00_tour.ipynb, 03_heads.ipynb'),
    (["--notebook", ""], "is no tutorial"),
    (["--notebook", "*"], "is no tutorial"),
    (["03"], "--notebook 03"),
    (["--port", "70000"], "1 to 65535"),
    (["--port", "0"], "1 to 65535"),
    (["--folder", "no/such/place"], "There is no folder"),
    (["--folder", "file"], "cannot be copied"),
])
def test_mistakes_are_one_line_and_nothing_is_written(shipped, tmp_path, words, text, capsys):
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    assert main(["lab", "--json", *words]) == 2
    told = capsys.readouterr()
    assert text in told.err and told.err.count("\n") == 1 and not told.out
    assert sorted(tmp_path.rglob("*")) == before


def test_without_tutorials_the_error_says_where_they_should_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tutorials, "_PACKAGE", tmp_path)
    assert main(["lab"]) == 2
    assert str(tmp_path / "notebooks") in capsys.readouterr().err


def test_a_stranger_s_folder_beside_an_installed_package_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "site" / "hooklab").mkdir(parents=True)
    (tmp_path / "site" / "notebooks").mkdir()
    written(tmp_path / "site" / "notebooks" / "00_theirs.ipynb", "", "Theirs")
    monkeypatch.setattr(tutorials, "_PACKAGE", tmp_path / "site" / "hooklab")
    with pytest.raises(HooklabError, match="not in"):
        tutorials.source()


def test_a_notebook_that_is_none_is_named(shipped):
    (shipped / "05_broken.ipynb").write_text('{"cells": [1]}')
    with pytest.raises(HooklabError, match=r"05_broken\.ipynb is no notebook"):
        tutorials.tutorials()


def test_json_says_what_opens_them_and_starts_nothing(shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "start", lambda arguments: pytest.fail("it starts"))
    assert main(["lab", "--json", "--notebook", "3", "--port", "8899", "--no-browser", "--", "--ServerApp.port=1"]) == 0
    line = capsys.readouterr().out
    said = json.loads(line)
    assert line.count("\n") == 1
    assert said["folder"] == str(tmp_path / lab.FOLDER)
    assert said["files"] == sorted(FILES) and said["notebook"] == "03_heads.ipynb"
    command = said["command"]
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[-1] == "--ServerApp.port=1" and "--no-browser" in command and "--ServerApp.port=8899" in command
    assert "--LabApp.default_url=/lab/tree/03_heads.ipynb" in command


def test_without_jupyterlab_it_says_what_to_install_and_copies_nothing(shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert main(["lab"]) == 2
    assert "pip install 'hooklab[notebook]'" in capsys.readouterr().err
    assert not (tmp_path / lab.FOLDER).exists()


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt(), 0), (SystemExit(0), 0), (SystemExit(None), 0),
                                             (SystemExit(3), 3), (SystemExit("a reason"), 1)])
def test_ctrl_c_while_it_starts_is_no_failure_and_jupyterlab_s_own_is(shipped, monkeypatch, end, status):
    def launch_instance(argv):
        raise end

    module = types.ModuleType("jupyterlab.labapp")
    module.LabApp = types.SimpleNamespace(launch_instance=launch_instance)
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", module)
    assert main(["lab", "--", "--allow-root"]) == status


def children(pid):
    """The processes that a process started, and those that these started."""
    tasks = [task for task in Path(f"/proc/{pid}/task").glob("*/children")]
    found = [int(word) for task in tasks for word in task.read_text().split()]
    return [*found, *(inner for one in found for inner in children(one))]


def asked(address, token, path, data=None):
    request = urllib.request.Request(f"{address}{path}", data=json.dumps(data).encode() if data else None,
                                     headers={"Authorization": f"token {token}"})
    for _ in range(300):  # the address is printed before the server listens
        with suppress(urllib.error.URLError), urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
        time.sleep(0.1)
    raise AssertionError(f"no answer at {path}")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")
def test_it_serves_the_tutorials_until_it_is_interrupted(shipped, tmp_path):
    """And the second start leaves an edited notebook as it is."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    places = {f"JUPYTER_{name}": str(tmp_path / "own" / name) for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
    variables = {**os.environ, **places, "HOME": str(tmp_path / "own"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", STARTING, str(shipped.parent), "lab", "--no-browser", "--notebook", "3", "--port", port,
               "--", "--allow-root", "--LabApp.news_url=None"]
    mine = tmp_path / lab.FOLDER
    mine.mkdir()
    (mine / "00_tour.ipynb").write_text("my work")
    process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    stuck = threading.Timer(90, process.kill)
    stuck.start()
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/lab/tree/03_heads\.ipynb\?token=(\w+)", line):
                break
        assert found, "".join(lines)
        address, token = found.groups()
        listed = asked(address, token, "/api/contents/")["content"]
        assert {one["path"] for one in listed} == {"00_tour.ipynb", "03_heads.ipynb", "pictures"}
        assert asked(address, token, "/api/contents/03_heads.ipynb")["content"]["cells"][1]["source"].startswith("Before")
        asked(address, token, "/api/kernels", {"name": "python3"})
        kernels = children(process.pid)
        assert kernels
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=180)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        stuck.cancel()
        process.kill()
        process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").is_dir() for pid in kernels):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").is_dir() for pid in kernels)
    assert (mine / "00_tour.ipynb").read_text() == "my work"


def test_the_wheel_carries_the_tutorials_where_an_installed_package_looks(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        opened.extractall(tmp_path / "site")
    here = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert [name for name in names if name.endswith(".ipynb")] == [f"hooklab/notebooks/{name}" for name in here]
    assert not [name for name in names if name.startswith(("notebooks", "hooklab/notebooks/.")) or ".ipynb_check" in name]
    monkeypatch.setattr(tutorials, "_PACKAGE", tmp_path / "site" / "hooklab")
    assert [one.path.name for one in tutorials.tutorials()] == here
    assert [one.path.name for one in tutorials.tutorials(ROOT / "notebooks")] == here
