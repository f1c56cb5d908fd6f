"""Four things that a person can find in the shipped model: docs/findings.md and docs/findings/*.png.

    python benchmarks/findings.py [--quick] [--into docs]

Each is measured beside its null, by `benchmarks/found/`; every number of the page comes from here. `--quick` takes fewer
prompts and a smaller autoencoder, prints the numbers, and writes nothing unless it is told where.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.found import features, induction, movers, neurons  # noqa: E402

SECTIONS: dict[str, tuple[ModuleType, str]] = {
    "induction": (induction, "Induction heads: layer 1, and they share the work"),
    "movers": (movers, "Indirect objects: heads bring both names, MLPs choose"),
    "neurons": (neurons, "Facts: neurons that write a city, whoever asks"),
    "features": (features, "A feature with a name: a place comes next"),
}
"""Name of the picture -> what measures, draws and tells it; and its heading."""
QUICK: dict[str, dict[str, Any]] = {
    "induction": {"count": 8, "draws": 1}, "movers": {"count": 16, "draws": 1},
    "neurons": {"cities": 8, "steps": (0, 80)},
    "features": {"count": 220, "features": 128, "steps": 150, "prompts": 8},
}
ALTS = {
    "induction": "Maps of induction scores with and without repetition, and accuracy as heads are taken away",
    "movers": "Maps of what heads write for one name over another, and the sums of heads and MLPs",
    "neurons": "Accuracy and logit difference as neurons are held at their mean, and what follows strong contexts",
    "features": "Precision and recall of the feature, and log-odds of a place with it off and on",
}


def measured(model: Any, *, quick: bool = False) -> dict[str, Any]:
    """What each section found."""
    found = {}
    for name, (module, _) in SECTIONS.items():
        start = time.monotonic()
        found[name] = module.measure(model, **QUICK[name] if quick else {})
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return found


def page(found: dict[str, Any]) -> str:
    """The page."""
    parts = ["# Found in the shipped model", "Made by `python benchmarks/findings.py`; do not edit.",
             "`hl.load(\"lab\")` is a small trained model; `hooklab card` shows its card: what it can do, and the scores of "
             "its heads. [Circuits](circuits.md) sweeps over it. Here are four things that are in it, each with the null "
             "beside it and the lines that find it, in a short form. Random draws are seeded. All code goes on from\n\n"
             "```python\nimport hooklab as hl\n\nmodel = hl.load(\"lab\")\n```"]
    for name, (module, heading) in SECTIONS.items():
        parts += [f"## {heading}", f"![{ALTS[name]}](findings/{name}.png)", module.text(found[name]), code(module)]
        if name == "features":
            parts.append("![Histogram of the feature, and the tokens that it raises and lowers](findings/dashboard.png)")
    return "\n\n".join(parts) + "\n"


def code(module: ModuleType) -> str:
    """The lines that show a finding, after those that make its prompts."""
    return f"```python\n{module.GIVEN.strip()}\n\n{module.CODE.strip()}\n```"


def replaced(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.part")
    staged.write_bytes(data)
    staged.replace(path)


def write(found: dict[str, Any], into: Path) -> None:
    """Pictures first, so that the page never names one that is not there."""
    for name, (module, _) in SECTIONS.items():
        staged = into / "findings" / f".{name}.part"
        staged.parent.mkdir(parents=True, exist_ok=True)
        module.draw(found[name]).savefig(staged, format="png", dpi=110, metadata={"Software": None})
        staged.replace(into / "findings" / f"{name}.png")
    replaced(into / "findings" / "dashboard.png", found["features"].board.to_png(dpi=100))
    replaced(into / "findings.md", page(found).encode())


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, and only printed")
    parser.add_argument("--into", type=Path, help="the folder of the page; docs unless --quick")
    given = parser.parse_args()

    import hooklab as hl

    found = measured(hl.load("lab"), quick=given.quick)
    print(page(found))
    into = given.into or (None if given.quick else ROOT / "docs")
    if into is not None:
        write(found, into)


if __name__ == "__main__":
    main()
