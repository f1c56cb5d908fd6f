"""Nothing that was committed to a store is lost, nothing is in it twice, and damage is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kills import files, forked, room, told
from store_kills import SHARD, SITES, N, example, fill, single, whole

from hooklab.data import Writer, import_captures, open_store, restore, trashed
from hooklab.data.store import manifest
from hooklab.data.store import shard as store_shard
from hooklab.data.store.lock import Lock
from hooklab.errors import RecordError

STREAM, PATTERN = SITES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "store"
    fill(folder)
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "store"))


def test_kills_at_any_moment_lose_nothing_and_double_nothing():
    script = Path(__file__).with_name("store_kills.py")
    told = subprocess.run([sys.executable, str(script), "18"], capture_output=True, text=True, check=False, timeout=300,
                          cwd=script.parent.parent, env={**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"})
    assert told.returncode == 0, told.stderr[-2000:]
    seen = json.loads(told.stdout)
    assert set(seen["kills"].values()) == {5} and sum(seen["outside"].values()) > 0
    assert seen["pyarrow at first"] is False and min(seen["points"].values()) > 50
    assert seen["single"] == sorted(seen["single"]) and (seen["single"][0], *seen["single"][-2:]) == (0, 3, 3)
    assert len(seen["single"]) > 6


@pytest.mark.parametrize("at", [0, 1, 7, 13, N - 1])
def test_a_run_that_was_stopped_and_resumed_has_the_same_bytes(at, made, tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD) as writer:
        for i in range(at):
            writer.add(*example(i))
        1 / 0
    store = open_store(tmp_path / "s")
    assert not store.complete and len(store) <= at
    with pytest.raises(RecordError, match="resume=True continues it"):
        Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD)
    with Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD, resume=True) as writer:
        assert len(writer) == len(store) and all(str(i) in writer for i in range(len(store)))
        assert [writer.add(*example(i)) for i in range(N)] == [i >= len(store) for i in range(N)]
    assert files(tmp_path / "s") == files(made)


def test_resuming_a_store_that_is_complete_changes_nothing(copy, made):
    fill(copy)
    assert files(copy) == files(made)


@pytest.mark.parametrize(("change", "words"), [
    ({"model": "other"}, "model='m', not 'other'"), ({"shard_bytes": 1}, "shard_bytes=6000"), ({"sites": [STREAM]}, "sites"),
    ({"dtype": "float16"}, "float16"), ({"options": {"seed": 1}}, "options=")])
def test_a_store_is_not_continued_with_other_settings(change, words, copy, made):
    settings = {"sites": SITES, "model": "m", "shard_bytes": SHARD} | change
    with pytest.raises(RecordError, match=words):
        Writer(copy, **settings, resume=True)
    assert files(copy) == files(made)


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("part", [STREAM, PATTERN, f"{PATTERN}@shapes", "index", ""])
def test_a_flipped_byte_is_named_by_shard_and_tensor(part, copy):
    entry = open_store(copy).manifest.shards[1]
    path = copy / "shards" / f"{entry.name}.safetensors"
    head = path.read_bytes()
    start = 8 + int.from_bytes(head[:8], "little")
    if part == "index":
        flipped(copy / "index" / f"{entry.name}.parquet", 100)
    elif part:
        begin, end = json.loads(head[8:start])[part]["data_offsets"]
        flipped(path, start + (begin + end) // 2)
    else:
        flipped(path, 20)
    found = open_store(copy).verify()
    assert [(one.shard, one.part) for one in found] == [("000001", part)]
    assert ("head" if not part else "changed") in str(found[0])
    with pytest.raises(RecordError, match="damaged"):
        open_store(copy).compact()


def test_a_torn_shard_is_named_and_not_read(copy):
    path = copy / "shards" / "000001.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    store = open_store(copy)
    found = store.verify()
    assert [one.part for one in found] == ["", STREAM] and "cut short by 10 of its" in str(found[1])
    assert len(store[STREAM][0]) == store.n_tokens[0]
    with pytest.raises(RecordError, match=r"000001.safetensors has \d+ bytes of \d+: it was cut short"):
        store[STREAM][len(store) - 1], store[STREAM][store.manifest.shards[0].examples]
    path.unlink()
    (copy / "index" / "000000.parquet").unlink()
    assert [str(one) for one in open_store(copy).verify()] == [
        "shard 000000, index: could not be read: No such file or directory", "shard 000001: is missing"]


@pytest.mark.parametrize(("change", "words"), [
    (lambda told: told | {"hookstore": 2}, "has version 2 of the format; this hooklab reads up to 1: install a newer"),
    (lambda told: told | {"tags": ["x"]}, "is not the file that was written"), (lambda told: [1], "no store"),
    (lambda told: {}, "does not say which version")])
def test_a_manifest_that_is_newer_or_changed_is_refused(change, words, copy):
    path = copy / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(RecordError, match=words):
        open_store(copy)


def test_a_line_of_the_journal_counts_when_it_is_whole(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD) as writer:
        for i in range(N):
            writer.add(*example(i))
        1 / 0
    path = tmp_path / "s" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-5])
    before = open_store(tmp_path / "s")
    assert len(before.manifest.shards) == len(lines) - 1 and whole(tmp_path / "s")
    fill(tmp_path / "s")
    assert whole(tmp_path / "s", N) == N
    path.write_bytes(lines[0].replace(b'"examples"', b'"exampled"') + lines[1])
    with pytest.raises(RecordError, match=r"journal.jsonl, line 1 was changed"):
        open_store(tmp_path / "s")


def holder(folder):
    """The process of a child that holds the lock of a store."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        lock = Lock(folder)
        os.write(write, b"held")
        time.sleep(60)
        lock.release()
        os._exit(0)
    assert os.read(read, 4) == b"held"
    return child


def test_two_writers_do_not_write_at_once_and_a_dead_one_holds_nobody_up(copy):
    with open_store(copy).append(), pytest.raises(RecordError, match="this very process"):
        fill(copy)
    child = holder(copy)
    try:
        before = files(copy)
        for act in (fill, lambda p: open_store(p).compact(), lambda p: open_store(p).tag("x"),
                    lambda p: open_store(p).trash(), lambda p: open_store(p).rename("y"), lambda p: open_store(p).append()):
            with pytest.raises(RecordError, match=f"being written by process {child} on"):
                act(copy)
        assert files(copy) == before and whole(copy) == N
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert open_store(copy).tag("x") == ("x",)


@pytest.mark.parametrize("number", [1, 3, 9, 17])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_stops_the_writer_with_what_is_there_intact(number, code, made, tmp_path, monkeypatch):
    count = [0]

    def full(act):
        def acted(*given):
            count[0] += 1
            if count[0] >= number:
                raise OSError(code, os.strerror(code))
            return act(*given)
        return acted

    writer = Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD)
    with monkeypatch.context() as patched:
        patched.setattr(store_shard, "_put", full(store_shard._put))
        patched.setattr(os, "fsync", full(os.fsync))
        words = "the disk is full" if code == errno.ENOSPC else "Input/output"
        with pytest.raises(RecordError, match=words) as caught, writer:
            for i in range(N):
                writer.add(*example(i))
    store = open_store(tmp_path / "s")
    assert f"{len(store)} examples are intact; resume=True" in str(caught.value).replace("\n", " ")
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]
    assert len(list((tmp_path / "s" / "shards").iterdir())) == len(store.manifest.shards)
    with pytest.raises(RecordError, match="is closed"):
        writer.add(*example(0))
    whole(tmp_path / "s")
    fill(tmp_path / "s")
    assert files(tmp_path / "s") == files(made)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_full_disk_leaves_a_store_of_one_shard_empty_or_whole(number, tmp_path, monkeypatch):
    writer, done, sync = Writer(tmp_path / "s", SITES, model="m"), [], os.fsync

    def full(handle):
        done.append(handle)
        if len(done) == number:
            raise OSError(errno.ENOSPC, "full")
        sync(handle)

    for i in range(3):
        writer.add(*example(i))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        if number > 6:  # two files, their two folders, and the manifest with its folder: no more than that
            writer.close()
            assert len(done) == 6 and whole(tmp_path / "s", 3) == 3
            return
        with pytest.raises(RecordError, match=r"the disk is full\. Its (\d) shards with (\d) examples are intact") as caught:
            writer.close()
    store = open_store(tmp_path / "s")
    assert len(store) == (3 if number == 6 else 0) and f"with {len(store)} examples" in str(caught.value)
    assert len(list((tmp_path / "s" / "shards").iterdir())) == len(store.manifest.shards)
    single(tmp_path / "s")
    assert whole(tmp_path / "s", 3) == 3 and open_store(tmp_path / "s").complete


def test_a_writer_is_not_shared_with_a_child(tmp_path, monkeypatch):
    with Writer(tmp_path / "s", SITES) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RecordError, match="belongs to process"):
                writer.add(*example(0))
        assert writer.add(*example(0))


def test_compacting_makes_full_shards_of_small_ones_and_readers_keep_theirs(made, tmp_path):
    with Writer(tmp_path / "s", SITES, model="m", shard_bytes=SHARD) as writer:
        for i in range(N):
            writer.add(*example(i))
            writer.flush()
    before = open_store(tmp_path / "s")
    old = before[STREAM][3]
    assert len(before.manifest.shards) == N
    store = open_store(tmp_path / "s").compact()
    assert whole(store.path, N) == N and not store.verify()
    a, b = sorted((store.path / "shards").iterdir()), sorted((made / "shards").iterdir())
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]
    assert torch.equal(before[STREAM][3], old)
    with pytest.raises(RecordError, match="open it again"):
        before[STREAM][N - 1]


def test_examples_are_appended_to_a_closed_store(copy):
    with open_store(copy).append() as writer:
        with pytest.raises(RecordError, match="comes as float16"):
            writer.add("x", {site: value.half() for site, value in example(0)[1].items()})
        assert not writer.add(*example(0)) and writer.add(*example(N))
        assert open_store(copy).complete
    assert whole(copy, N + 1) == N + 1 and open_store(copy).complete


def test_a_store_is_tagged_renamed_thrown_away_and_brought_back(copy):
    store = open_store(copy)
    assert store.tag("gold", "näive") == ("gold", "näive") and store.tag("gold", remove=True) == ("näive",)
    assert store.rename("Run 1: a, b?").name.startswith("Run_1_a_b-") and not copy.exists()
    assert len(store[STREAM][0]) == store.n_tokens[0]
    home = store.path
    assert store.trash() != home and not home.exists() and trashed(home.parent) == (store.path,)
    again = Path(shutil.copytree(store.path, home))
    open_store(again).trash()
    assert len(trashed(home.parent)) == 2
    with pytest.raises(RecordError, match="no store"):
        open_store(home)
    assert store.restore() == home and whole(home, N) == N and open_store(home).manifest.tags == ("näive",)
    with pytest.raises(RecordError, match="exists"):
        restore(trashed(home.parent)[0])
    with pytest.raises(RecordError, match="exists: choose another name"):
        store.rename(home.parent)
    with pytest.raises(RecordError, match="no store in a folder"):
        restore(home)


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RecordError, match=r"is no store: it holds thesis.txt"):
        Writer(tmp_path, SITES, resume=True)
    with pytest.raises(RecordError, match="is a file"):
        Writer(tmp_path / "thesis.txt", SITES)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RecordError, match="there is no store"):
        open_store(tmp_path / "nothing")


def test_a_bare_file_name_is_a_store_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Writer("acts", SITES) as writer:
        writer.add(*example(0))
    assert len(open_store("acts")) == 1


def test_a_store_that_is_closed_while_it_is_opened_has_all_its_examples(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "s", {"a": ()}, shard_bytes=1)
    for i in range(3):
        writer.add(i, {"a": torch.tensor(float(i))})
    writer.flush()
    read = manifest._journal

    def closed_meanwhile(path):
        writer.close()  # between the reading of the manifest and that of the journal; a second time it does nothing
        return read(path)

    monkeypatch.setattr(manifest, "_journal", closed_meanwhile)
    store = open_store(tmp_path / "s")
    assert store.ids == ("0", "1", "2") and store.complete


@pytest.mark.parametrize(("change", "words"), [
    ({"name": "../../outside"}, "no shard"), ({"name": "abc"}, "no shard"), ({"examples": -1}, "counts"),
    ({"bytes": "many"}, "counts"), ({"sums": None}, "no shard")])
def test_a_manifest_cannot_lead_out_of_its_folder(change, words, tmp_path):
    with Writer(tmp_path / "s", {"a": ()}) as writer:
        writer.add("x", {"a": torch.tensor(1.0)})
    for inner, suffix in (("shards", "safetensors"), ("index", "parquet")):
        shutil.copy(tmp_path / "s" / inner / f"000000.{suffix}", tmp_path / f"outside.{suffix}")
    path = tmp_path / "s" / "manifest.json"
    told = json.loads(path.read_text())
    told.pop("sha256")
    told["shards"][0] |= change
    path.write_text(json.dumps(told | {"sha256": manifest._digest(told)}))
    with pytest.raises(RecordError, match=words):
        open_store(tmp_path / "s")


def test_the_trash_passes_over_what_others_put_there(tmp_path):
    with Writer(tmp_path / "s", {"a": ()}) as writer:
        writer.add("x", {"a": torch.tensor(1.0)})
    (tmp_path / ".trash" / "notes" / "s").mkdir(parents=True)
    (tmp_path / ".trash" / "notes" / "s" / "manifest.json").write_text("{}")
    gone = open_store(tmp_path / "s").trash()
    assert trashed(tmp_path) == (gone,) and restore(gone) == tmp_path / "s"


def test_an_import_that_fails_lets_others_write(tmp_path):
    torch.save({"layer_0": torch.ones(1, 2, 3)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"nothing")
    with pytest.raises(RecordError, match="b.pt"):
        import_captures([tmp_path / "a.pt", tmp_path / "b.pt"], tmp_path / "s")
    assert import_captures([tmp_path / "a.pt"], tmp_path / "s", resume=True).ids == ("a",)


def test_a_merge_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    for name in "ab":
        with Writer(tmp_path / name, {"a": ()}) as writer:
            writer.add(name, {"a": torch.tensor(1.0)})
    broken = open_store(tmp_path / "b")
    (tmp_path / "b" / "shards" / "000000.safetensors").unlink()
    with pytest.raises(RecordError, match="is gone"):
        open_store(tmp_path / "a").merge([broken], tmp_path / "c")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_a_name_that_no_folder_can_have_is_an_error(tmp_path):
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(RecordError, match="could not be"):
            Writer(tmp_path / name, {"a": ()})


def refusals(base):
    """What is said, of a store that may only be read, by reading it and by everything that would write."""
    store, said = open_store(base / "acts"), {}
    acts = {"append": store.append, "tag": lambda: store.tag("x"), "compact": store.compact, "trash": store.trash,
            "rename": lambda: store.rename("other"), "new": lambda: Writer(base / "new", SITES),
            "merge": lambda: store.merge([], base / "copy"),
            "continue": lambda: Writer(base / "acts", SITES, model="m", shard_bytes=SHARD, resume=True)}
    if os.geteuid() == 0:  # to whom modes are nothing
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
    read = [whole(base / "acts", N), store.summary()[STREAM].odd, len(store.where(text="é3")),
            len(next(iter(store.batches(STREAM, 8)(0))))]
    for name, act in acts.items():
        try:
            act()
        except RecordError as error:
            said[name] = str(error)
    return read, said


@pytest.mark.skipif(os.name == "nt", reason="modes of folders are those of POSIX")
def test_a_store_on_a_read_only_folder_is_read_and_says_so_when_it_is_to_be_written():
    with room() as made:
        base = Path(made)
        fill(base / "acts")
        whole(base / "acts")
        before = files(base)
        paths = [base, *base.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            read, said = told(*forked(lambda: refusals(base)))
        finally:
            for path in paths:
                path.chmod(0o755)
        assert read == [N, 0, 1, 8] and files(base) == before
    for name in ("append", "tag", "compact", "trash", "rename", "continue"):
        assert said.pop(name).startswith(f"{base / 'acts'} can be read here, not written: "), name
    assert set(said) == {"new", "merge"} and all("could not be made: Permission denied" in words for words in said.values())
