"""`hooklab demo`: the shipped model taken apart, as a page with pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..progress import quiet_libraries

NAME = "demo"
HELP = "take the shipped model apart and write a page with pictures"
EXAMPLES = ("demo", "demo --out tour.html --json")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--out", type=Path, default=Path(), metavar="FILE|DIR",
                        help="where to write the page (default: hooklab-demo.html in this folder)")
    parser.add_argument("--force", action="store_true", help="overwrite the file instead of choosing a new name")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")


def run(options: argparse.Namespace) -> int:
    """Write the page; 1 where a check of the model fails."""
    with quiet_libraries():
        from ..demo.show import demo
        from ..model.load import load

        result = demo(load("lab"), options.out, replace=options.force, quiet=options.json)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"\npictures: {result['page']}")
    if options.open:
        import webbrowser

        webbrowser.open(Path(result["page"]).as_uri())
    return 0 if result["verified"] else 1
