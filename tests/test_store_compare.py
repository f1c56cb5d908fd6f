"""Stores side by side at positions that belong together, in numbers, in a notebook, and on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hooklab.cli import main
from hooklab.data import Writer, open_store
from hooklab.data.store.room import BLOCK, Room
from hooklab.errors import PositionError, RecordError

STREAM, SINGLE, PATTERN = "L0.resid_post", "L0.bias", "L0.pattern"
SITES = {STREAM: ("pos", "d_model"), SINGLE: ("d_model",), PATTERN: ("head", "query_pos", "key_pos")}


def values(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return {STREAM: torch.randn(n, 6, generator=draw), SINGLE: torch.randn(6, generator=draw),
            PATTERN: torch.rand(2, n, n, generator=draw)}


def made(path, lengths, seed=0, sites=SITES, **more):
    """A store with an example per length, whose id is its number, and whose tokens are 0, 1, 2 …"""
    with Writer(path, sites, **more) as writer:
        for i, n in enumerate(lengths):
            writer.add(i, {site: one for site, one in values(n, seed + i).items() if site in sites}, tokens=range(n))
    return open_store(path)


@pytest.fixture
def pair(tmp_path):
    return made(tmp_path / "a", [3, 5, 4]), made(tmp_path / "b", [3, 2, 4], seed=7)


def cosine(x, y):
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize("align", ["token", "last", "mean"])
@pytest.mark.parametrize(("metric", "wanted"), [("cosine", 1.0), ("l2", 0.0), ("cka", 1.0), ("rsa", 1.0)])
def test_a_store_is_like_itself_under_every_alignment(align, metric, wanted, pair):
    found = pair[0].compare(pair[0], align, metric, sites=[STREAM, SINGLE])
    assert np.allclose(found.values, wanted) and found.axes[0] == "site"
    assert found.coords["site"] == (STREAM, SINGLE)


def test_examples_of_other_lengths_are_compared_at_what_is_declared_to_belong_together(pair):
    a, b = pair
    last = a.compare(b, "last", "cosine", sites=[STREAM])
    mean = a.compare(b, "mean", "l2", sites=[STREAM])
    for i, (n, m) in enumerate([(3, 3), (5, 2), (4, 4)]):
        x, y = values(n, i)[STREAM].numpy(), values(m, 7 + i)[STREAM].numpy()
        assert last.values[0, i] == pytest.approx(cosine(x[-1], y[-1]), abs=1e-6)
        assert mean.values[0, i] == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), abs=1e-6)
    with pytest.raises(RecordError, match=r"example '1' has 5 tokens in the first and 2 in the second.*position 2 on"):
        a.compare(b, "token")
    same = a.where(id={"0", "2"}).compare(b, "token", sites=[STREAM, PATTERN])
    x, y = values(4, 2), values(4, 9)
    rows = [cosine(p, q) for p, q in zip(x[STREAM].numpy(), y[STREAM].numpy(), strict=True)]
    assert same.values[0, 1] == pytest.approx(np.mean(rows)) and same.note == "token by token; 1 only in the second"
    rows = [cosine(p.ravel(), q.ravel()) for p, q in zip(x[PATTERN].movedim(1, 0).numpy(), y[PATTERN].movedim(1, 0).numpy(),
                                                         strict=True)]
    assert same.values[1, 1] == pytest.approx(np.mean(rows))


def wider(path):
    """A store of examples "0" and "2" whose rows are longer, and all those rows."""
    rows = {"0": torch.randn(3, 9), "2": torch.randn(4, 9)}
    with Writer(path, [STREAM]) as writer:
        for name, value in rows.items():
            writer.add(name, {STREAM: value}, tokens=range(len(value)))
    return open_store(path), torch.cat(list(rows.values())).numpy()


def test_cka_is_that_of_the_kernels_and_compares_rows_of_other_sizes(tmp_path, pair):
    a = pair[0].where(id={"0", "2"})
    other, y = wider(tmp_path / "wide")
    found = a.compare(other, "token", "cka")
    x = torch.cat([values(3, 0)[STREAM], values(4, 2)[STREAM]]).numpy()
    centre = np.eye(7) - 1 / 7
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    assert found.values.tolist() == pytest.approx([(k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m)], abs=1e-5)
    with pytest.raises(RecordError, match="6 numbers a position in one example and 9"):
        a.compare(other, "last")
    with pytest.raises(RecordError, match="has 1: align by token"):
        a.compare(a, "last", "cka", examples=("0", "2"))


def test_rsa_is_the_rank_correlation_of_the_distances_of_rows(tmp_path, pair):
    a = pair[0].where(id={"0", "2"})
    other, y = wider(tmp_path / "wide")
    found = a.compare(other, "token", "rsa")
    upper = np.triu_indices(7, 1)
    x = torch.cat([values(3, 0)[STREAM], values(4, 2)[STREAM]]).numpy()
    ranks = [np.argsort(np.argsort((1 - np.corrcoef(rows.astype(float)))[upper])) for rows in (x, y)]
    assert found.values.tolist() == pytest.approx([np.corrcoef(*ranks)[0, 1]], abs=1e-9)
    with pytest.raises(RecordError, match="rows, and L.* has 1: align by token"):
        a.compare(a, "last", "rsa", examples=("0", "2"))


def test_two_examples_of_one_store_are_compared(pair):
    found = pair[0].compare(pair[0], "last", "l2", sites=[STREAM], examples=("0", 1))
    wanted = (values(3, 0)[STREAM][-1] - values(5, 1)[STREAM][-1]).norm()
    assert found.values.tolist() == [[pytest.approx(wanted.item())]] and found.coords["example"] == ("0 | 1",)


def test_what_cannot_be_compared_is_said(tmp_path, pair):
    a, b = pair
    for ask, words in [(lambda: a.compare(b, "tokn"), 'Did you mean "token"'),
                       (lambda: a.compare(b, metric="cos"), "Choose cosine, l2, cka, rsa"),
                       (lambda: a.compare(b, sites=["L9.z"]), "has no L9.z"),
                       (lambda: a.where(id="0").compare(b.where(id="1")), "no example is in both"),
                       (lambda: a.compare(b, sites=[PATTERN], align="last"), "numbers a position in one example")]:
        with pytest.raises(RecordError, match=words):
            ask()
    with Writer(tmp_path / "c", [STREAM]) as writer:
        writer.add("0", {STREAM: torch.ones(2, 6)}, tokens=range(3), positions=[0, 1])
    with pytest.raises(PositionError, match="stored at positions 0, 1, not 2"):
        a.compare(open_store(tmp_path / "c"), "last")
    with pytest.raises(RecordError, match="no site is in both"):
        a.compare(_other(tmp_path))


def _other(folder):
    with Writer(folder / "other", {"x": ("feature",)}) as writer:
        writer.add("0", {"x": torch.ones(1)})
    return open_store(folder / "other")


def test_a_summary_has_the_numbers_of_all_values(tmp_path):
    lengths = [3, 1, 7]
    store = made(tmp_path / "s", lengths, shard_bytes=300)
    every = torch.cat([values(n, i)[STREAM] for i, n in enumerate(lengths)]).numpy().astype(float)
    found = store.summary()[STREAM]
    assert found.count == every.size and found.odd == 0
    assert [found.mean, found.std, found.min, found.max, found.norm] == pytest.approx(
        [every.mean(), every.std(), every.min(), every.max(), np.linalg.norm(every, axis=1).mean()])
    with Writer(tmp_path / "odd", {"x": ("feature",)}) as writer:
        writer.add("a", {"x": torch.tensor([1.0, float("nan"), 3.0, float("inf")])})
    odd = open_store(tmp_path / "odd").summary()["x"]
    assert (odd.count, odd.odd, odd.mean, odd.max) == (4, 2, 2.0, 3.0)


def test_a_store_in_a_notebook_is_text_whatever_it_says_of_itself(tmp_path):
    with Writer(tmp_path / "s", {"<img src=x onerror=alert(1)>": ("feature",)}, model="<script>alert(2)</script>") as writer:
        writer.add("a", {"<img src=x onerror=alert(1)>": torch.ones(2)})
    store = open_store(tmp_path / "s")
    store.tag("<b>gold</b>\x1b[31m")
    page = store._repr_html_()
    assert "<script" not in page and "<img" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(2)" in page and "&lt;img" in page and "feature" in page
    assert "\x1b" not in page + repr(store) and "1 examples" in repr(store)


def test_a_notebook_shows_what_a_store_holds_and_says_what_it_leaves_out(tmp_path):
    with Writer(tmp_path / "s", {"L0.resid_post": ("pos", "d_model"), "score": ()}, options={"at": "<i>last</i>"}) as writer:
        for i in range(8):
            writer.add(f"<u>{i}", {"L0.resid_post": torch.ones(i + 1, 4), "score": torch.tensor(1.0)}, tokens=range(i + 1),
                       metadata={"text": f"<img src=x>{'x' * 99}", **{f"k{n}": n for n in range(7)}})
    store = open_store(tmp_path / "s")
    store.tag("gold")
    page = store._repr_html_()
    body = page.partition("</style>")[2]
    assert all(words in body for words in ("8 examples · 36 tokens · 1 shards", "#gold", "pos · d_model 4", "one number",
                                           "float32", "… and 3 more examples, 2 more columns", "at: &lt;i&gt;last"))
    rows = re.findall(r"<tr><th scope=\"row\">&lt;u&gt;(\d)</th><td[^>]*>(\d)</td>", body)
    assert rows == [(str(i), str(i + 1)) for i in range(5)]
    assert "<img" not in body and "<i>" not in body and "<u>" not in body and "x" * 60 not in body
    some = store.where(id={"<u>6", "<u>7"})._repr_html_().partition("</style>")[2]
    assert "2 of 8 examples" in some and "&lt;u&gt;6" in some and "&lt;u&gt;0" not in some and "more examples" not in some
    (tmp_path / "s" / "index" / "000000.parquet").unlink()
    assert "The examples cannot be listed" in open_store(tmp_path / "s")._repr_html_()
    with Writer(tmp_path / "none", {"score": ()}):
        pass
    assert "0 examples" in open_store(tmp_path / "none")._repr_html_()


def test_room_is_taken_in_a_row_and_used_again():
    room = Room()
    first, second = room.take("a", (2, 3), torch.float32), room.take("a", (1, 3), torch.float32)
    other = room.take("b", (4,), torch.uint8)
    large = room.take("a", (BLOCK,), torch.float32)
    assert second.data_ptr() == first.data_ptr() + first.nbytes and large.nbytes == 4 * BLOCK
    assert other.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
    assert room.take("a", (0, 3), torch.float32).shape == (0, 3)
    blocks = room.emptied()
    places = {one.data_ptr() for one in blocks}
    assert room.take("a", (1,), torch.float64).data_ptr() not in places
    room.emptied()
    room.again(blocks)
    assert room.take("c", (1,), torch.int8).data_ptr() in places


def test_values_that_are_changed_after_they_were_put_in_are_stored_as_they_were(tmp_path):
    value, wanted = torch.zeros(4, 6), []
    with Writer(tmp_path / "s", [STREAM], shard_bytes=200) as writer:
        for i in range(40):
            value.fill_(i)
            wanted.append(value.clone())
            writer.add(i, {STREAM: value}, tokens=range(4))
            value.fill_(-1)
    store = open_store(tmp_path / "s")
    assert len(store.manifest.shards) > 10 and not store.verify()
    assert all(torch.equal(store[STREAM][i], one) for i, one in enumerate(wanted))


def test_tasks_and_labels_load_without_what_a_store_needs():
    code = ("import sys, hooklab.data.tasks.graders, hooklab.data.tasks.tasks, hooklab.data.labels.labels; "
            "print({'torch', 'numpy', 'pyarrow'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def folder(tmp_path, pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *words, status=0):
    assert main(["store", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_the_command_tells_what_the_api_tells(folder, pair, capsys):
    assert [row["path"] for row in told(capsys, "ls")] == ["a", "b"] and told(capsys, "ls", "a") == []
    assert told(capsys, "show", "a")[0]["sites"][STREAM]["axes"] == ["pos", "d_model"]
    stats = told(capsys, "stats", "a", "b")
    assert stats[1]["tokens"] == 9 and stats[1]["summary"][SINGLE]["mean"] == pair[1].summary()[SINGLE].mean
    found = told(capsys, "diff", "a", "b", "--sites", STREAM, "--metric", "l2", "--align", "mean")
    assert found["sites"][STREAM] == pair[0].compare(pair[1], "mean", "l2", sites=[STREAM]).values[0].tolist()
    assert isinstance(told(capsys, "diff", "a", "a", "--metric", "cka", "--sites", STREAM)["sites"][STREAM], float)
    assert main(["store", "diff", "a", "b", "--sites", STREAM, "--align", "last"]) == 0
    assert "over all examples" in capsys.readouterr().out


def test_the_command_throws_away_and_brings_back(folder, capsys):
    moved = told(capsys, "trash", "a", "b")
    assert told(capsys, "ls") == []
    assert [row["path"] for row in told(capsys, "ls", "--trash")] == [one["to"] for one in moved]
    assert told(capsys, "restore", moved[0]["to"], "b")[1]["to"] == str(folder / "b")
    assert len(open_store(folder / "a")) == len(open_store(folder / "b")) == 3
    assert main(["store", "restore", "a"]) == 2 and "no store a in the trash" in capsys.readouterr().err
    assert main(["store", "trash", "a", "nothing"]) == 2 and (folder / "a").exists()


def test_damage_is_status_one_and_a_mistake_status_two(folder, capsys):
    assert main(["store", "verify", "a", "b"]) == 0 and "every byte" in capsys.readouterr().out
    path = folder / "b" / "shards" / "000000.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    found = told(capsys, "verify", "a", "b", status=1)
    assert [one["ok"] for one in found] == [True, False] and found[1]["damage"][0]["shard"] == "000000"
    for words, text in [(["show", "nothing"], "there is no store"), (["ls", "nothing"], "no folder nothing"),
                        (["diff", "a", "b", "--align", "token"], "different tokens")]:
        assert main(["store", *words]) == 2
        said = capsys.readouterr()
        assert text in said.err and said.err.count("\n") == 1 and not said.out
    (folder / "b" / "manifest.json").write_text('{"hookstore": 1}')
    assert "error" in told(capsys, "ls", status=1)[1]
