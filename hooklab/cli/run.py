"""`hooklab run FILE`: a spec from a file or from standard input, run on a model, printed as text or JSON.

No Python of the spec is ever evaluated here: what stands between braces gets its value from `--set`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError, nearest
from ..problems import SpecError
from ..progress import Progress, in_terminal, quiet_libraries
from ..spec.ast import Spec
from ..spec.holes import given, model_line
from ..spec.parser import LONGEST, parse
from .opening import add_model, opened

if TYPE_CHECKING:
    from ..records import Run

NAME = "run"
HELP = "run a spec of the hook language"
EXAMPLES = ("run experiment.hook", "run heads.hook --set heads=L2H0 --out results --json", "run experiment.hook --plan")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("file", help="a file in the hook language, or a spec as .json; - reads standard input")
    parser.add_argument("--model", metavar="NAME", help="model to run on (default: the one that the spec names, else lab)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                        help="value for {NAME} in the spec: JSON, or plain text")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the whole result in a new folder")
    parser.add_argument("--plan", action="store_true", help="show what would run, and run nothing")
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Run a spec; the answer is the exit status: 0 done, 1 a claim does not hold, 2 a mistake in the input.

    Raises:
        HooklabError: a mistake that stands in no spec, such as a file that is not there.
    """
    with quiet_libraries():
        return _run_file(options)


def _run_file(options: argparse.Namespace) -> int:
    text = _text(options.file)
    try:
        spec = _spec(options.file, text)
        values = given(spec, options.settings)
        if options.out is not None and options.out.expanduser().exists():
            raise HooklabError(f"There is {options.out} already; choose another folder.")
        if options.out is not None and not options.out.expanduser().absolute().parent.is_dir():
            raise HooklabError(f"There is no folder {options.out.parent} to keep {options.out.name} in.")
        named, extra = model_line(spec) or ("lab", {})
        model = opened(options, options.model or named, {} if options.model else extra)
        if options.plan:
            plan = str(model.plan(spec, values=values))
            print(json.dumps({"plan": plan}) if options.json else plan)
            return 0
        found = _run(model, spec, values)
    except SpecError as error:
        print("\n".join([f"hooklab: in {_name(options.file)}:", *error.lines()]), file=sys.stderr)
        kept: Run | None = getattr(error, "run", None)
        if kept is None or any(problem.kind != "expect" for problem in error.problems):
            return 2
        found = kept
    _report(found, options)
    return 0 if all(claim.holds for claim in found.expectations) else 1


def _report(run: Run, options: argparse.Namespace) -> None:
    """Keep a run where it was asked for, and print it. Raises HooklabError when it cannot be kept."""
    saved = run.save(options.out) if options.out is not None else None
    if options.json:
        print(json.dumps(as_data(run) | ({"saved": str(saved)} if saved else {}), ensure_ascii=False, allow_nan=False))
    else:
        print(repr(run) + (f"\n\nsaved in {saved}" if saved else ""))


def _run(model: Any, spec: Spec, values: dict[str, Any]) -> Run:
    progress = Progress(in_terminal)
    try:
        result: Run = model.run(spec, progress=progress, values=values)
        return result
    finally:
        progress.close()


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _text(file: str) -> str:
    """What a file holds. Raises HooklabError when it cannot be read."""
    path = Path(file).expanduser()
    try:
        if file == "-":
            data = sys.stdin.buffer.read(LONGEST * 4 + 1)
        else:
            with path.open("rb") as opened:
                data = opened.read(LONGEST * 4 + 1)
        if len(data) > LONGEST * 4:
            raise HooklabError(f"{_name(file)} is too large for a spec.")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        close = nearest(path.name, [other.name for other in path.parent.iterdir()]) if path.parent.is_dir() else None
        hint = f" Did you mean {path.parent / close}?" if close else ""
        raise HooklabError(f"There is no file {file}.{hint}") from None
    except UnicodeDecodeError:
        raise HooklabError(f"{_name(file)} is no text in UTF-8.") from None
    except OSError as error:
        raise HooklabError(f"{_name(file)} could not be read: {error.strerror or error}.") from None


def _spec(file: str, text: str) -> Spec:
    """A spec from text, or from JSON where the name or the first character says so."""
    as_json = file.lower().endswith(".json") or (file == "-" and text.lstrip().startswith("{"))
    return Spec.from_json(text) if as_json else parse(text.replace("\r\n", "\n"))


def as_data(run: Run) -> dict[str, Any]:
    """A run as plain data: everything but tensors; numbers that are not finite are null."""
    return {
        "spec": run.spec,
        "metrics": _plain(run.metrics),
        "scores": {name: {"axes": list(scores.axes), "coords": _plain(scores.coords), "unit": scores.unit,
                          "values": _plain(scores.values), "labels": _plain(scores.labels)}
                   for name, scores in run.scores.items()},
        "texts": {name: [{"text": one.text, "new": one.new, "cell": _plain(one.cell), "sample": one.sample,
                          "example": one.example, "stopped": one.stopped} for one in several]
                  for name, several in run.texts.items()},
        "saved_activations": {name: {"axes": list(run.axes[name]), "shape": list(tensor.shape)}
                              for name, tensor in run.data.items()},
        "expectations": [{"text": claim.text, "left": _plain(claim.left), "right": _plain(claim.right), "holds": claim.holds}
                         for claim in run.expectations],
        "provenance": _plain(run.provenance),
    }


def _plain(value: Any) -> Any:
    """Mappings, sequences, arrays and numbers as JSON has them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
