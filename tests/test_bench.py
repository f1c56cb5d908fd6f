"""The experiment bench: what is kept of a call, and that it is found again."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from bench_kills import main as kill

import hooklab as hl
from hooklab.bench import Bench, artefacts, environment
from hooklab.bench.database import NAME
from hooklab.errors import HooklabWarning, RecordError
from hooklab.records import Unstored
from hooklab.records.exact import same


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")


def only(bench, name=None):
    (record,) = bench.runs(name)
    return record


# What is kept ----------------------------------------------------------------------------------------------------------


def test_identical_code_and_inputs_give_one_version_and_two_runs(bench):
    @bench.experiment
    def double(x):
        return 2 * x

    assert double(3) == double(3) == 6
    one, two = bench.runs("double")
    assert one.version == two.version and one.id < two.id
    assert one.about["arguments"] == two.about["arguments"]
    (version,) = bench.versions("double")
    assert (version.runs, version.finished) == (2, 2) and "return 2 * x" in version.source
    assert double.runs()[0].id == one.id and double.record().id == two.id


def test_a_run_knows_its_arguments_environment_time_output_and_numbers(bench):
    @bench.experiment(seed=3)
    def said(x, *rest, scale=2.0, **more):
        print("hello", x)
        bench.log("loss", 0.5, step=0)
        bench.log("loss", np.float32(0.25), step=1)
        return {"score": torch.tensor(1.5), "count": 4, "yes": True, "name": "n"}

    shown = io.StringIO()
    with redirect_stdout(shown):
        said(torch.ones(2, 3), 7, other=[1])
        assert isinstance(sys.stdout, io.StringIO)
    record = only(bench)
    assert record.output == "hello tensor([[1., 1., 1.],\n        [1., 1., 1.]])\n" == shown.getvalue()
    assert record.arguments["x"].startswith("Tensor float32 [2, 3] #") and record.arguments["scale"] == "2"
    assert record.arguments["rest"] == "(7,)" and record.arguments["more"] == "{'other': [1]}"
    assert record.metrics == {"loss": 0.25, "score": 1.5, "count": 4.0}
    assert record.series["loss"] == [(0, 0.5), (1, 0.25)] and record.seed == 3 and record.seconds >= 0
    around = record.environment
    assert around["python"] == ".".join(map(str, sys.version_info[:3]))
    assert around["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(around["versions"]) >= {"torch", "transformers", "nnsight", "numpy"}
    if around["git"] is not None:  # not in an unpacked archive
        assert len(around["git"]["commit"]) == 40 and around["git"]["dirty"] in (True, False)
    assert same(record.inputs["x"], torch.ones(2, 3)) and record.inputs["more"] == {"other": [1]}
    assert set(record.about["random"]) == {"python", "numpy", "torch"}


def test_the_commit_of_a_repository_and_that_it_was_changed_are_kept(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words], check=True,
                       capture_output=True)

    assert environment.git(tmp_path) is None
    git("init")
    (tmp_path / "a").write_text("one")
    git("add", "a")
    git("commit", "-m", "first")
    found = environment.git(tmp_path)
    assert len(found["commit"]) == 40 and found["dirty"] is False
    (tmp_path / "a").write_text("two")
    assert environment.git(tmp_path) == {"commit": found["commit"], "dirty": True}


def test_no_number_is_lost_on_its_way(bench):
    @bench.experiment
    def numbers():
        for value in (float("nan"), float("inf"), -2.5, 10**400, 1e-320):
            bench.log("odd", value)

    numbers()
    values = [value for _, value in only(bench).series["odd"]]
    assert np.isnan(values[0]) and values[1] == float("inf") and values[2:] == [-2.5, float("inf"), 1e-320]


def test_an_exception_is_recorded_and_raised_again(bench):
    @bench.experiment
    def fails(x):
        print("before")
        raise ValueError(f"no {x}")

    with pytest.raises(ValueError, match="no 3"):
        fails(3)
    record = only(bench)
    assert record.status == "failed" and record.output == "before\n"
    assert record.error.rstrip().endswith("ValueError: no 3") and "raise ValueError" in record.error
    with pytest.raises(RecordError, match="is failed: it has no result"):
        record.result


def test_an_interrupt_is_recorded_as_one(bench):
    @bench.experiment
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert only(bench).status == "interrupted"


def test_a_call_that_python_refuses_is_no_run(bench):
    @bench.experiment
    def one(x):
        return x

    with pytest.raises(TypeError):
        one()
    with pytest.raises(TypeError):
        one(1, 2)
    assert len(bench.runs()) == 0 and repr(bench.runs()) == "no runs"


@pytest.mark.parametrize("kind", ["async", "generator", "async generator"])
def test_functions_whose_work_comes_later_are_refused(bench, kind):
    async def waits():
        pass

    def gives():
        yield 1

    async def both():
        yield 1

    with pytest.raises(RecordError, match="make it a function that returns its result"):
        bench.experiment({"async": waits, "generator": gives, "async generator": both}[kind])


def test_a_seed_repeats_the_numbers_and_leaves_the_worlds_own_as_they_were(bench):
    @bench.experiment(seed=5)
    def draws():
        return [random.random(), np.random.rand(), float(torch.rand(()))]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert draws() == draws()
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == wanted
    for wrong in (-1, True, 0.5, "a"):
        with pytest.raises(RecordError, match="a seed is a whole number"):
            bench.experiment(seed=wrong)(lambda: 0)


def test_standard_output_is_the_worlds_own_again_afterwards(bench):
    before = sys.stdout

    @bench.experiment
    def outer():
        print("outer")
        return inner()

    @bench.experiment
    def inner():
        print("inner")

    outer()
    assert sys.stdout is before
    one, two = bench.runs()
    assert (one.output, two.output) == ("outer\ninner\n", "inner\n")
    assert two.parent == one.id and one.parent == ""


def test_threads_of_a_run_log_to_it(bench):
    @bench.experiment
    def threaded(n):
        threads = [threading.Thread(target=lambda i=i: (bench.log("i", i, i), sys.stdout.write(f"{i}\n"))) for i in range(n)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    threaded(20)
    record = only(bench)
    assert sorted(record.series["i"]) == [(i, float(i)) for i in range(20)]
    assert sorted(map(int, record.output.split())) == list(range(20))


def test_runs_side_by_side_keep_their_own(bench):
    meet = threading.Barrier(4)

    def work(i):
        meet.wait()
        bench.log("mine", i)
        print(f"line {i}")
        run = bench.current()
        late = threading.Thread(target=lambda: run.log("late", 10 * i))
        late.start(), late.join()
        lost = []
        stray = threading.Thread(target=lambda: lost.append(_refused(bench)))
        stray.start(), stray.join()
        meet.wait()
        return lost[0]

    kept = bench.experiment(work)
    threads = [threading.Thread(target=kept, args=(i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for record in bench.runs("work"):
        i = int(record.arguments["i"])
        assert record.metrics == {"mine": i, "late": 10.0 * i} and record.output == f"line {i}\n"
        assert "several runs go on at once" in record.result


def _refused(bench):
    try:
        bench.log("stray", 1)
    except RecordError as error:
        return str(error)


def test_logging_outside_of_a_run_is_an_error(bench):
    with pytest.raises(RecordError, match="no run of this bench goes on"):
        bench.log("loss", 1.0)


# Values ----------------------------------------------------------------------------------------------------------------

VALUES = {
    "ten megabytes": torch.arange(2_621_440, dtype=torch.float32),
    "bf16": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "bool": torch.tensor([[True, False]]), "int": torch.tensor([-(2**62), 2**62]), "empty": torch.empty(0, 4),
    "scalar": torch.tensor(float("nan")), "not contiguous": torch.arange(12.0).reshape(3, 4).T,
    "complex": torch.tensor([1 + 2j, float("nan") + 0j]), "shared": (lambda t: [t, t[1:], t])(torch.arange(4.0)),
    "array": np.arange(6, dtype=">i2").reshape(2, 3), "text array": np.array(["a", "bc"]),
    "containers": {"a": (1, [2.5, None, "x", float("inf")]), 3: {"$odd": True}, "nested": {"t": torch.ones(2)}},
    "bytes, sets, paths": [b"\x00\xff", {1, 2}, frozenset({"a"}), Path("a/b"), 1 - 2j],
    "scores": hl.Scores(np.eye(2), ("layer", "head"), unit="nats"),
    "run": hl.Run("metric prob", metrics={"main": {"prob": 0.5}}, data={"main.x": torch.ones(2)}, axes={"main.x": ("pos",)}),
    "surrogate text": "\ud800 \x00 ü",
}


@pytest.mark.parametrize("name", VALUES)
def test_a_result_comes_back_bit_for_bit(tmp_path, name):
    value = VALUES[name]
    keeper = artefacts.keep(value, tmp_path / "v")
    assert same(artefacts.fetch(tmp_path / "v"), value) and keeper.lost == []
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".pkl", ".pt", ".part")]


def test_a_large_result_is_binary_and_is_that_of_the_run(bench):
    wanted = torch.randn(2_621_440, generator=torch.Generator().manual_seed(1))

    @bench.experiment
    def large():
        return {"activations": wanted.clone()}

    large()
    record = only(bench)
    assert same(record.result["activations"], wanted)
    assert 10_485_760 <= (record.folder / "result.safetensors").stat().st_size < 10_500_000
    assert (record.folder / "result.json").stat().st_size < 1000


def test_activations_and_tables_come_back(tmp_path):
    acts = hl.Activations({"L0.resid_post": torch.ones(1, 2, 3)}, None, None, {"L0.resid_post": torch.zeros(1, 2, 3)})
    artefacts.keep(acts, tmp_path / "a")
    found = artefacts.fetch(tmp_path / "a")
    assert same(found.data, acts.data) and same(found.grads, acts.grads)
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]}, index=["r", "s"])
    artefacts.keep([table], tmp_path / "t")
    pd.testing.assert_frame_equal(artefacts.fetch(tmp_path / "t")[0], table)


def test_what_is_no_data_is_kept_as_text_and_called_so(bench):
    class Odd:
        def __repr__(self):
            raise RuntimeError("no repr")

    @bench.experiment
    def odd():
        loop = [1]
        loop.append(loop)
        return {"object": object(), "worse": Odd(), "loop": loop, "kept": 1, "big": 2**80}

    odd()
    record = only(bench)
    assert {"object", "worse", "loop"} == {key for key, one in record.result.items() if isinstance(one, Unstored)} | {"loop"}
    assert isinstance(record.result["loop"][1], Unstored) and record.result["big"] == 2**80
    assert len([one for one in record.lost if "result/" in one]) == 3 and "not kept as data" in repr(record)


def test_a_changed_file_is_noticed(bench):
    bench.experiment(lambda: torch.ones(3), name="f")()
    record = only(bench)
    file = record.folder / "result.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecordError, match="changed or cut short"):
        record.result


def test_arguments_are_those_at_the_call(bench):
    @bench.experiment
    def eats(items):
        items.clear()

    eats([1, 2])
    assert only(bench).inputs == {"items": [1, 2]} and only(bench).arguments == {"items": "[1, 2]"}


# Figures ---------------------------------------------------------------------------------------------------------------


def test_a_function_receives_axes_and_its_figures_are_kept(bench):
    before, open_figures = dict(matplotlib.rcParams), plt.get_fignums()

    @bench.experiment
    @bench.plots("losses", heads=(2, 3), whole="figure")
    def drawn(values, losses, heads, whole):
        losses.plot(values)
        heads[1, 2].imshow(np.eye(3))
        whole.text(0.5, 0.5, "x")
        return heads.shape

    assert drawn([1, 2, 3]) == (2, 3)
    record = only(bench)
    assert set(record.figures) == {"losses", "heads", "whole"} and list(record.arguments) == ["values"]
    for path in record.figures.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert plt.imread(path).std() > 0
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == open_figures
    assert "<img" in record._repr_html_()


def test_figures_that_are_returned_or_logged_are_kept(bench):
    from matplotlib.figure import Figure

    @bench.experiment
    def pictures():
        figure = Figure()
        figure.subplots().plot([1, 2])
        bench.log("curve", figure)
        return {"also": figure}

    pictures()
    record = only(bench)
    assert len(record.figures) == 2 and all(path.is_file() for path in record.figures.values())


def test_plots_name_a_parameter_and_something_to_draw_on(bench):
    with pytest.raises(RecordError, match='no parameter los.* Did you mean "loss"'):
        bench.plots("los")(lambda loss: 0)
    with pytest.raises(RecordError, match="a grid such as"):
        bench.plots(loss=(0, 2))(lambda loss: 0)


# Processes -------------------------------------------------------------------------------------------------------------


def _many(folder, number, runs):
    torch.set_num_threads(1)
    bench = Bench(folder)

    @bench.experiment(name=f"work {number % 2}")
    def work(i, number):
        bench.log("i", i)
        return {"i": torch.tensor([i, number])}

    for i in range(runs):
        work(i, number)
    os._exit(0)


def test_eight_processes_that_write_at_once_lose_nothing(tmp_path):
    processes, runs = 8, 20
    context = multiprocessing.get_context("fork")
    several = [context.Process(target=_many, args=(tmp_path / "b", number, runs)) for number in range(processes)]
    for one in several:
        one.start()
    for one in several:
        one.join()
        assert one.exitcode == 0
    found = Bench(tmp_path / "b").runs()
    assert len(found) == processes * runs and {one.status for one in found} == {"finished"}
    seen = {tuple(one.result["i"].tolist()) for one in found}
    assert seen == {(i, number) for i in range(runs) for number in range(processes)}
    assert all(one.metrics == {"i": float(one.result["i"][0])} for one in found)
    assert len(Bench(tmp_path / "b").versions("work 0")) == 1


def test_a_run_survives_its_process_and_a_killed_one_is_marked(tmp_path):
    folder = tmp_path / "b"
    read, write = os.pipe()
    child = os.fork()
    if not child:
        bench = Bench(folder)
        bench.experiment(lambda: torch.ones(2), name="done")()

        def hang():
            bench.log("got", 1)
            bench.current().flush()
            os.write(write, b"x")
            time.sleep(60)

        bench.experiment(hang)()
    os.read(read, 1)
    bench = Bench(folder)
    assert [one.status for one in bench.runs()] == ["finished", "running"]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert [one.status for one in bench.runs()] == ["finished", "killed"]
    assert same(bench.runs("done")[0].result, torch.ones(2)) and bench.runs("hang")[0].metrics == {"got": 1.0}
    assert len(bench.runs(status="killed")) == 1


def test_runs_that_are_killed_at_random_moments_are_marked_and_the_others_are_there(tmp_path):
    seen = kill(tmp_path, 5)
    assert seen["kills"] == 5 and seen["finished"] >= 3


# Finding ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_name(bench):
    kept = bench.experiment(lambda: 0, name="f")
    kept(), kept()
    one, two = bench.runs()
    assert bench.get(two.id[:-2]).id == two.id and bench.get(one.id).id == one.id
    with pytest.raises(RecordError, match="several runs begin with"):
        bench.get(one.id[:8])
    for wrong in ("nothing", "", "%", "2%"):
        with pytest.raises(RecordError):
            bench.get(wrong)
    with pytest.raises(RecordError, match='no run of .ff..* Did you mean "f"'):
        bench.runs("ff")


def test_runs_are_a_table_with_numbers_as_columns(bench):
    kept = bench.experiment(lambda x: {"loss": x / 2, "<b>": 1}, name="<script>")
    kept(1), kept("3" and 3)
    table = bench.runs().to_pandas()
    assert list(table["loss"]) == [0.5, 1.5] and list(table["status"]) == ["finished"] * 2
    page = bench._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>" not in page
    assert repr(bench.runs()).splitlines()[0].split() == [
        "run", "experiment", "version", "status", "started", "(UTC)", "seconds", "arguments", "loss", "<b>"]
    assert len(bench.runs()[1:]) == 1 and Bench(bench.folder).names() == ["<script>"]


def test_runs_are_shown_in_the_browser(bench):
    @bench.experiment
    def measured(x):
        return {"loss": x, "grid": hl.Scores(np.eye(2), ("layer", "head"))}

    measured(1), measured(2)
    view = bench.show()
    first = view.entries[-1]
    view.select(run=first.key)
    assert view.run.metrics == {"measured": {"loss": 1.0}} and view.run.scores["measured.grid"].shape == (2, 2)
    assert "def measured" in view.run.spec and "measured" in view.static()
    view.close()


# What goes wrong -------------------------------------------------------------------------------------------------------


def test_a_newer_bench_and_a_stranger_are_refused(bench, tmp_path):
    with sqlite3.connect(bench.folder / NAME) as link:
        link.execute("PRAGMA user_version=99")
    link.close()
    with pytest.raises(RecordError, match="version 99.*install a newer hooklab"):
        Bench(bench.folder)
    for name, data in (("text", b"hello" * 1000), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).write_bytes(data)
        with pytest.raises(RecordError):
            Bench(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="is a file"):
        Bench(tmp_path / "file")


def _on_a_full_disk(folder, write):
    """Run in a child: files of more than a few bytes cannot be written any more."""
    bench = Bench(folder)

    @bench.experiment
    def large(n):
        if n:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        return np.arange(n)

    large(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [int(large(1_000_000).sum()), str(said[0].message)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        large(0)
    except RecordError as error:
        found.append(str(error))
    os.write(write, json.dumps(found).encode())


def test_a_full_disk_loses_no_result(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            _on_a_full_disk(tmp_path / "b", write)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        value, warned, refused = json.load(pipe)
    assert value == 499999500000 and "its value is yours" in warned and "File too large" in warned
    assert "cannot be" in refused
    one, two, *_ = Bench(tmp_path / "b").runs()
    assert one.status == two.status == "finished" and "File too large" in two.about["troubles"][0]
    with pytest.raises(RecordError, match="nothing is kept under"):
        two.result


def test_a_result_that_cannot_be_recorded_still_reaches_the_caller(bench, monkeypatch):
    kept = bench.experiment(lambda: 41 + 1, name="f")

    def broken(*_):
        raise RecordError("the disk is gone")

    monkeypatch.setattr(bench, "end", broken)
    with pytest.warns(HooklabWarning, match="its value is yours.*the disk is gone"):
        assert kept() == 42
    assert only(bench).status == "killed"  # this process knows nothing of it any more


def test_a_bench_that_cannot_be_written_to_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="no bench could be made"):
        Bench(tmp_path / "file" / "inside")

