"""The documentation's site: it builds strictly, every public name is in its reference, and nothing comes from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hooklab as hl

pytest.importorskip("mkdocs", reason="MkDocs is not installed")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "out"
    done = subprocess.run([sys.executable, str(ROOT / "docs/site/build.py"), "--quick", "--out", str(out)],
                          capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_public_name_has_an_entry_in_the_reference(site):
    entries = {anchor.rsplit(".", 1)[-1] for page in (site / "reference").rglob("index.html")
               for anchor in re.findall(r'id="(hooklab\.[\w.]+)"', page.read_text("utf-8"))}
    for package in (hl, hl.analysis, hl.sae):
        others = {name for name in package.__all__ if isinstance(getattr(package, name), (ModuleType, str, dict, tuple))}
        assert not set(package.__all__) - entries - others


def test_every_tutorial_is_on_it_with_its_solutions_folded(site):
    pages = sorted((site / "tutorials").glob("*/index.html"))
    assert [page.parent.name for page in pages] == [file.stem for file in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    for page in pages:
        assert "Solution, in code" in page.read_text("utf-8")


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?(https?://[^">\s]+)', page.read_text("utf-8"))
        assert not [url for url in fetched if "mybinder.org" not in url and "colab" not in url], page
