"""Views as picture files: what is in them is what their suffix says, by the first bytes and by a reader of each kind."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest

import hooklab as hl
from hooklab.errors import RecordError, ViewError
from hooklab.records import Run, Scores
from hooklab.views import registry

pytest.importorskip("matplotlib")

VIEWS = {
    "bars": lambda: hl.view.of(Scores([0.5, -2.0], ("layer",), name="effect")),
    "heads": lambda: hl.view.of(Scores(np.eye(2), ("layer", "head"), name="effect")),
    "attention": lambda: hl.view.attention(np.tri(3) / 3),
    "tokens": lambda: hl.view.tokens(["When", " Mary"], [0.5, 2.0]),
    "runs": lambda: hl.view.runs({"first": Run("metric prob", metrics={"main": {"prob": 0.5}})}),
}


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    registry.close_all()


@pytest.mark.parametrize("name", VIEWS)
def test_the_suffix_says_what_is_written(name, tmp_path):
    from PIL import Image

    view = VIEWS[name]()
    for suffix in ("png", "svg", "pdf", "PNG"):
        path = tmp_path / f"x.{suffix}" if suffix != "PNG" else tmp_path / "upper.PNG"
        data = view.to_png(path)
        assert path.read_bytes() == data
        if suffix == "svg":
            assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
        elif suffix == "pdf":
            assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
        else:
            assert Image.open(io.BytesIO(data)).format == "PNG"
    assert view.to_png()[:4] == b"\x89PNG"
    assert Image.open(io.BytesIO(view.to_png(dpi=50))).size[0] < Image.open(io.BytesIO(view.to_png(dpi=150))).size[0]


@pytest.mark.parametrize("view", ["bars", "runs"])
@pytest.mark.parametrize("name", ["x.jpg", "x.html", "x", "png", "x.pdf.gz", ".png"])
def test_another_suffix_is_refused_and_nothing_is_written(view, name, tmp_path):
    with pytest.raises(ViewError, match=r"\.png, \.svg, \.pdf"):
        VIEWS[view]().to_png(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files_are_never_written_over(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_text("mine")
    with pytest.raises(RecordError, match="exists"):
        VIEWS["heads"]().to_png(path)
    assert path.read_text() == "mine"


def test_a_closed_view_says_so_first():
    view = VIEWS["bars"]()
    view.close()
    with pytest.raises(ViewError, match="was closed"):
        view.to_png("x.jpg")
