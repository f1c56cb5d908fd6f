"""The command line: `hooklab lab | demo | card | run | generate | store …`. It translates, calls the API and prints.

One file per command, each with `NAME`, `HELP`, `EXAMPLES` (run by the tests, and shown by `--help`), `add(parser)` and
`run(options)`, which gives the exit status. `COMMANDS` is their order in the help. Nothing heavy is imported before a
command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Protocol

from .. import __version__
from ..errors import HooklabError, HooklabWarning
from . import bench, card, demo, extract, generate, lab, run, runs, store, verify


class Command(Protocol):
    """What a module of a command has."""

    NAME: str
    HELP: str
    EXAMPLES: tuple[str, ...]

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Its arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; gives the exit status."""


COMMANDS: tuple[Command, ...] = (
    lab, demo, card, run, runs, extract, generate, bench, store, verify)  # type: ignore[assignment]  # modules


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 a check failed, 2 a mistake in the input)."""
    options = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", HooklabWarning)
            warnings.showwarning = _show_warning
            status: int = options.run(options)
            sys.stdout.flush()
            return status
    except HooklabError as error:
        print(f"hooklab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `hooklab verify lab | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    whole = argparse.ArgumentParser(prog="hooklab", description="Look inside transformer language models.")
    whole.add_argument("--version", action="version", version=f"hooklab {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        examples = "\n".join(f"  hooklab {example}" for example in command.EXAMPLES)
        added = commands.add_parser(
            command.NAME, help=command.HELP, description=command.HELP[0].upper() + command.HELP[1:] + ".",
            epilog=f"examples:\n{examples}" if examples else None, formatter_class=argparse.RawDescriptionHelpFormatter)
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add(added)
        added.set_defaults(run=command.run)
    return whole


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"hooklab: warning: {message}", file=sys.stderr)
