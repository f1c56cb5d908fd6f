"""`hooklab extract`: the activations of a data set, brought into a folder; or only their sums and metrics.

Nothing of the data is evaluated: templates name columns, specs are lines of the hook language without braces.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError
from ..problems import SpecError
from ..progress import quiet_libraries
from .opening import add_model, opened

if TYPE_CHECKING:
    from ..data.extraction.extract import Extraction

NAME = "extract"
HELP = "bring the activations of a data set into a folder"
EXAMPLES = (
    "extract --model lab --data prompts.jsonl --sites L*.resid_post --at last --out acts",
    "extract --data prompts.jsonl --template '{name} is in the city of' --sites L3.resid_post --metadata name --out towns",
    "extract --data prompts.jsonl --sites L*.z --out heads --dry-run",
    "extract --data prompts.jsonl --sites L3.resid_post --no-store --reduce mean,variance --metric entropy --json",
)
SHOWN = 100_000
"""Numbers of a result that JSON has; of a larger one it has the shape."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--model", metavar="NAME", default="lab",
                        help='"lab", a name on the hub, or a folder (default: lab)')
    parser.add_argument("--data", metavar="FILE|DIR", required=True,
                        help="a .jsonl, .json, .csv, .tsv, .parquet or .txt file, or a folder of images")
    parser.add_argument("--sites", metavar="ADDRESS", nargs="+", help="what is stored or added up, e.g. L*.resid_post L3.z")
    parser.add_argument("--at", metavar="POSITION", help="which positions, e.g. last or '[0,last]' (default: all)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the folder; one that was begun is continued")
    parser.add_argument("--no-store", action="store_true", help="keep no activations, only what --reduce and --metric give")
    parser.add_argument("--reduce", metavar="WORDS",
                        help="several with commas of: mean, variance, covariance, extent, max_k, mean_pattern, "
                             "variance_pattern")
    parser.add_argument("--metric", metavar="NAME", action="append", default=[],
                        help="a metric of the hook language for each example, e.g. entropy or 'gap = logit_diff'")
    parser.add_argument("--answer", metavar="COLUMNS", action="append", default=[],
                        help="the column of the right answer; behind a comma, or in a second --answer, that of a wrong one")
    parser.add_argument("--spec", metavar="FILE", type=Path, help="lines of the hook language that act during the passes")
    _add_source(parser)
    parser.add_argument("--batch-tokens", metavar="N", type=int, help="most tokens of a batch")
    parser.add_argument("--store-as", metavar="TYPE", help="store as float16, bfloat16 … (default: as it comes)")
    parser.add_argument("--max-ram", metavar="SIZE", help="what values may take in memory, e.g. 2GB")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop",
                        help="whether an example that fails ends it, or is left out and listed")
    parser.add_argument("--no-resume", action="store_true", help="do not continue a folder that is there")
    parser.add_argument("--dry-run", action="store_true", help="count bytes and passes, and run nothing")
    parser.add_argument("--timed", action="store_true", help="with --dry-run: run one batch to tell how long it would take")
    add_model(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--template", metavar="TEXT", help="the prompt, columns in braces: '{image} {caption}'")
    parser.add_argument("--text", metavar="COLUMN", help="the column of the prompt (default: text)")
    parser.add_argument("--id", metavar="COLUMN", help="the column of the ids (default: rows are counted)")
    parser.add_argument("--metadata", metavar="COLUMNS", help="columns that are stored along, with commas; or all")
    parser.add_argument("--images", metavar="COLUMNS", help="columns of images, with commas")
    parser.add_argument("--chat", action="store_true", help="make the prompt the user's turn of a chat")
    parser.add_argument("--limit", metavar="N", type=int, help="how many examples at most")
    parser.add_argument("--truncate", choices=("left", "right"), help="cut what is too long on that side")


def run(options: argparse.Namespace) -> int:
    """Extract; 0 done.

    Raises:
        HooklabError: options do not go together, an example cannot be read, or the folder was begun otherwise.
    """
    if options.timed and not options.dry_run:
        raise HooklabError("--timed goes with --dry-run.")
    with quiet_libraries():
        chosen = _chosen(options)
        from ..data.extraction.extract import Extraction, extract

        model = opened(options, options.model)
        try:
            found = extract(model, options.data, options.sites, options.out, progress=True, **chosen)
        except SpecError as error:
            if options.spec is None:  # the lines are not the user's: what is wrong, without where
                raise HooklabError("\n".join(f"{one.message}" + f": {one.hint}" * bool(one.hint)
                                             for one in error.problems)) from error
            print("\n".join([f"hooklab: in {options.spec}:", *error.lines()]), file=sys.stderr)
            return 2
    if not isinstance(found, Extraction):
        print(json.dumps(_plain(found.to_dict())) if options.json else repr(found))
        return 0
    print(json.dumps(as_data(found), ensure_ascii=False, allow_nan=False) if options.json else _text(found))
    return 0


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked for, as the function takes it."""
    metadata = options.metadata if options.metadata in (None, "all") else _words(options.metadata)
    given = {"at": options.at, "template": options.template, "text": options.text, "id": options.id, "metadata": metadata,
             "images": None if options.images is None else _words(options.images), "limit": options.limit,
             "truncate": options.truncate, "batch_tokens": options.batch_tokens, "dtype": options.store_as,
             "max_ram": options.max_ram, "answer": _words(",".join(options.answer)) or None,
             "metrics": _metrics(options.metric),
             "reduce": None if options.reduce is None else _words(options.reduce), "spec": _spec(options.spec)}
    return {name: value for name, value in given.items() if value is not None} | {
        "chat": options.chat, "keep": False if options.no_store else None, "resume": not options.no_resume,
        "on_error": options.on_error, "dry_run": "timed" if options.timed else options.dry_run}


def _words(given: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in given.split(",") if word.strip())


def _metrics(given: list[str]) -> dict[str, str] | None:
    """`entropy`, or `name = expression`."""
    pairs = [one.partition("=") for one in given]
    found: dict[str, str] = {}
    for name, sign, value in pairs:
        if name.strip() in found:
            raise HooklabError(f"--metric {name.strip()} is given twice: name one otherwise, NAME=METRIC.")
        found[name.strip()] = (value if sign else name).strip()
    return found or None


def _spec(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise HooklabError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _text(found: Extraction) -> str:
    return repr(found) + (f"\n\nin {found.store.path}" if found.store is not None else "")


def as_data(found: Extraction) -> dict[str, Any]:
    """An extraction as plain data: everything but the activations; numbers that are not finite are null."""
    store = found.store
    return _plain({
        "store": None if store is None else {
            "path": str(store.path), "examples": len(store), "shards": len(store.manifest.shards),
            "sites": {site: {"axes": list(layout.axes), "sizes": layout.sizes, "dtype": layout.dtype}
                      for site, layout in store.sites.items()}},
        "reduced": {name: _result(one.result()) for name, one in found.reduced.items()},
        "metrics": {name: some.tolist() for name, some in found.metrics.items()},
        "report": found.report.to_dict()})


def _result(result: Any) -> Any:
    """Scores with their values, or with their shape alone where these are very many."""
    if not hasattr(result, "axes"):
        return list(result)
    few = result.values.size <= SHOWN
    return {"axes": list(result.axes), "shape": list(result.values.shape), "note": result.note,
            "values": result.values.tolist() if few else None,
            **({"labels": result.labels.tolist()} if few and result.labels is not None else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
