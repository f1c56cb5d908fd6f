"""A store that several processes make in parts is the one that a single process makes, whoever of them dies."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from engine_parts import Fill
from kills import files
from store_kills import N, fill, whole

from hooklab.data import Writer, open_store
from hooklab.data.engines import claims as engine_claims
from hooklab.data.engines import owner as engine_owner
from hooklab.data.engines import parts
from hooklab.data.engines import ray_actors as engine_ray
from hooklab.data.engines.claims import Shared
from hooklab.data.engines.opening import Opening, opening_of
from hooklab.data.engines.owner import this_process
from hooklab.data.engines.work import work
from hooklab.errors import ModelError, PromptError, RecordError

SCRIPT = Path(__file__).with_name("engine_parts.py")
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), str(SCRIPT.parent)]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """What one process writes."""
    folder = tmp_path_factory.mktemp("single") / "store"
    fill(folder)
    return files(folder)


@pytest.fixture
def rank(monkeypatch):
    """This process as the only one of a job."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)


def beside(store):
    return store.with_name(f".{store.name}.parts")


def shared(folder, count=None, settings=None, **options):
    return Shared(folder, this_process(), settings or {}, count, **options)


def journal(store, settings=None, count=None):
    return Shared(beside(store), this_process(), settings or {}, count).journal()


def kill_at(marker, seen):
    """Kill the process that waits at a marker, as soon as it does."""
    def wait():
        until = time.monotonic() + 500  # a busy machine takes its time to start a process
        while not marker.exists():
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        seen.append(int(marker.read_text()))
        os.kill(seen[0], signal.SIGKILL)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    return thread


# Engines -------------------------------------------------------------------------------------------------------------


def test_of_two_workers_one_is_killed_in_the_middle_and_the_store_is_that_of_one_process(single, tmp_path):
    seen, told = [], []
    killer = kill_at(tmp_path / "marker", seen)
    store = parts.store_in_parts(Fill(4, hold=10, marker=tmp_path / "marker"), None, tmp_path / "acts", workers=2,
                                 timeout=300, progress=lambda *args: told.append(args))
    killer.join()
    assert files(tmp_path / "acts") == single and not store.verify()
    lines = journal(tmp_path / "acts")
    assert [line["part"] for line in lines] == list(range(6)) and sum(line["examples"] for line in lines) == N
    assert lines[2]["generation"] == 1 and {line["generation"] for line in lines if line["part"] != 2} == {0}
    assert seen[0] != lines[2]["pid"] and os.getpid() not in {line["pid"] for line in lines}
    assert told[-1] == (6, 6, "parts") and [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".acts.parts", "acts", "marker"]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_of_two_actors_of_ray_one_is_killed_and_the_store_is_that_of_one_process(single, tmp_path):
    seen = []
    killer = kill_at(tmp_path / "marker", seen)
    try:
        parts.store_in_parts(Fill(4, hold=10, marker=tmp_path / "marker"), 6, tmp_path / "acts", engine="ray", workers=2,
                             timeout=400)
    except RecordError as error:
        if "Ray could not be started" in str(error):
            pytest.skip(str(error))  # it gives itself half a minute, which a busy machine may exceed
        raise
    killer.join()
    assert files(tmp_path / "acts") == single
    lines = journal(tmp_path / "acts", count=6)
    assert [line["part"] for line in lines] == list(range(6)) and lines[2]["generation"] == 1
    import ray

    assert not ray.is_initialized()


def test_two_processes_by_rank_share_the_parts_and_both_get_the_store(single, tmp_path):
    ranks = [subprocess.Popen([sys.executable, SCRIPT, "rank", tmp_path / "acts"], stdout=subprocess.PIPE, text=True,
                              env={**ENV, "RANK": str(n), "WORLD_SIZE": "2", "LOCAL_RANK": str(n)}) for n in range(2)]
    told = [json.loads(one.communicate(timeout=300)[0]) for one in ranks]
    assert [(one[0], one[1]) for one in told] == [("0", N), ("1", N)]
    assert files(tmp_path / "acts") == single
    lines = journal(tmp_path / "acts", {"n": 4})
    assert [line["part"] for line in lines] == list(range(6)) and {line["pid"] for line in lines} <= {one[2] for one in told}


@pytest.fixture(scope="module")
def forked():
    """What `engine_parts.py` saw."""
    told = subprocess.run([sys.executable, str(SCRIPT), "20"], capture_output=True, text=True, check=False, timeout=300,
                          env=ENV)
    assert told.returncode == 0, told.stderr[-2000:]
    return json.loads(told.stdout)


def test_kills_at_any_moment_lose_no_part_and_double_none(forked):
    assert forked["kills"] >= 20 and forked["points"] > 200


def test_two_callers_at_once_share_the_parts_and_one_of_them_merges(forked):
    found = forked["callers"]
    assert found["ended"] == [0, 0] and found["same"]
    assert sorted(line["part"] for line in found["lines"]) == list(range(8))
    assert len({line["pid"] for line in found["lines"]}) == 2 and {line["generation"] for line in found["lines"]} == {0}


def test_a_part_that_ends_every_worker_is_an_error_that_names_it(forked):
    words, made = forked["deaths"]
    assert words.startswith("3 workers died at part 1; the last one ended with -9. If it was memory: smaller parts")
    assert made == ["000000"]


def test_an_error_in_a_worker_is_raised_here_and_the_same_call_continues(single, rank, tmp_path):
    with pytest.raises(RecordError, match="a worker failed with ZeroDivisionError: example 14") as caught:
        parts.store_in_parts(Fill(5, bad=14), None, tmp_path / "acts", workers=1, timeout=300)
    notes = "\n".join(caught.value.__notes__)
    assert "This was part 2 of" in notes and "Traceback" in notes and "raise ZeroDivisionError" in notes
    assert shared(beside(tmp_path / "acts")).published() == {0, 1}
    parts.store_in_parts(Fill(5), None, tmp_path / "acts", engine="rank")
    assert files(tmp_path / "acts") == single
    assert [line["pid"] == os.getpid() for line in journal(tmp_path / "acts")] == [False, False, True, True, True]


# Claims --------------------------------------------------------------------------------------------------------------


def test_a_claim_is_had_by_one_and_taken_over_from_a_dead_process_by_one(tmp_path):
    one, other = shared(tmp_path, 3), shared(tmp_path, 3)
    first = one.next()
    assert first.name == "000000" and other.next().name == "000001"
    dead = subprocess.Popen(["true"])
    dead.wait()
    told = json.loads(first.path.read_text())
    first.path.write_text(json.dumps({**told, "pid": dead.pid}))
    took = [shared(tmp_path, 3).take("000000", 0) for _ in range(3)]
    assert [claim is not None for claim in took] == [True, False, False]
    assert took[0].generation == 1 and not first.held() and took[0].held()


def test_a_process_number_that_was_given_anew_is_not_taken_for_the_owner(tmp_path):
    claim = shared(tmp_path, 1).next()
    assert shared(tmp_path, 1).next() is None
    told = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**told, "started": "1"}))
    assert shared(tmp_path, 1).next().generation == 1


def test_an_owner_on_another_machine_lives_as_long_as_it_leaves_signs_of_life(tmp_path):
    far = shared(tmp_path, 1)
    far.owner = engine_owner.Owner("far", "elsewhere", "elsewhere", 1, "1")
    claim, here = far.next(), shared(tmp_path, 1, lease=1.5)  # fifteen signs of life, so that a busy machine may miss some
    with claim.beating(0.4):
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            assert here.next() is None
            time.sleep(0.02)
    until = time.monotonic() + 60
    while (took := here.next()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert took is not None and took.generation == 1 and not claim.held()


def test_a_claim_that_was_cut_short_is_taken_over_after_the_lease(tmp_path):
    here = shared(tmp_path, 1, lease=0.05)
    (tmp_path / "claims" / "000000.0").write_text('{"token": "a')
    assert here.next() is None
    time.sleep(0.1)
    assert here.next().generation == 1


def test_an_owner_that_was_given_up_and_comes_back_publishes_nothing_twice(tmp_path):
    slow, fast = shared(tmp_path, 1), shared(tmp_path, 1)
    late, do = slow.next(), Fill(N)
    do.start(0)
    do(0, room := slow.room(late))
    late.release()
    assert work(Fill(N), fast) == 1 and not late.held()
    assert not room.exists(), "what it left half done is cleared away"
    do(0, room)
    inode = (tmp_path / "parts" / "000000").stat().st_ino
    assert slow.publish(late, room, {}) is False and not room.exists()
    assert (tmp_path / "parts" / "000000").stat().st_ino == inode and len(slow.journal()) == 1


def test_an_error_of_an_owner_whose_part_another_has_is_none(tmp_path):
    def do(p, folder):
        claim = shared(tmp_path, 1)
        claim.release_of(own.owner.token)
        assert work(Fill(N), claim) == 1
        raise OSError("the folder is gone")

    own = shared(tmp_path, 1)
    assert work(do, own) == 0 and own.complete() and len(own.journal()) == 1


@pytest.mark.parametrize(("do", "words"), [
    (lambda p, folder: folder.mkdir(), "is no store"),
    (lambda p, folder: Writer(folder, ["L0.resid_post"]).flush(), "was not closed by its writer")])
def test_what_is_no_complete_store_is_not_published(do, words, rank, tmp_path):
    with pytest.raises(RecordError, match=words) as caught:
        parts.run_parts(do, 1, tmp_path, engine="rank")
    assert "This was part 0" in caught.value.__notes__[0]
    assert not shared(tmp_path, 1).published() and shared(tmp_path, 1).next().generation == 1


def test_a_part_that_is_damaged_before_it_is_published_is_an_error(rank, tmp_path):
    class Torn(Fill):
        def __call__(self, p, folder):
            super().__call__(p, folder)
            path = next((folder / "shards").iterdir())
            path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(RecordError, match=r"is damaged: shard 00000\d: has \d+ bytes of"):
        parts.run_parts(Torn(N), 1, tmp_path, engine="rank")


# Whole stores --------------------------------------------------------------------------------------------------------


def test_the_same_call_again_gives_the_same_store_and_another_one_is_refused(rank, single, tmp_path):
    made = parts.store_in_parts(Fill(9), None, tmp_path / "acts", engine="rank", settings={"n": 9})
    again = parts.store_in_parts(None, None, tmp_path / "acts", engine="rank", settings={"n": 9})
    assert made.path == again.path and len(again) == N and files(tmp_path / "acts") == single
    with pytest.raises(RecordError, match="begun with other settings: n=9, not 8"):
        parts.store_in_parts(Fill(8), None, tmp_path / "acts", engine="rank", settings={"n": 8})
    again.tag("mine")
    with pytest.raises(RecordError, match="acts exists: choose another name"):
        parts.store_in_parts(Fill(9), None, tmp_path / "acts", engine="rank", settings={"n": 9})
    again.trash()
    parts.store_in_parts(Fill(9), None, tmp_path / "acts", engine="rank", settings={"n": 9})
    assert files(tmp_path / "acts") == single


def test_a_store_that_is_there_already_is_left_alone(rank, tmp_path):
    fill(tmp_path / "acts")
    with pytest.raises(RecordError, match="acts exists"):
        parts.store_in_parts(Fill(9), None, tmp_path / "acts", engine="rank")
    assert whole(tmp_path / "acts") == N and not beside(tmp_path / "acts").exists()


def test_parts_are_stores_in_the_order_of_the_source(rank, tmp_path):
    found = parts.run_parts(Fill(7), None, tmp_path, engine="rank")
    assert [p.name for p in found] == ["000000", "000001", "000002", "000003"]
    assert [name for p in found for name in open_store(p).ids] == [str(i) for i in range(N)]
    with pytest.raises(RecordError, match="count=None, not 4"):
        parts.run_parts(Fill(7), 4, tmp_path, engine="rank")


def test_a_source_that_is_empty_or_not_the_same_each_time_is_an_error(rank, tmp_path):
    with pytest.raises(RecordError, match="the source is empty"):
        parts.store_in_parts(lambda p, folder: False, None, tmp_path / "none", engine="rank")
    here = shared(tmp_path / "odd")
    parts.run_parts(Fill(12), None, tmp_path / "odd", engine="rank")
    here.ends_before(1)
    with pytest.raises(RecordError, match="ends before part 1, another made part 1: it is not the same each time"):
        here.complete()


def test_nothing_new_for_too_long_is_an_error(rank, tmp_path):
    held = shared(tmp_path, 1).next()
    with pytest.raises(RecordError, match=r"no part was published in .* for 0\.2 s; 0 of 1 are there"):
        parts.run_parts(Fill(N), 1, tmp_path, engine="rank", timeout=0.2)
    assert held.held()


def test_a_rank_that_does_not_merge_waits_for_the_one_that_does(rank, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RecordError, match=r"acts was not there after 0\.3 s"):
        parts.store_in_parts(Fill(12), None, tmp_path / "acts", engine="rank", timeout=0.3)
    assert shared(beside(tmp_path / "acts")).published() == {0, 1}


@pytest.mark.parametrize(("options", "words"), [
    ({"engine": "rey"}, 'no engine \'rey\', only local, ray, rank. Did you mean "ray"?'),
    ({"workers": 0}, "workers=0"), ({"workers": True}, "workers=True"), ({"count": 0}, "count=0"),
    ({"engine": "rank"}, "reads RANK and WORLD_SIZE, which torchrun"),
    ({"engine": "rank", "workers": 2}, "workers= is not for"), ({"settings": {"a": object()}}, "what JSON can hold")])
def test_arguments_that_do_not_fit_are_errors(options, words, monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RecordError, match=words.replace("?", r"\?").replace(".", r"\.")):
        parts.run_parts(Fill(5), **{"count": 1, "folder": tmp_path, **options})


def test_without_ray_it_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecordError, match=r'needs Ray: pip install "hooklab\[scale\]"'), engine_ray.connected():
        pass
    with pytest.raises(RecordError, match="engine=\"local\" needs nothing more"):
        parts.run_parts(Fill(5), 1, tmp_path, engine="ray")


# Models --------------------------------------------------------------------------------------------------------------


def test_a_worker_opens_the_model_that_was_given_or_says_that_it_is_another(tmp_path):
    import hooklab as hl

    model = hl.load("lab")
    recipe = opening_of(model)
    assert recipe.name == "lab" and recipe.dtype == "float32" and recipe.gpus == 0
    assert recipe.open(3).facts == model.facts
    with pytest.raises(ModelError, match="lab has other weights here"):
        Opening("lab", fingerprint="other").open()
    assert Opening("m", "cuda:{worker}").device_of(2) == "cuda:2" and Opening("m", "cuda:{worker}").gpus == 1
    model.hf.config.name_or_path = model.hf.name_or_path = ""
    with pytest.raises(ModelError, match="was made in memory: save it to a folder"):
        opening_of(model)


def test_leftovers_of_whoever_died_are_gone_after_merging(rank, tmp_path):
    folder = beside(tmp_path / "acts")
    here = shared(folder)
    (folder / "work" / "000001.0").mkdir()
    shutil.copy(folder / "plan.json", folder / ".plan.json.x.part")
    parts.store_in_parts(Fill(12), None, tmp_path / "acts", engine="rank")
    assert sorted(p.name for p in folder.iterdir()) == ["journal", "merged.json", "plan.json"]
    assert engine_claims.MERGED == "merged.json" and here.complete()


# Extraction ----------------------------------------------------------------------------------------------------------


def prompts(n=40):
    """Ragged, and no two alike in length and words."""
    return [{"input_ids": [5 + (17 * i + 3 * j) % 90 for j in range(1 + (7 * i) % 6)], "half": i / 2 if i % 3 else None}
            for i in range(n)]


@pytest.fixture(scope="module")
def lab():
    import hooklab as hl

    return hl.load("lab")


@pytest.fixture
def small(monkeypatch, rank):
    """Windows of eight examples, so that few of them are several parts."""
    from hooklab.data.extraction import job as extract_job

    monkeypatch.setattr(extract_job, "WINDOW", 8)


def both(model, source, folder, part=16, **options):
    """By one process, and in parts."""
    from hooklab.data.extraction.extract import extract

    one = extract(model, source, ["L*.resid_post", "L1.pattern"], folder / "one", **options)
    two = extract(model, source, ["L*.resid_post", "L1.pattern"], folder / "two", engine="rank", part=part, **options)
    return one, two


@pytest.mark.parametrize("options", [{}, {"max_ram": 300_000}, {"at": "last", "limit": 37, "batch_size": 3}])
def test_an_extraction_in_parts_has_the_bytes_of_that_of_one_process(options, lab, small, tmp_path):
    one, two = both(lab, prompts(), tmp_path, metadata=["half"], metrics=["entropy"], batch_tokens=30, shard_bytes=60_000,
                    **options)
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(two.store) == options.get("limit", 40)
    assert (one.metrics["entropy"] == two.metrics["entropy"]).all() and len(one.store.manifest.shards) > 1
    told = [{**found.report.to_dict(), "seconds": 0} for found in (one, two)]
    assert told[0] == told[1]


def test_what_is_added_up_in_parts_is_what_one_process_adds_up(lab, small, tmp_path):
    one, two = both(lab, prompts(), tmp_path, reduce={"mean": "L2.resid_post"})
    want = np.concatenate([one.store["L2.resid_post"][i].numpy() for i in range(40)]).astype(float).mean(0)
    assert two.reduced["mean"].count == one.reduced["mean"].count == sum(one.store.n_tokens)
    np.testing.assert_allclose(two.reduced["mean"].result().values, want, rtol=1e-5, atol=1e-6)


def test_examples_that_are_left_out_keep_their_places_in_every_part(lab, small, tmp_path):
    source = prompts(30)
    source[3]["input_ids"] = source[20]["input_ids"] = []
    one, two = both(lab, source, tmp_path, on_error="skip")
    assert one.store.ids == two.store.ids and len(two.store) == 28 and "20" not in two.store.ids
    assert [str(s) for s in one.report.skipped] == [str(s) for s in two.report.skipped] and len(two.report.skipped) == 2


@pytest.mark.parametrize("left_out", [range(8), range(8, 24), range(24, 30)], ids=["first", "middle", "last"])
def test_a_part_whose_examples_are_all_left_out_is_an_empty_part(left_out, lab, small, tmp_path):
    source = prompts(30)
    for i in left_out:
        source[i]["input_ids"] = []
    one, two = both(lab, source, tmp_path, part=8, on_error="skip")
    assert files(tmp_path / "one") == files(tmp_path / "two") and len(two.store) == 30 - len(left_out)
    assert [str(s) for s in one.report.skipped] == [str(s) for s in two.report.skipped]
    lines = Shared(beside(tmp_path / "two"), this_process(), json.loads(
        (beside(tmp_path / "two") / "plan.json").read_text())["settings"]).journal()
    assert [line["examples"] for line in lines] == [
        sum(i not in left_out for i in range(30)[8 * p: 8 * p + 8]) for p in range(4)]
    summed = both(lab, source, tmp_path / "summed", part=8, on_error="skip", reduce={"mean": "L2.resid_post"})[1]
    want = np.concatenate([one.store["L2.resid_post"][i].numpy() for i in range(len(one.store))]).astype(float).mean(0)
    np.testing.assert_allclose(summed.reduced["mean"].result().values, want, rtol=1e-5, atol=1e-6)


def test_where_every_example_is_left_out_the_error_is_that_of_one_process(lab, small, tmp_path):
    from hooklab.data.extraction.extract import extract

    source = [{"input_ids": []} for _ in range(20)]
    said = []
    for options in ({}, {"engine": "rank", "part": 8}, {"engine": "rank", "part": 8}):  # twice in parts: it is so again
        with pytest.raises(PromptError, match="there are no examples: row 0") as caught:
            extract(lab, source, "L0.resid_post", tmp_path / f"acts{len(options)}", on_error="skip", **options)
        said.append(str(caught.value))
    assert len(set(said)) == 1 and not (tmp_path / "acts2").exists()


def test_a_part_travels_to_another_process_and_opens_the_model_there(lab, small, tmp_path, monkeypatch):
    import cloudpickle

    from hooklab.data.engines import extracting as engine_extract
    from hooklab.data.extraction import about as extract_about
    from hooklab.data.extraction.extract import extract

    def there(do, *args, **options):
        assert do.model is lab
        sent = cloudpickle.loads(cloudpickle.dumps(engine_extract.Part(do.made, opening_of(lab), do.n, about=about)))
        made.append(sent)
        return kept(sent, *args, **options)

    about = {key: json.loads(json.dumps(extract_about.about(lab, "", {})[key])) for key in ("model", "tokenizer")}
    made, kept = [], engine_extract.store_in_parts
    monkeypatch.setattr(engine_extract, "store_in_parts", there)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts(20)))
    monkeypatch.chdir(tmp_path)
    edits = {"L1.attn_out": lambda value: value * 0}
    found = extract(lab, "p.jsonl", "L4.resid_post", "acts", engine="rank", part=8, edits=edits)
    assert made[0].model is not lab and len(found.store) == 20
    own = extract(lab, "p.jsonl", "L4.resid_post", "own", edits=edits)
    assert files(tmp_path / "own") == files(tmp_path / "acts") and own.report.passes == found.report.passes
    about["model"]["attention"] = "other"
    with pytest.raises(ModelError, match="opened the model otherwise than you did: model.attention was 'other'"):
        extract(lab, "p.jsonl", "L4.resid_post", "again", engine="rank", part=8, edits=edits)


@pytest.mark.parametrize(("options", "words"), [
    ({"out": None, "reduce": {"mean": "L0.resid_post"}}, "say where, out="), ({"source": iter([])}, "read only once"),
    ({"source": []}, "the source is empty"), ({"part": 0}, "part=0"), ({"resume": False, "out": "."}, "was begun")])
def test_what_cannot_be_extracted_in_parts_is_an_error(options, words, lab, rank, tmp_path, monkeypatch):
    from hooklab.data.extraction.extract import extract

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match=words):
        extract(lab, **{"source": prompts(2), "sites": "L0.resid_post", "out": tmp_path / "acts", "engine": "rank",
                        **options})


def test_the_page_on_scale_has_code_that_runs(monkeypatch, tmp_path):
    """Blocks that need a cluster are compiled; the one with parts of one's own runs."""
    page = (Path(__file__).parent.parent / "docs" / "scale.md").read_text("utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    for block in blocks:
        compile(block, "docs/scale.md", "exec")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(blocks[-1], "docs/scale.md", "exec"), names)
    assert list(names["store"].ids) == [str(i) for i in range(40)]
    assert names["store"].to_numpy("square")["values"].reshape(-1).tolist() == [float(i * i) for i in range(40)]
    options = {word for word in ("engine", "workers", "device", "part", "timeout") if f"{word}=" in page}
    from hooklab.data.extraction.extract import extract

    assert options <= set(inspect.signature(extract).parameters) and len(options) == 5
