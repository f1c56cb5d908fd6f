"""The page about data sets: its code runs in an empty folder."""

from __future__ import annotations

from pathlib import Path

from pages import blocks, missing, run

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text("utf-8")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for n, block in enumerate(blocks(PAGE)):
        run(block, f"<docs/data.md {n}>", names)
    assert (tmp_path / "acts" / "manifest.json").is_file()


def test_every_name_on_the_page_is_there():
    assert missing(PAGE) == []
