"""The experiment bench in rough hands: odd values, odd code, interrupts, other benches, other users."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import types

import numpy as np
import pandas as pd
import pytest
import torch

import hooklab as hl
from hooklab.bench import Bench, artefacts, interrupts
from hooklab.bench.database import NAME
from hooklab.errors import RecordError
from hooklab.records.exact import same

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")


# Names and places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "  ", None, 3, "a\0b"])
def test_a_bench_without_a_folder_is_refused_and_makes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match="a bench is in a folder"):
        Bench(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x", "/etc/x", HOSTILE, "a.b c", "ü 日本", "x" * 200])
def test_the_name_of_an_experiment_is_no_path_and_no_markup(bench, tmp_path, name):
    bench.experiment(lambda: {name: 1.0}, name=name)()
    record = bench.runs(name)[0]
    assert record.result == {name: 1.0} and bench.restore(record)() == {name: 1.0}
    assert {path.name for path in tmp_path.iterdir()} == {"bench"}
    pages = [bench._repr_html_(), record._repr_html_(), bench.versions()._repr_html_(),
             bench.diff(record, record)._repr_html_()]
    assert not any("<script" in page for page in pages)


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\0b", "a\nb", "\ud800", 3])
def test_a_name_that_cannot_be_shown_in_a_line_is_refused(bench, name):
    with pytest.raises(RecordError, match="cannot name an experiment"):
        bench.experiment(lambda: 1, name=name)
    if name not in ("", 3):
        @bench.experiment
        def logs():
            bench.log(name, 1.0)

        if len(name) < 200:
            with pytest.raises(RecordError, match="what is logged has a name"):
                logs()


def test_no_text_of_a_run_is_markup_on_a_page(bench):
    class Odd:
        def __repr__(self):
            return HOSTILE

    @bench.experiment
    def hostile(x):
        """<script>"""
        print(HOSTILE)
        bench.log("<b>", 1)
        bench.log("<i>", HOSTILE)
        if isinstance(x, str):
            raise ValueError(HOSTILE)
        return {HOSTILE: HOSTILE}

    hostile(Odd())
    with pytest.raises(ValueError):
        hostile(HOSTILE)
    one, two = bench.runs()
    pages = [bench._repr_html_(), one._repr_html_(), two._repr_html_(), bench.versions()._repr_html_(),
             bench.diff(one, two)._repr_html_()]
    assert not any(tag in page for page in pages for tag in ("<script", "<b>", "<i>"))
    assert all("&lt;script" in page for page in pages[1:3])


def test_a_folder_that_moved_keeps_its_runs_and_the_old_place_is_an_error(bench, tmp_path):
    kept = bench.experiment(lambda x: x, name="f")
    kept(torch.ones(2))
    bench.folder.rename(tmp_path / "elsewhere")
    moved = Bench(tmp_path / "elsewhere")
    assert same(moved.runs()[0].result, torch.ones(2)) and moved.restore(moved.runs()[0])(3) == 3
    with pytest.raises(RecordError):
        kept(1)
    with pytest.raises(RecordError):
        bench.runs()


def _as_another_user(folder, check):
    """What a child finds that is another user and cannot write to the folder."""
    if os.getuid():
        pytest.skip("only root can become another user")
    for place in [folder, *folder.parents][:5]:
        if "pytest" in str(place):
            place.chmod(0o755)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
            said = check(Bench(folder))
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(write, json.dumps(said).encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return json.load(pipe)


def test_another_user_reads_a_bench_and_is_told_that_it_cannot_be_written(bench):
    bench.experiment(lambda: torch.ones(2), name="f")()
    ran = []

    def check(other):
        found = other.runs()[0]
        with pytest.raises(RecordError, match="cannot be written to"):
            other.experiment(lambda: ran.append(1), name="g")()
        return [same(found.result, torch.ones(2)), found.status, len(ran)]

    assert _as_another_user(bench.folder, check) == [True, "finished", 0]


def test_a_copy_that_cannot_be_written_shows_what_its_journal_holds(bench, tmp_path):
    bench.experiment(lambda: 1, name="f")()
    with sqlite3.connect(bench.folder / NAME) as link:  # a writer whose change is not in the file yet
        link.execute("UPDATE runs SET name = 'g'"), link.execute("UPDATE codes SET name = 'g'")
        link.commit()
        assert (bench.folder / f"{NAME}-wal").stat().st_size
        shutil.copytree(bench.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    link.close()
    assert _as_another_user(tmp_path / "copy", lambda other: other.names()) == ["g"]
    assert {path.name for path in (tmp_path / "copy").glob(f"{NAME}*")} == {NAME, f"{NAME}-wal"}


# Values ----------------------------------------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Found:
    logits: torch.Tensor
    count: int = 2


def kept(value, folder):
    keeper = artefacts.keep(value, folder / "v")
    return artefacts.fetch(folder / "v"), keeper.lost


@pytest.mark.parametrize("value", [np.float32(0.1), np.int8(-3), np.bool_(True), np.complex64(1 - 2j), np.float64("nan"),
                                   np.datetime64("2020-01-01")], ids=repr)
def test_a_scalar_of_numpy_keeps_its_kind(tmp_path, value):
    found, lost = kept({"x": [value]}, tmp_path)
    assert type(found["x"][0]) is type(value) and found["x"][0].tobytes() == value.tobytes() and not lost


def test_parts_of_named_tuples_and_dataclasses_are_data_and_the_class_is_called_lost(tmp_path):
    found, lost = kept([Point(torch.ones(2), 1), Found(torch.zeros(3)), torch.tensor([[1.0, 3.0]]).max(-1),
                        collections.defaultdict(int, a=1)], tmp_path)
    assert same(found[0], (torch.ones(2), 1)) and same(found[1], {"logits": torch.zeros(3), "count": 2})
    assert same(found[2], (torch.tensor([3.0]), torch.tensor([1]))) and found[3] == {"a": 1}
    assert len(lost) == 4 and "Point, kept as a plain sequence" in lost[0]


def test_a_table_that_would_come_back_otherwise_is_called_so(tmp_path):
    found, lost = kept(pd.DataFrame({"a": pd.Series([1, None], dtype=object)}), tmp_path)
    assert "its types may come back otherwise" in lost[0] and found.shape == (2, 1)


def test_an_argument_that_came_back_otherwise_is_asked_for_before_a_rerun(bench):
    double = bench.experiment(lambda p: p.x * 2, name="double")
    double(Point(3, 4))
    with pytest.raises(RecordError, match=r"the argument p was not kept as data .*given=\{'p'"):
        bench.rerun(double.last)
    assert bench.rerun(double.last, given={"p": Point(3, 4)}).same


def _deep(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


class Strange:
    shape, dtype = 5, 1


class Raising:
    dtype = 1

    @property
    def shape(self):
        raise RuntimeError("no shape")


@pytest.mark.parametrize("value", [10**6000, Strange(), Raising(), open, (i for i in range(3)), {"\ud800": 1.0},
                                   np.random.default_rng(0), torch.eye(2).to_sparse()], ids=lambda v: type(v).__name__)
def test_no_argument_or_result_keeps_a_function_from_running(bench, value):
    kept = bench.experiment(lambda x: x, name="f")
    assert kept(value) is value
    (record,) = bench.runs()
    assert record.status == "finished" and record.about["troubles"] == []
    repr(record), record._repr_html_(), record.result


def test_a_value_nested_more_deeply_than_python_can_follow_is_called_so(bench):
    kept = bench.experiment(lambda x: len(x), name="f")
    assert kept(_deep(5000)) == 1
    assert "nested too deeply" in str(bench.runs()[0].lost)


def test_whole_numbers_beyond_floats_differ_without_an_error(bench):
    kept = bench.experiment(lambda x: x, name="f")
    kept(10**400), kept(10**400 + 1), kept(10**6000)
    one, two, three = bench.runs()
    assert bench.diff(one, two).result and bench.diff(one, three).result and bench.get(three.id).result == 10**6000
    assert not bench.diff(one, one)


def test_records_and_views_of_hooklab_are_results(bench):
    acts = hl.Activations({"L0.resid_post": torch.ones(1, 2, 3)}, None, None, None)
    for value in (hl.Scores(np.eye(2), ("layer", "head")), hl.Run("metric prob"), acts):
        kept = bench.experiment(lambda value: value, name=type(value).__name__)
        kept(value)
        assert type(kept.record().result) is type(value) and kept.record().lost == []


# What is logged --------------------------------------------------------------------------------------------------------


def test_a_tensor_or_figure_is_logged_as_it_is_at_that_moment(bench):
    from matplotlib.figure import Figure

    @bench.experiment
    def trains():
        weights, figure = torch.zeros(3), Figure()
        axes = figure.subplots()
        for step in range(2):
            weights += 1
            axes.plot([step, 5 * step])
            bench.log("weights", weights, step)
            bench.log("curve", figure, step)

    trains()
    record = trains.record()
    assert same(record.logged, {"weights[0]": torch.ones(3), "weights[1]": 2 * torch.ones(3)})
    assert record.figures["curve[0]"].read_bytes() != record.figures["curve[1]"].read_bytes()


def test_a_figure_that_cannot_be_drawn_costs_neither_the_result_nor_other_figures(bench):
    from matplotlib.figure import Figure

    @bench.experiment
    @bench.plots("bad", "good")
    def draws(bad, good):
        bad.set_title("$\\undefined{$")
        good.plot([1, 2])
        wrong = Figure()
        wrong.text(0, 0, "$\\undefined{$")
        bench.log("also bad", wrong)
        return {"kept": torch.ones(2), "figure": wrong}

    with pytest.warns(hl.errors.HooklabWarning, match="could not be kept whole"):
        draws()
    record = draws.record()
    assert record.status == "finished" and same(record.result["kept"], torch.ones(2)) and [*record.figures] == ["good"]
    assert len(record.about["troubles"]) == 2 and "result/figure" in str(record.lost)


def test_the_same_number_twice_at_one_step_is_kept_twice_and_a_value_twice_is_refused(bench):
    @bench.experiment
    def logs():
        bench.log("loss", 1.0, 0)
        bench.log("loss", 2.0, 0)
        bench.log("text", "a", 0)
        with pytest.raises(RecordError, match="logged or drawn already"):
            bench.log("text", "b", 0)

    logs()
    record = logs.record()
    assert record.series["loss"] == [(0, 1.0), (0, 2.0)] and record.metrics["loss"] == 2.0
    assert record.logged == {"text[0]": "a"}


def test_each_of_two_benches_has_the_numbers_that_were_logged_to_it(tmp_path):
    one, two = Bench(tmp_path / "one"), Bench(tmp_path / "two")

    @two.experiment
    def inner():
        one.log("outer", 1.0)
        two.log("inner", 2.0)
        print("inside")

    @one.experiment
    def outer():
        inner()
        with pytest.raises(RecordError, match="no run of this bench"):
            two.log("late", 3.0)

    outer()
    (first,), (second,) = one.runs(), two.runs()
    assert first.metrics == {"outer": 1.0} and second.metrics == {"inner": 2.0}
    assert first.output == second.output == "inside\n" and second.parent == ""
    again = Bench(tmp_path / "one")  # a second bench in the same folder sees, and continues, the same
    again.experiment(lambda: one.log("here", 1), name="f")()
    assert len(one.runs()) == len(again.runs()) == 2 and one.runs("f")[0].metrics == {"here": 1.0}


def test_threads_that_run_experiments_at_once_keep_arguments_and_results_apart(bench):
    kept = bench.experiment(lambda i: (bench.log("i", i), torch.full((2,), i))[1], name="f")
    threads = [threading.Thread(target=kept, args=(i,)) for i in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(record.inputs["i"] for record in bench.runs()) == list(range(6))
    assert all(record.metrics == {"i": record.inputs["i"]} and same(record.result, torch.full((2,), record.inputs["i"]))
               for record in bench.runs())


# Interrupts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted_store(bench, monkeypatch):
    """A bench that is interrupted while it stores the end of its first run; what was put off comes when a test waits."""
    end, left = bench.end, [1]
    monkeypatch.setattr(interrupts, "SOON", 2.0)  # this far from what a test does, however busy the machine is

    def slow(*args):
        if left:
            left.pop()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        end(*args)

    monkeypatch.setattr(bench, "end", slow)
    return bench


def test_an_interrupt_while_a_run_is_stored_comes_when_the_value_has_been_returned(interrupted_store):
    kept = interrupted_store.experiment(lambda: torch.ones(2), name="f")
    handler, found = signal.getsignal(signal.SIGINT), None
    with pytest.raises(KeyboardInterrupt):
        found = kept()
        time.sleep(60)
    assert same(found, torch.ones(2)) and signal.getsignal(signal.SIGINT) is handler
    assert kept.record().status == "finished" and same(kept.record().result, torch.ones(2))


def test_an_interrupt_while_a_run_is_stored_ends_a_loop_of_quick_runs(interrupted_store):
    kept, found = interrupted_store.experiment(lambda: 1, name="f"), []
    with pytest.raises(KeyboardInterrupt):
        for _ in range(200):  # an interrupt that got lost shall fail the test, and not hang it
            found.append(kept())
    assert found == [1] and [record.status for record in interrupted_store.runs()] == ["finished"]


def test_an_error_is_raised_as_it_is_when_its_run_is_interrupted_while_it_is_stored(interrupted_store):
    def fails():
        raise ValueError("mine")

    found = None
    with pytest.raises(KeyboardInterrupt):  # around both, so that an interrupt too early fails this test and no other
        try:
            interrupted_store.experiment(fails)()
        except ValueError as error:
            found = str(error)
        time.sleep(60)
    assert found == "mine" and interrupted_store.runs()[0].status == "failed"


# Code ------------------------------------------------------------------------------------------------------------------

UTILS = "SCALE = {0}\ndef inner(x):\n    return x * SCALE\ndef f(x):\n    return inner(x)\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's, and a way to write it anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rough_utils", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(scale):
        (tmp_path / "rough_utils.py").write_text(UTILS.format(scale))
        importlib.invalidate_caches()

    write(2)
    yield write
    sys.modules.pop("rough_utils", None)


def test_a_helper_behind_a_module_counts_when_it_is_edited_reloaded_or_replaced(bench, module, monkeypatch):
    import rough_utils as u

    @bench.experiment
    def uses(x):
        return u.f(x)

    assert uses(3) == 6
    module(1000)
    assert uses(3) == 6  # the file has changed, the code that runs has not
    importlib.reload(u)
    assert uses(3) == 3000
    monkeypatch.setattr(u, "inner", lambda x: -x)
    assert uses(3) == -3
    versions = [record.version for record in bench.runs()]
    assert versions[0] == versions[1] and len(set(versions)) == 3
    assert "SCALE = 2" in bench.runs()[0].text and "SCALE = 1000" in bench.runs()[2].text


def test_a_run_is_restored_when_the_module_of_its_helper_is_gone(bench, module, tmp_path):
    import rough_utils

    @bench.experiment
    def uses(x):
        return rough_utils.f(x)

    uses(3)
    (tmp_path / "rough_utils.py").unlink()
    del sys.modules["rough_utils"]
    assert bench.restore(uses.last)(3) == 6 and bench.rerun(uses.last).same


def test_a_global_dictionary_that_changes_inside_makes_a_version(bench):
    settings = {"scale": [1]}

    @bench.experiment
    def scaled(x):
        return x * settings["scale"][0]

    scaled(3)
    settings["scale"][0] = 5
    assert scaled(3) == 15
    one, two = bench.runs()
    assert one.version != two.version and bench.restore(one)(3) == 3 and bench.restore(two)(3) == 15


class Holder:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return x * self.scale

    def method(self, x):
        return x * self.scale

    @staticmethod
    def still(x):
        return x + 1


def test_every_kind_of_callable_is_kept_or_refused_but_never_mistaken(bench):
    holder = Holder(2)
    for name, function, wanted in (("method", holder.method, 6), ("static", Holder.still, 4),
                                   ("partial", functools.partial(holder.method, 3), 6)):
        kept = bench.experiment(function, name=name)
        args = () if name == "partial" else (3,)
        assert kept(*args) == wanted
        first = kept.record().version
        holder.scale = 10
        assert kept(*args) == (4 if name == "static" else 30)
        assert (kept.record().version == first) == (name == "static")
        holder.scale = 2
    ran = []
    with pytest.raises(RecordError, match="no function whose code could be kept"):
        bench.experiment(types.SimpleNamespace(__call__=ran.append) and Holder(2), name="object")(3)


def test_the_order_of_decorators_changes_neither_what_is_handed_nor_the_version(bench):
    def f(x, lens, losses):
        return (callable(lens), hasattr(losses, "plot"), x)

    experiment, uses, plots = bench.experiment, bench.uses("lens"), bench.plots("losses")
    for first, second, third in ((experiment, uses, plots), (plots, experiment, uses), (uses, plots, experiment)):
        kept = third(second(first(f)))
        assert kept(1) == (True, True, 1)
    assert len({record.version for record in bench.runs()}) == 1
    assert all([*record.figures] == ["losses"] and [*record.arguments] == ["x"] for record in bench.runs())


def test_a_failed_and_a_good_run_differ_in_their_status_and_numbers(bench):
    def half(x):
        bench.log("seen", x)
        return 1 / x

    kept = bench.experiment(half)
    kept(2)
    with pytest.raises(ZeroDivisionError):
        kept(0)
    change = bench.diff(*bench.runs())
    assert change.result == {"status": ("finished", "failed")} and change.arguments == {"x": ("2", "0")}
    assert change.metrics == {"seen": ("2.0", "0.0"), "result": ("0.5", "")} and change.source == ""


def test_a_rerun_over_a_file_that_changed_says_so(bench, tmp_path):
    (tmp_path / "data.txt").write_text("1")

    @bench.experiment
    def read(path):
        return float(path.read_text())

    read(tmp_path / "data.txt")
    (tmp_path / "data.txt").write_text("2")
    again = bench.rerun(read.last)
    assert not again.same and again.differences[0] == ("result", "1.0", "2.0", 1.0)


def test_a_process_that_leaves_at_once_leaves_a_marked_run(tmp_path):
    child = os.fork()
    if not child:
        Bench(tmp_path / "b").experiment(lambda: os._exit(0), name="leaves")()
    os.waitpid(child, 0)
    assert [one.status for one in Bench(tmp_path / "b").runs()] == ["killed"]
