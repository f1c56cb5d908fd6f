"""The list of runs: what it reads and what not, what is broken, what is chosen and compared."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.errors import RecordError, ViewError
from hooklab.records import Scores, Text, saving
from hooklab.views import shelf

HOSTILE = "<img src=x onerror=window.bad=1></script>\u202e\x1b"


def a_run(value=0.5, spec='prompt "a"\nmetric prob', **more):
    return hl.Run(spec, {"main.L0.z": torch.zeros(2, 3)}, {"main.L0.z": ("batch", "pos")},
                  metrics={"main": {"prob": value}, "hooked": {"prob": value / 2, "rank": 3.0}},
                  provenance={"model": {"name": "lab", "fingerprint": "abc123"}, "seed": 0,
                              "made": "2020-01-01T00:00:00+00:00"}, **more)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("first", "second", "third")):
        a_run(number / 4).save(tmp_path / name)
        os.utime(tmp_path / name / "run.json", (1000 + number, 1000 + number))
        os.utime(tmp_path / name / "arrays.safetensors", (900, 900))
    return tmp_path


@pytest.fixture
def made():
    views = []
    yield lambda source, **options: views.append(hl.view.runs(source, **options)) or views[-1]
    for view in views:
        view.close()


def row(view, key):
    return next(one for one in view.facts["rows"] if one["key"] == key)


def test_the_newest_run_stands_first_with_its_facts(folder, made):
    view = made(folder)
    assert [one["key"] for one in view.facts["rows"]] == ["third", "second", "first"]
    first = row(view, "first")
    size = sum((folder / "first" / name).stat().st_size for name in ("run.json", "arrays.safetensors"))
    assert first == {"key": "first", "name": "first", "stored": "1970-01-01 00:16:40", "time": 1000.0, "model": "lab",
                     "fingerprint": "abc123", "line": 'prompt "a"', "size": size, "error": "", "memory": False,
                     "metrics": [0.0, 0.0, 3.0]}
    assert view.facts["metrics"] == ["main.prob", "hooked.prob", "hooked.rank"]


def test_the_list_reads_no_tensor(folder, made, monkeypatch):
    def refuse(*_):
        raise AssertionError("tensors were read")

    monkeypatch.setattr("safetensors.torch.load", refuse)
    monkeypatch.setattr(saving, "load", refuse)
    view = made(folder)
    view.answer("detail", {"run": "first"})
    view.answer("compare", {"run": "first", "against": "second"})
    assert len(view.facts["rows"]) == 3


def cut_json(path):
    (path / "run.json").write_text((path / "run.json").read_text()[:200])


def cut_arrays(path):
    (path / "arrays.safetensors").write_bytes((path / "arrays.safetensors").read_bytes()[:-1])


def no_arrays(path):
    (path / "arrays.safetensors").unlink()


def no_json(path):
    (path / "run.json").unlink()


def empty_arrays(path):
    (path / "arrays.safetensors").write_bytes(b"")


def of_the_future(path):
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace('"hookrun": 1', '"hookrun": 7'))


def changed(path):
    (path / "run.json").write_text((path / "run.json").read_text().replace('"lab"', '"lob"'))


def another_kind(path):
    record = {"spec": 3, "metrics": [], "provenance": {}}
    sums = {"record": saving._digest(record), saving.ARRAYS: ""}
    (path / "run.json").write_text(json.dumps({"hookrun": 1, "sha256": sums, "record": record}))


@pytest.mark.parametrize(("harm", "says"), [
    (cut_json, "cut short"), (cut_arrays, "changed or cut short"), (no_arrays, "arrays.safetensors is missing"),
    (no_json, "run.json is missing"), (empty_arrays, "cut short"), (of_the_future, "newer hooklab"),
    (changed, "was changed"), (another_kind, "something else than a saved run")], ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_run_is_listed_with_its_error(harm, says, folder, made):
    harm(folder / "second")
    view = made(folder)
    assert says in row(view, "second")["error"]
    assert [row(view, key)["error"] for key in ("first", "third")] == ["", ""]
    assert says in view.answer("detail", {"run": "second"})[0]["error"]
    view.select(run="second")
    with pytest.raises(RecordError):
        _ = view.run
    assert view.spec == ""
    assert says in view.static()


def test_bytes_that_were_changed_are_found_when_the_run_is_read(folder, made):
    path = folder / "first" / "arrays.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    view = made(folder)
    assert row(view, "first")["error"] == ""
    with pytest.raises(RecordError, match="changed or cut short"):
        view.answer("pictures", {"run": "first"})


def test_a_run_whose_replacement_was_interrupted_is_the_run_from_before(folder, made):
    (folder / "first").rename(folder / ".first.old")
    view = made(folder)
    key = "first (from before; replacing it was interrupted)"
    assert view.load(key).metrics == a_run(0.0).metrics
    (folder / ".x.123.part").mkdir()
    assert "1 (hidden folders that end in .part)" in view.refresh().facts["note"]


def test_other_folders_and_files_are_left_out(folder, made):
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("x")
    assert len(made(folder).entries) == 3


def test_an_empty_folder_is_an_empty_list_that_fills(tmp_path, made):
    view = made(tmp_path)
    assert view.facts["rows"] == []
    a_run().save(tmp_path / "late")
    assert view.answer("refresh", {})[0] == {"count": 1}
    assert view.select(run="late").run == a_run()


def test_what_is_chosen_stays_chosen_after_a_refresh_as_far_as_it_is_there(folder, made):
    view = made(folder).select(run="first", against="second")
    for name in ("run.json", "arrays.safetensors"):
        (folder / "second" / name).unlink()
    assert view.refresh().selection == {"run": "first"}


def test_the_chosen_run_is_loaded_and_its_spec_is_that_of_the_view(folder, made):
    view = made(folder).select(run="second", against="third")
    assert view.run == a_run(0.25)
    assert view.against == a_run(0.5)
    assert view.spec == a_run().spec
    assert made(folder).run is None


def test_a_folder_that_is_a_run_is_a_list_of_one(folder, made):
    assert [entry.key for entry in made(folder / "first").entries] == ["first"]


def test_two_runs_are_compared_by_metric_and_line(tmp_path, made):
    a_run(0.5, 'prompt "a"\nzero L0.mlp\nmetric prob').save(tmp_path / "a")
    a_run(0.75, 'prompt "a"\nzero L1.mlp\nmetric prob').save(tmp_path / "b")
    found, _ = made(tmp_path).answer("compare", {"run": "a", "against": "b"})
    assert found["metrics"] == [["main.prob", 0.75, 0.5, -0.25], ["hooked.prob", 0.375, 0.25, -0.125],
                                ["hooked.rank", 3, 3, 0]]
    assert found["lines"] == [[" ", 'prompt "a"'], ["-", "zero L1.mlp"], ["+", "zero L0.mlp"], [" ", "metric prob"]]
    assert found["around"] == []


def test_a_metric_that_one_run_lacks_has_no_difference(made):
    view = made({"a": hl.Run(metrics={"m": {"x": 1.0}}), "b": hl.Run(metrics={"m": {"y": 2.0}})})
    assert view.answer("compare", {"run": "a", "against": "b"})[0]["metrics"] == [["m.y", 2.0, None, None],
                                                                               ["m.x", None, 1.0, None]]


def test_runs_made_with_another_model_say_so(made):
    view = made({"a": a_run(), "b": hl.Run(provenance={"seed": 1})})
    assert "seed (1 → 0)" in view.answer("compare", {"run": "a", "against": "b"})[0]["around"]


def test_pictures_are_images_of_the_scores_and_tables_of_the_rest(made):
    run = a_run(scores={"hooked.prob": Scores(np.eye(3), ("layer", "head"))}, texts={"main": (Text("ab", "a", "b", (1,)),)})
    found, images = made({"r": run}).answer("pictures", {"run": "r"})
    assert found["images"] == ["hooked.prob"]
    assert images[0].startswith(b"\x89PNG")
    assert found["texts"] == [["main", "a", "b"]]
    assert found["kept"] == [["main.L0.z", "batch · pos", "2×3"]]


def inks(png):
    """The colours of a picture that are found in it, as [count 4] of rgba."""
    from PIL import Image

    return np.unique(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).reshape(-1, 4), axis=0)


def test_pictures_for_a_dark_page_have_light_letters_and_nothing_behind_them(made):
    run = a_run(scores={"hooked.prob": Scores(np.eye(3), ("layer", "head"))})
    view = made({"r": run})
    (light,), (dark,) = (view.answer("pictures", {"run": "r", **more})[1] for more in ({}, {"dark": True}))
    assert {tuple(one) for one in inks(light)} >= {(255, 255, 255, 255), (0, 0, 0, 255)}
    found = {tuple(one) for one in inks(dark)}
    assert (0, 0, 0, 255) not in found
    assert any(one[3] == 0 for one in found) and any(min(one[:3]) > 230 and one[3] == 255 for one in found)


@pytest.mark.parametrize("dark", [False, True])
def test_the_list_is_a_table_as_a_figure(folder, made, dark):
    view = made(folder, title="stored").select(run="second", against="first")
    ax = view.plot(dark=dark).axes[0]
    rows = {}
    for text in ax.texts:
        rows.setdefault(text.get_position()[1], []).append(text.get_text())
    lines = [rows[at] for at in sorted(rows)]
    assert ax.get_title(loc="left") == "stored"
    assert lines[0] == ["run", "stored (UTC)", "model", "spec", "size", "main.prob", "hooked.prob", "hooked.rank"]
    assert [line[0] for line in lines[1:]] == ["third", "● second", "○ first"]
    assert lines[2][1:4] == ["1970-01-01 00:16:41", "lab", 'prompt "a"']
    assert lines[2][5:] == ["0.25", "0.125", "3"]
    corner = inks(view.to_png(dark=dark))
    assert ((17, 17, 17, 255) if dark else (255, 255, 255, 255)) in {tuple(one) for one in corner}


def test_no_two_cells_of_the_table_touch(made):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    view = made({"a" * 30: a_run(spec="metric " + "prob " * 40), "b": a_run(1e-9), "語": a_run(float("nan"))})
    figure = view.plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) > 20
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1:])
    frame = figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_a_list_of_no_runs_is_a_figure_that_says_so(made):
    assert made({}).plot().axes[0].texts[-1].get_text() == "There are no runs."


def test_a_long_list_as_a_figure_says_how_many_it_leaves_out(made):
    texts = [text.get_text() for text in made({f"r{i}": a_run(i) for i in range(65)}).plot().axes[0].texts]
    assert "5 more runs" in texts and "r59" in texts and "r60" not in texts


def test_what_is_left_out_of_the_pictures_is_said(made):
    scores = {f"hooked.s{i}": Scores(np.ones(2), ("layer",)) for i in range(8)}
    found, images = made({"r": a_run(scores=scores)}).answer("pictures", {"run": "r"})
    assert len(images) == 6
    assert found["more"] == "2 more: hooked.s6, hooked.s7"


def test_numbers_that_are_none_are_named(made):
    view = made({"r": hl.Run(metrics={"m": {"x": float("nan"), "y": float("-inf")}})})
    assert view.facts["rows"][0]["metrics"] == ["nan", "-inf"]


def test_runs_in_memory_are_listed_as_they_are(made):
    runs = [a_run(0.1), a_run(0.2)]
    view = made(runs)
    assert [one["key"] for one in view.facts["rows"]] == ["2", "1"]
    assert view.select(run="1").run is runs[0]
    assert row(view, "1")["size"] == 24
    assert row(view, "1")["stored"] == "2020-01-01 00:00:00"


def test_the_cells_of_a_notebook_are_listed(made):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        shell.run_line_magic("load_ext", "hooklab")
        shell.run_cell_magic("hook", "lab", 'prompt "Mary went to the store"\nmetric entropy')
        view = made(None)
        assert view.facts["rows"][0]["line"] == 'prompt "Mary went to the store"'
        assert view.select(run="1").run.metrics["main"]["entropy"] > 0
    finally:
        InteractiveShell.clear_instance()


def test_without_a_notebook_it_asks_for_a_folder():
    with pytest.raises(ViewError, match="name a folder"):
        hl.view.runs()


@pytest.mark.parametrize(("source", "says"), [("/nowhere", "no folder"), (__file__, "is a file"), (3, "of type int"),
                                              ({"a": 3}, "a is no Run"), ([3], "1 is no Run")])
def test_what_is_no_source_of_runs_is_refused(source, says):
    with pytest.raises(ViewError, match=says):
        hl.view.runs(source)


def test_more_runs_than_a_list_holds_are_an_error(folder, monkeypatch):
    monkeypatch.setattr(shelf, "MOST_RUNS", 2)
    with pytest.raises(ViewError, match="3 runs; a list holds 2"):
        hl.view.runs(folder)


def test_a_name_that_is_not_listed_names_the_nearest(folder, made):
    with pytest.raises(ViewError, match='Did you mean "first"'):
        made(folder).load("fist")


def test_hostile_text_stays_text(made):
    run = hl.Run(HOSTILE, metrics={HOSTILE: {HOSTILE: 1.0}}, provenance={HOSTILE: HOSTILE},
                 texts={HOSTILE: (Text("", HOSTILE, HOSTILE),)})
    view = made({HOSTILE: run}, title=HOSTILE).select(run=HOSTILE)
    assert "<img" not in view.static()
    page = view.to_html()
    assert "<img src=x" not in page
    assert "\u202e" not in json.dumps([view.facts["rows"][0]["name"], view.answer("detail", {"run": HOSTILE})[0],
                                       view.answer("pictures", {"run": HOSTILE})[0]], ensure_ascii=False)


def test_a_page_without_a_kernel_holds_what_can_be_asked(folder, made):
    view = made(folder).select(run="first", against="third")
    asked = [(name, tuple(given.values())) for name, given in view.answers()]
    assert ("compare", ("first", "third")) in asked
    assert {("detail", (key,)) for key in ("first", "second", "third")} <= set(asked)
    assert ("pictures", ("second",)) in asked


def test_a_closed_list_holds_nothing(folder):
    view = hl.view.runs(folder)
    view.close()
    assert view.entries == []
    with pytest.raises(ViewError, match="closed"):
        view.refresh()
