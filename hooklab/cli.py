"""The command line: `hooklab demo | lab | run FILE | verify MODEL`. It translates, calls the API and prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import HooklabError, HooklabWarning
from .progress import quiet_libraries


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 a check failed, 2 a mistake in the input)."""
    options = _parser().parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hooklab", description="Look inside transformer language models.")
    parser.add_argument("--version", action="version", version=f"hooklab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "take the shipped model apart and write a page with pictures")
    demo.add_argument("--out", type=Path, default=Path(), metavar="FILE|DIR",
                      help="where to write the page (default: hooklab-demo.html in this folder)")
    demo.add_argument("--force", action="store_true", help="overwrite the file instead of choosing a new name")
    demo.add_argument("--open", action="store_true", help="show the page in the browser")

    command("lab", _lab, "describe the shipped model")

    run = command("run", _run, "run a spec of the hook language")
    run.add_argument("file", help="a file in the hook language, or a spec as .json; - reads standard input")
    run.add_argument("--model", metavar="NAME", help="model to run on (default: the one that the spec names, else lab)")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                     help="value for {NAME} in the spec: JSON, or plain text")
    run.add_argument("--out", type=Path, metavar="DIR", help="keep the whole result in a new folder")
    run.add_argument("--plan", action="store_true", help="show what would run, and run nothing")
    run.add_argument("--dtype", help="load the weights as float32, bfloat16 or float16")
    run.add_argument("--device", help="where to put the model, e.g. cuda")

    verify = command("verify", _verify, "check every site of a model by arithmetic")
    verify.add_argument("model", help='"lab", a name on the hub, or a folder')
    verify.add_argument("--dtype", help="load the weights as float32, bfloat16 or float16")
    verify.add_argument("--device", help="where to put the model, e.g. cuda")
    return parser


def _demo(options: argparse.Namespace) -> int:
    with quiet_libraries():
        from .demo.show import demo
        from .model.load import load

        result = demo(load("lab"), options.out, replace=options.force, quiet=options.json)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"\npictures: {result['page']}")
    if options.open:
        import webbrowser

        webbrowser.open(Path(result["page"]).as_uri())
    return 0 if result["verified"] else 1


def _lab(options: argparse.Namespace) -> int:
    from .model.lab import PATH

    if not (PATH / "config.json").is_file():
        raise HooklabError(f"The shipped model is not in {PATH}. Install hooklab again.")
    card = (PATH / "README.md").read_text(encoding="utf-8")
    size = sum(file.stat().st_size for file in PATH.iterdir())
    if options.json:
        config = json.loads((PATH / "config.json").read_text(encoding="utf-8"))
        print(json.dumps({"path": str(PATH), "bytes": size, "config": config,
                          "abilities": _section(card, "Abilities"), "card": card}))
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    body = card.split("---", 2)[2] if card.startswith("---") else card
    Console().print(Markdown(body))
    print(f"\n{size / 1e6:.2f} MB in {PATH}")
    return 0


def _section(card: str, title: str) -> list[dict[str, str]]:
    """The table under a heading of a Markdown text, one dictionary a row; empty where there is none."""
    lines = card.partition(f"### {title}\n")[2].partition("\n#")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=False)) for row in rows[2:]]


def _run(options: argparse.Namespace) -> int:
    from .commands import run_file

    dtype, device = _dtype(options.dtype), _device(options.device)

    def load(name: str, line: Mapping[str, Any]) -> Any:
        from .model.load import load as open_model

        chosen = {"dtype": dtype or _dtype(line.get("dtype")), "device": device or _device(line.get("device"))}
        return open_model(name, **{**line, **chosen})

    with quiet_libraries():
        return run_file(options, load)


def _verify(options: argparse.Namespace) -> int:
    dtype, device = _dtype(options.dtype), _device(options.device)
    with quiet_libraries():
        from .model.load import load

        model = load(options.model, dtype=dtype, device=device, verify=False)
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


def _device(name: str | None) -> Any:
    """A device on which a tensor can be made, so that a wrong one is known before a model is loaded."""
    if name is None:
        return None
    import torch

    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HooklabError(f'There is no device "{name}" here: {reason}') from error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"hooklab: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
