"""The command line: `hooklab demo`, `hooklab lab`, `hooklab verify MODEL`. It translates, calls the API and prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import HooklabError, HooklabWarning


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 a check failed, 2 a mistake in the input)."""
    options = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings(), _quiet_libraries():
            warnings.simplefilter("always", HooklabWarning)
            warnings.showwarning = _show_warning
            return options.run(options)
    except HooklabError as error:
        print(f"hooklab: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hooklab", description="Look inside transformer language models.")
    parser.add_argument("--version", action="version", version=f"hooklab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="take the shipped model apart and write a page with pictures")
    demo.add_argument("--out", type=Path, default=Path("hooklab-demo.html"), help="HTML file (default: %(default)s)")
    demo.add_argument("--replace", action="store_true", help="overwrite the file instead of choosing a new name")
    demo.set_defaults(run=_demo)

    lab = commands.add_parser("lab", help="describe the shipped model")
    lab.set_defaults(run=_lab)

    verify = commands.add_parser("verify", help="check every site of a model by arithmetic")
    verify.add_argument("model", help='"lab", a name on the hub, or a folder')
    verify.add_argument("--dtype", help="load the weights as float32, bfloat16 or float16")
    verify.add_argument("--device", help="where to put the model, e.g. cuda")
    verify.set_defaults(run=_verify)
    for command in (demo, lab, verify):
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo.show import demo
    from .model.load import load

    result = demo(load("lab"), options.out, replace=options.replace, quiet=options.json)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"pictures: {result['page']}")
    return 0 if result["verified"] else 1


def _lab(options: argparse.Namespace) -> int:
    from .model.lab import PATH

    card = (PATH / "README.md").read_text(encoding="utf-8")
    size = sum(file.stat().st_size for file in PATH.iterdir())
    if options.json:
        config = json.loads((PATH / "config.json").read_text(encoding="utf-8"))
        print(json.dumps({"path": str(PATH), "bytes": size, "config": config, "card": card}))
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    body = card.split("---", 2)[2] if card.startswith("---") else card
    Console().print(Markdown(body))
    print(f"\n{size / 1e6:.2f} MB in {PATH}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from .model.load import load

    model = load(options.model, dtype=_dtype(options.dtype), device=options.device, verify=False)
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


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise HooklabError(f'There is no dtype "{name}" to load as; choose {", ".join(known)}.')
    return known[name]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"hooklab: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def _quiet_libraries() -> Any:
    """Keep transformers' progress bars and notes off the terminal for the length of a command."""
    import transformers.utils.logging as log

    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
