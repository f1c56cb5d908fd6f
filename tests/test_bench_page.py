"""The page about experiments: its code runs in an empty folder."""

from __future__ import annotations

from pathlib import Path

from pages import blocks, run

PAGE = (Path(__file__).parent.parent / "docs" / "bench.md").read_text("utf-8")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for i, block in enumerate(blocks(PAGE)):  # each block under a name of its own, as the cells of a notebook are
        run(block, f"<docs/bench.md {i}>", names)
    assert (tmp_path / "experiments" / "bench.sqlite").is_file()
    assert len(names["bench"].runs()) == 7
