"""Build the documentation: `python docs/site/build.py [--out FOLDER] [--quick]`.

Gathers README, the pages of `docs/`, the tutorials (run from top to bottom, with what they show), the reference (from the
docstrings) and the figures of `benchmarks/results/` in a folder of its own, and runs MkDocs strictly: a link that leads
nowhere is an error. `--quick` takes the tutorials as they are, without running them. Needs the extra `docs`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import yaml
from links import onsite, relinked

ROOT = Path(__file__).resolve().parents[2]
FRAME = Path(__file__).with_name("mkdocs.yml")
WIDGET = "application/vnd.jupyter.widget-view+json"

GUIDES = {
    "Coming from elsewhere": "coming_from.md", "How to": "howto.md", "The hook language": "language.md",
    "The analysis shelf": "analysis.md", "Views": "views.md", "Data sets": "data.md", "From one process to many": "scale.md",
    "Experiments": "bench.md", "Contributing": "contributing.md",
}
FINDINGS = {"Circuits of the shipped model": "circuits.md", "Found in the shipped model": "findings.md",
            "Images and text: the gate": "gate.md", "Families and sites": "oracle.md"}
REFERENCE = {
    "Models and traces": ("model", "runtime", "tokens", "families", "sites"),
    "The language": ("spec",),
    "Results": ("records",),
    "Analyses": ("analysis",),
    "Sparse autoencoders": ("sae",),
    "Data sets": ("data",),
    "Views": ("views",),
    "Experiments": ("bench",),
    "Checks for learners": ("check",),
    "Errors": ("errors",),
}
"""Pages of the reference, each with the parts of the package whose public names it holds."""


def main() -> int:
    """Gather the pages and build the site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where the site is written (default: site)")
    parser.add_argument("--quick", action="store_true", help="show the tutorials without running them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pages = folder / "pages"
        tutorials = gather(pages, run=not options.quick)
        frame = yaml.safe_load(FRAME.read_text("utf-8").replace("PACKAGE", str(ROOT)))
        frame["nav"] = contents(pages, tutorials)
        (folder / "mkdocs.yml").write_text(yaml.safe_dump(frame, sort_keys=False, allow_unicode=True), "utf-8")
        built = folder / "site"
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(folder / "mkdocs.yml"),
                   "--site-dir", str(built)]
        if status := subprocess.run(command, cwd=folder,
                                    env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode:
            return status
        if options.out.exists():
            shutil.rmtree(options.out)
        shutil.move(built, options.out)
    print(f"{sum(1 for _ in options.out.rglob('*.html'))} pages in {options.out}")
    return 0


def gather(pages: Path, *, run: bool) -> dict[str, str]:
    """Put every page into its place; the tutorials by title."""
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("site", "*.md", "*.schema.json"))
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks/results").glob("*.md")]
    for file in (file.relative_to(ROOT) for file in files):
        page = Path(onsite(file.as_posix()) or file.name)
        write(pages / page, relinked((ROOT / file).read_text("utf-8"), file, page))
    write(pages / "benchmarks/index.md", figures())
    for title, parts in REFERENCE.items():
        write(pages / "reference" / f"{slug(title)}.md", "\n".join(reference(title, parts)))
    return tutorials(pages / "tutorials", run=run)


def write(page: Path, text: str) -> None:
    """Write a page, in a folder that may not be there yet."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, "utf-8")


def tutorials(folder: Path, *, run: bool) -> dict[str, str]:
    """The notebooks with what they show, in `folder`; their places by title."""
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*", "README.md"))
    found = {}
    for file in sorted(folder.glob("*.ipynb")):
        book = nbformat.read(file, as_version=4)
        found[book.cells[0].source.splitlines()[0].lstrip("# ")] = f"tutorials/{file.name}"
        if run:
            execute(book)
        book.cells = [folded(cell) for cell in book.cells]
        nbformat.write(book, file)
    return found


def execute(book: nbformat.NotebookNode) -> None:
    """Run a notebook in place; of a widget, keep the form that needs no kernel."""
    from nbclient import NotebookClient

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        NotebookClient(book, timeout=300, resources={"metadata": {"path": place}}).execute()
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data.pop(WIDGET, None)
    book.metadata.pop("widgets", None)
    print(f"{book.cells[0].source.splitlines()[0]}: {time.perf_counter() - start:.0f} s", flush=True)


def folded(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A solution as text to unfold; any other cell without its tags."""
    if "solution" in cell.metadata.pop("tags", []):
        text = f"<details><summary>Solution, in code</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
        return nbformat.v4.new_markdown_cell(text, id=cell.id)
    return cell


def figures() -> str:
    """The page about benchmarks: each script, what it measures, and where its figures are."""
    lines = ["# Benchmarks", "", "Every figure comes from a script that anyone can run; each page says on which machine. "
             "Speed is a ratio to a named peer in the same run.", "", "| command | measures | figures |", "|---|---|---|"]
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        text = script.read_text("utf-8")
        said = re.match(r'\s*"""(.*?)(?:"""|\n\n|\n)', text, re.DOTALL)
        result = ROOT / "benchmarks/results" / f"{script.stem}.md"
        shown = f"[{script.stem}]({script.stem}.md)" if result.exists() else ""
        lines.append(f"| `python benchmarks/{script.name}` | {said[1].strip() if said else ''} | {shown} |")
    return "\n".join(lines) + "\n"


def reference(title: str, parts: tuple[str, ...]) -> Iterator[str]:
    """A page of the reference: the public names of these parts of the package, in the order of `hooklab.__init__`."""
    yield f"# {title}\n"
    for dotted in names(parts):
        yield f"::: {dotted}\n"


def names(parts: tuple[str, ...]) -> list[str]:
    """Where the public names of these parts are defined, each once."""
    sys.path.insert(0, str(ROOT))
    top = importlib.import_module("hooklab")
    found = [(top, name) for name, home in top._HOME.items() if home.split(".")[0] in parts]
    for part in parts:
        package = importlib.import_module(f"hooklab.{part}")
        found += [(package, name) for name in getattr(package, "_HOME", None) or offered(package)]
    return list(dict.fromkeys(path for home, name in found for path in places(home, name)))


def offered(module: ModuleType) -> list[str]:
    """The public classes and functions of a module, or of a package that says what is public."""
    if not hasattr(module, "__path__"):
        return own(module)
    return [name for name in getattr(module, "__all__", ()) if callable(getattr(module, name))]


def own(module: ModuleType) -> list[str]:
    """The public classes and functions that a module defines."""
    return [name for name, thing in vars(module).items()
            if not name.startswith("_") and callable(thing) and getattr(thing, "__module__", "") == module.__name__]


def places(home: ModuleType, name: str) -> list[str]:
    """Where a public name is really defined, so that it has one entry however often it is exported; of a module, its own."""
    thing = getattr(home, name)
    if isinstance(thing, ModuleType):
        return [f"{thing.__name__}.{each}" for each in own(thing)]
    if callable(thing) and hasattr(thing, "__qualname__"):
        return [f"{thing.__module__}.{thing.__qualname__}"]
    return [f"{home.__name__}.{home._HOME[name]}.{name}"]


def slug(title: str) -> str:
    """A title as a file's name."""
    return re.sub(r"\W+", "_", title.lower())


def contents(pages: Path, tutorials: dict[str, str]) -> list[dict[str, object]]:
    """What stands in the margin, in order."""
    def there(table: dict[str, str]) -> list[dict[str, str]]:
        return [{title: name} for title, name in table.items() if (pages / name).exists()]

    results = {file.stem: f"benchmarks/{file.name}" for file in sorted((pages / "benchmarks").glob("[!i]*.md"))}
    return [{"Home": "index.md"}, {"Tutorials": [{title: place} for title, place in tutorials.items()]},
            {"Guides": there(GUIDES)}, {"Findings": there(FINDINGS)},
            {"Reference": [{title: f"reference/{slug(title)}.md"} for title in REFERENCE]},
            {"Benchmarks": ["benchmarks/index.md", *({name: place} for name, place in results.items())]},
            {"Changes": "changes.md"}]


if __name__ == "__main__":
    sys.exit(main())
