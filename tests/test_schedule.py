"""Tests that share what takes long to prepare run in one process, and what takes long begins first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("xdist", reason="pytest-xdist is not installed")

from schedule import BROWSER, LONG, TUTORIALS, Files, unit

ROOT = Path(__file__).parent.parent


def test_a_file_is_one_unit_whatever_its_tests_are_called():
    ids = ["tests/test_a.py::test_one", "tests/test_a.py::test_two[x[0]::y@z]", "tests/test_a.py::Case::test_three"]
    assert {unit(one) for one in ids} == {"tests/test_a.py"}
    assert unit("hooklab/a.py::hooklab.a.name") == "hooklab/a.py"


def test_browsers_share_a_unit_and_tutorials_have_one_each():
    assert {unit(f"{file}::test_one[x]") for file in BROWSER} == {"browser"}
    runs, other = f"{TUTORIALS}::test_runs", f"{TUTORIALS}::test_other"
    assert unit(f"{runs}[00_tour]") == unit(f"{other}[00_tour]") != unit(f"{runs}[01_forward_pass]")
    assert unit(f"{TUTORIALS}::test_all") == TUTORIALS


def test_every_file_that_is_named_exists():
    named = {name.partition("[")[0] for name in LONG} - {"browser"} | {*BROWSER, TUTORIALS}
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert all((ROOT / "notebooks" / f"{name.partition('[')[2][:-1]}.ipynb").is_file() for name in LONG if "[" in name)


class Node:
    """What the schedule asks of a process: to run tests by number."""

    shutting_down = False

    def __init__(self, ran):
        self.ran = ran

    def send_runtest_some(self, numbers):
        self.ran += [("run", *numbers)]

    def shutdown(self):
        self.shutting_down = True


def test_long_files_come_first_and_stay_whole():
    tests = ["tests/test_z.py::test_1", "tests/test_z.py::test_2", "tests/test_z.py::test_3",
             "tests/test_site.py::test_1", "tests/test_jupyterlab.py::test_1",
             f"{TUTORIALS}::test_1[a]", f"{TUTORIALS}::test_2[a]", "tests/test_views_browser.py::test_1"]
    given = []
    config = SimpleNamespace(getvalue=lambda name: ["popen"], option=SimpleNamespace(loadscopereorder=True))
    schedule, node = Files(config), Node(given)
    schedule.add_node(node)
    schedule.add_node_collection(node, tests)
    schedule.schedule()
    for done, _ in enumerate(tests):
        numbers = [number for _, *some in given for number in some]
        schedule.mark_test_complete(node, numbers[done])
    assert given == [("run", 4, 7), ("run", 3), ("run", 5, 6), ("run", 0, 1, 2)]
    assert schedule.tests_finished and node.shutting_down
