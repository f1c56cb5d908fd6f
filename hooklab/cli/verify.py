"""`hooklab verify MODEL`: every site of a model checked by arithmetic."""

from __future__ import annotations

import argparse
import json

from ..progress import quiet_libraries
from .opening import add_model, opened

NAME = "verify"
HELP = "check every site of a model by arithmetic"
EXAMPLES = ("verify lab", "verify lab --dtype bfloat16 --json")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help='"lab", a name on the hub, or a folder')
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 where a check fails."""
    with quiet_libraries():
        model = opened(options, options.model, verify=False)
        report = model.verify()
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        from rich.console import Console

        console = Console()
        console.print(repr(model), markup=False)
        console.print(report)
        console.print("all checks pass" if report.ok else "some checks FAIL", style="bold")
    return 0 if report.ok else 1
