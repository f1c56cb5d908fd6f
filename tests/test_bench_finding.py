"""Finding what was run, tags, and the trash of a bench: by counting, and by killing processes in the middle of a move."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from datetime import UTC, date, datetime

import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.bench import Bench, marking, running
from hooklab.bench.database import NAME, Database, as_json
from hooklab.data.engines.owner import Owner
from hooklab.data.store.lock import Lock
from hooklab.errors import RecordError


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")


def forked(act):
    """The number of a process that does this and then ends, however it goes."""
    child = os.fork()
    if not child:
        try:
            act()
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        os._exit(1)
    return child


def numbered(bench, count, start=0):
    kept = bench.experiment(lambda i: {"i": i, "values": np.arange(i)}, name="numbered")
    for i in range(start, start + count):
        kept(i)
    return list(bench.runs("numbered"))


def found(records):
    return [record.metrics["i"] for record in records]


def at(bench, moments):
    """Set when the runs began."""
    bench._database.write(*(("UPDATE runs SET started = ? WHERE id = ?", (moment, record.id))
                            for record, moment in zip(bench.runs(), moments, strict=True)))


# where -----------------------------------------------------------------------------------------------------------------


def test_runs_are_found_by_status_experiment_and_number(bench):
    numbered(bench, 4)

    def breaks(i):
        bench.log("i", i)
        raise ValueError

    kept = bench.experiment(breaks)
    for i in (7, 8):
        with pytest.raises(ValueError):
            kept(i)
    runs = bench.runs()
    assert found(runs.where(status="failed")) == [7, 8]
    assert found(runs.where(status=["failed", "finished"])) == [0, 1, 2, 3, 7, 8]
    assert found(runs.where(experiment="numbered")) == [0, 1, 2, 3]
    assert found(runs.where(i=(2, 7))) == [2, 3, 7] and found(runs.where(i=(None, 1))) == [0, 1]
    assert found(runs.where(i=(3, None))) == [3, 7, 8] and found(runs.where(i=3)) == [3]
    assert found(runs.where(i=lambda i: i % 2 == 0)) == [0, 2, 8]
    assert found(runs.where(lambda run: run.seconds is not None and run.arguments["i"] == "2")) == [2]
    assert found(runs.where(status="finished", i=(2, None))) == [2, 3]
    assert found(runs.where(status="finished").where(experiment="breaks")) == [], "known to the whole list"
    assert found(runs[2:4].where(i=(3, None))) == [3]
    assert len(runs.where(status="running")) == 0, "there can be such a status"


def test_what_is_not_a_number_lies_in_no_range(bench):
    bench.experiment(lambda: {"loss": float("nan")}, name="f")()
    runs = bench.runs()
    assert not runs.where(loss=(None, 1e9)) and not runs.where(loss=(-1e9, None))
    assert len(runs.where(loss=lambda loss: loss != loss)) == 1
    assert not runs.where(loss=(np.float32(0), np.int64(3)))


def test_runs_are_found_by_the_moment_at_which_they_began(bench):
    numbered(bench, 3)
    start = datetime(2025, 6, 30, 12, tzinfo=UTC).timestamp()
    at(bench, [start, start + 3600, start + 86400])
    runs = bench.runs()
    assert found(runs.where(after="2025-06-30 13:00")) == [1, 2] and found(runs.where(before="2025-06-30 13:00")) == [0]
    assert found(runs.where(after="2025-07-01")) == [2] and found(runs.where(before=date(2025, 7, 1))) == [0, 1]
    assert found(runs.where(after="2025-06-30T14:00+02:00", before=start + 86400)) == [0, 1]
    assert found(runs.where(after=datetime(2025, 6, 30, 12, 30))) == [1, 2]


def test_runs_are_found_by_what_stands_in_their_inputs_however_long_it_is(bench):
    kept = bench.experiment(lambda prompt, other="": {"i": len(prompt)}, name="f")
    long = "word " * 100 + 'at the "end"\nof it'
    for prompt, other in ((long, ""), ("Mary went", "John"), (["John went", {"x": "Anna's"}], "")):
        kept(prompt, other=other)
    runs = bench.runs()
    assert found(runs.where(inputs="Mary")) == [9] and found(runs.where(inputs="John")) == [9, 2]
    assert found(runs.where(inputs={"prompt": "John"})) == [2]
    assert found(runs.where(inputs='the "end"\nof it')) == [len(long)], "behind what a table shows of it, with its line end"
    assert found(runs.where(inputs="Anna's")) == [2] and not runs.where(inputs="nobody")
    assert found(runs.where(inputs=["Mary", "Anna"])) == [9, 2]
    with pytest.raises(RecordError, match='"prompts?"'):
        runs.where(inputs={"promt": "x"})


def test_runs_are_found_by_the_name_the_fingerprint_and_the_weights_of_a_model(bench):
    kept = bench.experiment(lambda i, model: {"i": i}, name="f")
    lab, other = hl.load("lab"), hl.load(build("gpt2"), verify=False)
    kept(0, lab), kept(1, other), kept(2, None)
    runs = bench.runs()
    mark = runs[0].models["model"]
    for word in ("lab", mark, mark[:6], "#" + mark):
        assert found(runs.where(model=word)) == [0]
    assert found(runs.where(model=lab)) == [0] and found(runs.where(model=other)) == [1] == found(runs.where(model=other.hf))
    assert found(runs.where(model="GPT2LMHeadModel")) == [1]
    with pytest.raises(RecordError, match='Did you mean "lab"'):
        runs.where(model="labb")
    with pytest.raises(RecordError, match="no run here is of a model"):
        runs.where(model=mark[:2])
    reads = bench.experiment(lambda i: {"i": i, "layers": other.facts.n_layers}, name="g")
    reads(5)
    assert found(bench.runs().where(model=other)) == [1, 5], "a model that the code reads counts too"


@pytest.mark.parametrize(("asked", "says"), [
    ({"status": "finishd"}, 'Did you mean "finished"'), ({"experiment": "numberd"}, 'Did you mean "numbered"'),
    ({"tag": "god"}, 'Did you mean "good"'), ({"los": (0, 1)}, 'Did you mean "loss"'),
    ({"stauts": "failed"}, 'Did you mean "status"'), ({"inputs": {"j": "1"}}, "There is i"),
    ({"after": "yesterday"}, "takes a moment"), ({"before": True}, "takes a moment"),
    ({"loss": "low"}, "takes a number"), ({"loss": (1, 0)}, "no number lies"), ({"loss": (None, None)}, "takes a number"),
    ({"loss": (0, 1, 2)}, "takes a number"),
    ({"loss": True}, "takes a number"), ({"inputs": ""}, "takes a text"), ({"tag": []}, "takes a text"),
    ({"status": 3}, "takes a text"), ({"model": 3}, "takes a text")])
def test_an_unknown_name_is_an_error_with_the_nearest_right_one(bench, asked, says):
    bench.experiment(lambda i: {"loss": 0.5}, name="numbered")(1)
    bench.tag(bench.runs(), "good")
    with pytest.raises(RecordError, match=says):
        bench.runs().where(**asked)


def test_a_bench_without_runs_knows_no_names_and_has_none(bench):
    assert len(bench.runs().where(tag="later", model="any", loss=(0, 1), inputs="x")) == 0
    with pytest.raises(RecordError, match='Did you mean "failed"'):
        bench.runs().where(status="faild")


# Many ------------------------------------------------------------------------------------------------------------------

WATCHED = []
sys.addaudithook(lambda event, given: WATCHED.append(given[0]) if WATCHED and event == "open" else None)


def opened(act):
    """The files that something opens, as the interpreter tells it."""
    WATCHED[:] = ["start"]
    try:
        value = act()
        return value, [str(one) for one in WATCHED[1:]]
    finally:
        WATCHED.clear()


def many(bench, count):
    """A bench with many runs that ended, made of one that really ran."""
    numbered(bench, 1)
    (row,) = bench._database.read("SELECT * FROM runs")
    for start in range(0, count, 500):
        bench._database.write(*(step for i in range(start, min(start + 500, count)) for step in (
            ("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (f"many-{i:06d}", *row[1:3], "finished", *row[4:9])),
            ("INSERT INTO metrics VALUES (?, 'loss', NULL, ?)", (f"many-{i:06d}", i)),
            ("INSERT INTO tags VALUES (?, ?)", (f"many-{i:06d}", f"tag{i % 3}")))))


@pytest.mark.parametrize("count", [10, 1000])
def test_many_runs_are_found_with_a_few_questions_and_without_opening_a_file_of_theirs(bench, count, monkeypatch):
    many(bench, count)
    asked, read = [], Database.read
    monkeypatch.setattr(Database, "read", lambda self, question, *values: asked.append(question) or read(
        self, question, *values))
    records, files = opened(lambda: bench.runs().where(loss=(5, None), tag="tag0", status="finished", inputs="0",
                                                       experiment="numbered", after=0))
    assert [record.metrics["loss"] for record in records] == [i for i in range(5, count) if i % 3 == 0]
    assert len(asked) == 3, "runs, numbers, tags"
    assert files == [], "the database is opened by SQLite itself, and nothing else is"
    _, files = opened(lambda: open(__file__).close())
    assert files == [__file__], "what is opened would have been seen"


def test_a_hundred_runs_within_one_moment_have_names_of_their_own_in_their_order(bench, monkeypatch):
    monkeypatch.setattr(running.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    records = numbered(bench, 100)
    assert len({record.id for record in records}) == 100
    assert found(records) == list(range(100)) == [int(record.result["values"].size) for record in records]
    monkeypatch.setattr(running.time, "time_ns", lambda: 1_600_000_000_000_000_000)  # the clock was set back
    assert found(numbered(bench, 3, 100)) == list(range(103))


# Tags ------------------------------------------------------------------------------------------------------------------


def test_tags_are_given_and_taken_and_found(bench):
    one, two, three = numbered(bench, 3)
    (tagged,) = bench.tag(one.id, "good", "baseline")
    assert tagged.tags == ("good", "baseline") and "baseline" in repr(tagged)
    assert [run.tags for run in bench.tag([two, three.id], "good")] == [("good",), ("good",)]
    bench.tag(one, "good")
    again = Bench(bench.folder)
    assert found(again.runs().where(tag="good")) == [0, 1, 2] and found(again.runs().where(tag="baseline")) == [0]
    assert list(again.runs().to_pandas()["tags"]) == ["good baseline", "good", "good"]
    assert "good baseline" in repr(again.runs())
    assert found(bench.untag(bench.runs()[:2], "good")) == [0, 1]
    assert found(bench.runs().where(tag="good")) == [2]
    with pytest.raises(RecordError, match='no run of these has the tag .gud.*"good"'):
        bench.untag(three, "gud")
    assert bench.runs()[2].tags == ("good",)


@pytest.mark.parametrize("word", ["", " ", "a ", "a\n", 3, None, "x" * 81])
def test_what_is_no_word_is_no_tag(bench, word):
    numbered(bench, 1)
    with pytest.raises(RecordError, match="a tag is a word"):
        bench.tag(bench.runs()[0], word)
    with pytest.raises(RecordError, match="a tag is a word"):
        bench.tag(bench.runs()[0])


def test_a_run_that_goes_on_can_be_tagged_and_cannot_be_thrown_away(bench):
    @bench.experiment
    def tags_itself():
        bench.tag(bench.current(), "now")
        with pytest.raises(RecordError, match="goes on still"):
            bench.trash(bench.current())
        return {"i": 1}

    tags_itself()
    assert found(bench.runs().where(tag="now")) == [1] and not bench.trashed()


# The trash -------------------------------------------------------------------------------------------------------------


def tree(folder):
    """Every file of a bench besides its database, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(NAME)}


def test_what_is_thrown_away_is_out_of_sight_and_comes_back_as_it_was(bench):
    one, two, three = numbered(bench, 3)
    other = bench.experiment(lambda: {"i": 9}, name="other")
    other()
    bench.tag(two, "kept")
    before, shown, rows = tree(bench.folder), repr(bench.runs()), bench.runs()
    gone = bench.trash([two, bench.runs("other")[0]])
    assert found(gone) == [1, 9] and found(bench.trashed()) == [1, 9]
    assert found(bench.runs()) == [0, 2] and bench.names() == ["numbered"] and bench.versions()[0].runs == 2
    assert not (bench.folder / "runs" / two.id).exists() and found(Bench(bench.folder).runs()) == [0, 2]
    assert gone[0].result["values"].tolist() == [0], "it can be read where it is"
    assert sorted(map(len, tree(bench.folder).values())) == sorted(map(len, before.values())), "nothing was deleted"
    for act in (bench.get, bench.trash, bench.rerun, lambda run: bench.tag(run, "x")):
        with pytest.raises(RecordError, match=r"is in the trash: bench.restore_run"):
            act(two.id)
    with pytest.raises(RecordError, match="no run of 'other'"):
        bench.runs("other")
    assert found(bench.restore_run(two.id[:-1])) == [1] and found(bench.restore_run(gone[1])) == [9]
    assert tree(bench.folder) == before and repr(bench.runs()) == shown and not (bench.folder / ".trash").exists()
    assert [run.about for run in bench.runs()] == [run.about for run in rows] and bench.get(two.id).tags == ("kept",)
    with pytest.raises(RecordError, match="is not in the trash"):
        bench.restore_run(two)
    with pytest.raises(RecordError, match="there is no run 'x' in the trash"):
        bench.restore_run("x")


def test_all_runs_are_thrown_away_or_none(bench):
    one, two = numbered(bench, 2)
    elsewhere = Owner("x", "another machine", "", 1)
    bench._database.write(("UPDATE runs SET status = 'running', owner = ? WHERE id = ?", (as_json(vars(elsewhere)), two.id)))
    read, write = os.pipe()

    def holds():
        lock = Lock(bench.folder / "runs" / two.id)
        os.write(write, b"x")
        time.sleep(60)
        lock.release()

    child = forked(holds)
    os.read(read, 1)
    try:
        with pytest.raises(RecordError, match="goes on still"):
            bench.trash([one, two])
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert found(bench.runs()) == [0, 1] and not bench.trashed()
    for wrong in (3, None, [3], ""):
        with pytest.raises(RecordError):
            bench.trash(wrong)
    assert len(bench.trash([])) == 0


def test_a_run_that_was_killed_can_be_thrown_away(bench):
    os.waitpid(forked(bench.experiment(lambda: os.kill(os.getpid(), signal.SIGKILL), name="dies")), 0)
    assert bench.runs()[0].status == "killed"
    assert len(bench.trash(bench.runs())) == 1 and not bench.runs()
    assert bench.restore_run(bench.trashed())[0].status == "killed"


def test_files_that_cannot_be_moved_are_an_error_and_are_still_there(bench):
    (one,) = numbered(bench, 1)
    (bench.folder / ".trash").write_text("a file")
    with pytest.raises(RecordError, match="could not be moved"):
        bench.trash(one)
    assert (bench.folder / "runs" / one.id / "result.json").is_file() and found(bench.trashed()) == [0]
    (bench.folder / ".trash").unlink()
    assert bench.restore_run(one)[0].result["values"].tolist() == []


@pytest.mark.parametrize("moment", ["before the move", "after the move"])
@pytest.mark.parametrize("act", ["trash", "restore_run"])
def test_a_kill_in_the_middle_leaves_one_or_the_other(bench, act, moment, monkeypatch):
    (one,) = numbered(bench, 1)
    if act == "restore_run":
        bench.trash(one)
    move = marking._move

    def dies(*given):
        if moment == "after the move":
            move(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(marking, "_move", dies)
    assert os.WIFSIGNALED(os.waitpid(forked(lambda: getattr(bench, act)(one.id)), 0)[1])
    monkeypatch.undo()
    in_sight(Bench(bench.folder), {one.id})
    bench = Bench(bench.folder)
    if act == "trash":
        assert len(bench.trashed()) == 1, "the database said so before anything was moved"
    for _ in range(2):  # from there everything works as ever
        if bench.trashed():
            bench.restore_run(one.id)
        assert bench.get(one.id).result["values"].tolist() == []
        bench.trash(one.id)
        in_sight(bench, {one.id})


def in_sight(bench, every):
    """Each run is in one of the two lists, and its result is there."""
    runs, gone = bench.runs(), bench.trashed()
    assert {run.id for run in runs} | {run.id for run in gone} == every and len(runs) + len(gone) == len(every)
    for run in [*runs, *gone]:
        assert run.result["values"].tolist() == list(range(int(run.metrics["i"])))


def churn(folder, seed):
    """Throw away and bring back until the end comes, two processes at once."""
    bench, draw = Bench(folder), random.Random(seed)
    every = [run.id for run in [*bench.runs(), *bench.trashed()]]
    while True:
        some = draw.sample(every, 2)
        for act in (bench.trash, bench.restore_run):
            try:
                act(some)
            except RecordError as error:
                assert "trash" in str(error), error  # the other one was faster


def test_kills_at_any_moment_of_two_processes_that_undo_each_other_lose_nothing(bench):
    every = {run.id for run in numbered(bench, 5)}
    draw = random.Random(0)
    for kill in range(6):
        children = [forked(lambda seed=seed: churn(bench.folder, seed)) for seed in (2 * kill, 2 * kill + 1)]
        time.sleep(draw.uniform(0.1, 0.4))
        for child in children:
            os.kill(child, signal.SIGKILL)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "a child ended by itself"
        in_sight(Bench(bench.folder), every)
    bench.restore_run(bench.trashed())
    assert found(bench.runs()) == [0, 1, 2, 3, 4]
    in_sight(bench, every)


# An older bench ----------------------------------------------------------------------------------------------------------


def as_before(bench):
    with sqlite3.connect(bench.folder / NAME) as link:
        link.executescript("DROP TABLE tags; DROP TABLE trash; PRAGMA user_version=1;")
    link.close()


def test_a_bench_of_before_tags_gets_them(bench):
    numbered(bench, 2)
    as_before(bench)
    again = Bench(bench.folder)
    assert found(again.runs()) == [0, 1]
    again.tag(again.runs()[0], "old")
    assert found(Bench(bench.folder).runs().where(tag="old")) == [0]


def test_several_processes_may_open_a_bench_of_before_tags_at_once(bench):
    numbered(bench, 2)
    as_before(bench)

    def opens(number):
        again = Bench(bench.folder)
        again.tag(again.runs(), f"tag{number}")
        os._exit(0)

    children = [forked(lambda number=number: opens(number)) for number in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert [set(run.tags) for run in Bench(bench.folder).runs()] == [{"tag0", "tag1", "tag2", "tag3"}] * 2


def test_a_bench_of_before_tags_can_be_read_where_it_cannot_be_written_to(bench, monkeypatch):
    numbered(bench, 2)
    as_before(bench)
    link, refused = Database._link, []

    def closed(self):
        if not self._frozen:
            refused.append(self)
            raise RecordError("no")
        return link(self)

    monkeypatch.setattr(Database, "_link", closed)
    again = Bench(bench.folder)
    assert refused and found(again.runs()) == [0, 1] and again.runs()[0].tags == ()
    with pytest.raises(RecordError, match="cannot be written to"):
        again.tag(again.runs()[0], "x")


def test_tensors_among_the_inputs_are_found_by_their_shape(bench):
    kept = bench.experiment(lambda i, x: {"i": i}, name="f")
    kept(0, torch.ones(2, 3)), kept(1, torch.ones(4))
    assert found(bench.runs().where(inputs="[2, 3]")) == [0]
