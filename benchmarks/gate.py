"""Which way an image takes into the text, on two models whose way is known: docs/gate.md and docs/gate/*.png.

    python benchmarks/gate.py [--quick] [--into docs]

The models are those that `hl.load` opens as "gate" and "gate-null"; `benchmarks/gated/` has the spec (`gate.hook`) and the
questions. Every number of the page comes from here.
`--quick` takes fewer pictures, prints the page, and writes nothing unless it is told where.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gated import pictures  # noqa: E402
from benchmarks.gated.page import page  # noqa: E402
from benchmarks.gated.study import Study, study  # noqa: E402

COUNT, QUICK = 64, 16


def measured(count: int) -> tuple[Study, Study]:
    """The model with the gate, and the one without."""
    return study(gate=True, count=count), study(gate=False, count=count)


def write(found: tuple[Study, Study], count: int, into: Path) -> None:
    """Pictures first, so that the page never names one that is not there; every file whole or not at all."""
    folder = into / "gate"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("ways", pictures.ways), ("places", pictures.places)):
        staged = folder / f".{name}.part"
        draw(found).savefig(staged, format="png", dpi=110, metadata={"Software": None})
        staged.replace(folder / f"{name}.png")
    staged = into / ".gate.md.part"
    staged.write_text(page(found, count), encoding="utf-8")
    staged.replace(into / "gate.md")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, and only printed")
    parser.add_argument("--into", type=Path, help="the folder of the page; docs unless --quick")
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = QUICK if given.quick else COUNT
    found = measured(count)
    print(page(found, count))
    into = given.into or (None if given.quick else ROOT / "docs")
    if into is not None:
        write(found, count, into)


if __name__ == "__main__":
    main()
