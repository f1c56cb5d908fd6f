"""`hooklab store ls | show | stats | diff | verify | trash | restore`: what is in stores of activations, and whether it is
in order."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError, did_you_mean
from ..html import number, printable

if TYPE_CHECKING:
    from ..data.store.store import Store
    from ..records import Scores

NAME = "store"
HELP = "list, describe, compare, check and throw away stores of activations"
EXAMPLES = ("store ls", "store show acts", "store stats acts --json", "store diff acts other --align last --metric cosine",
            "store diff acts acts --examples paris rome --align mean", "store verify acts other", "store trash acts",
            "store ls --trash", "store restore acts", "store ls --tag baseline")
SHOWN = 50
"""Examples that a comparison prints; `--json` has all."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its actions, and the arguments of each."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, (act, words) in ACTIONS.items():
        added = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
        added.set_defaults(act=act)
        if name == "ls":
            added.add_argument("folder", nargs="?", type=Path, default=Path(), help="where to look (default: here)")
            added.add_argument("--trash", action="store_true", help="those that were thrown away there")
            added.add_argument("--tag", action="append", default=[], metavar="WORD",
                               help="those that have this tag; may be repeated, one of them is enough")
        elif name == "diff":
            _add_diff(added)
        else:
            added.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="the folder of a store")


def _add_diff(parser: argparse.ArgumentParser) -> None:
    from ..data.store.words import ALIGNMENTS, METRICS

    parser.add_argument("folders", nargs=2, type=Path, metavar="DIR", help="two stores, or one twice with --examples")
    parser.add_argument("--align", choices=ALIGNMENTS, default="last",
                        help="compare token by token (the same tokens only), last tokens, or means (default: last)")
    parser.add_argument("--metric", choices=METRICS, default="cosine", help="(default: cosine)")
    parser.add_argument("--sites", nargs="+", metavar="SITE", help="which sites (default: all that both have)")
    parser.add_argument("--examples", nargs=2, metavar=("ID", "ID"), help="an example of the first and one of the second "
                                                                          "(default: those whose id both have)")


def run(options: argparse.Namespace) -> int:
    """Do it; 1 where a store is damaged. Raises HooklabError: there is no such store or example."""
    status: int = options.act(options)
    return status


def _ls(options: argparse.Namespace) -> int:
    from ..data import trashed

    folder = options.folder.expanduser()
    try:
        if not folder.is_dir():
            raise HooklabError(f"There is no folder {folder}.")
    except OSError as error:
        raise HooklabError(f"{folder} could not be read: {error.strerror or error}.") from None
    found = trashed(folder) if options.trash else sorted(path.parent for path in folder.glob("*/manifest.json"))
    rows = [_row(path) for path in found if options.trash or _is_store(path)]
    rows = _tagged(rows, options.tag, folder)
    if options.json:
        print(json.dumps(rows))
    elif not rows:
        print(f"no stores in {'the trash of ' if options.trash else ''}{folder.absolute()}")
    else:
        _table(["store", "examples", "tokens", "shards", "MB", "", "tags"],
               [[one["path"], "", "", "", "", one["error"], ""] if "error" in one else
                [one["path"], one["examples"], one["tokens"], one["shards"], f"{one['bytes'] / 1e6:.1f}",
                 "" if one["complete"] else "still open", " ".join(one["tags"])] for one in rows])
    return 1 if any("error" in one for one in rows) else 0


def _tagged(rows: list[dict[str, Any]], tags: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Those that have one of the tags, and those of which it cannot be told. Raises HooklabError: no store has a tag."""
    known = list(dict.fromkeys(tag for row in rows for tag in row.get("tags", ())))
    for tag in tags if rows else ():
        if tag not in known:
            raise HooklabError(f"No store in {folder} has the tag {tag!r}.{did_you_mean(tag, known)}")
    return [row for row in rows if not tags or "error" in row or set(tags) & set(row["tags"])]


def _is_store(path: Path) -> bool:
    """Whether a folder is a store, also one whose manifest was damaged: other tools have a file of this name too."""
    if all((path / name).is_dir() for name in ("shards", "index")):
        return True
    try:
        with (path / "manifest.json").open("rb") as file:
            return b'"hookstore"' in file.read(4096)
    except IsADirectoryError:
        return False
    except OSError:
        return True  # opening it says what is wrong


def _row(path: Path) -> dict[str, Any]:
    from ..data import open_store

    try:
        store = open_store(path)
    except HooklabError as error:
        return {"path": str(path), "error": " ".join(str(error).split())}
    shards = store.manifest.shards
    return {"path": str(path), "examples": len(store), "tokens": sum(one.tokens for one in shards), "shards": len(shards),
            "bytes": sum(one.bytes + one.index_bytes for one in shards), "complete": store.complete,
            "tags": list(store.manifest.tags)}


def _show(options: argparse.Namespace) -> int:
    stores = _opened(options)
    told = [_row(store.path) | {"sites": {site: layout.told() for site, layout in store.sites.items()},
                                "about": store.manifest.about} for store in stores]
    if options.json:
        print(json.dumps(told))
        return 0
    for store in stores:
        print(repr(store))
        for key, value in store.manifest.about.items():
            if value:
                print(f"  {key}: {printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}")
    return 0


def _stats(options: argparse.Namespace) -> int:
    every = [(store, store.summary(), store.stats) for store in _opened(options)]
    if options.json:
        print(json.dumps([{"path": str(store.path), **asdict(stats), "summary": {
            site: {key: _finite(value) for key, value in asdict(one).items()} for site, one in summary.items()}}
            for store, summary, stats in every]))
        return 0
    for store, summary, stats in every:
        print(f"{store.path}: {stats.examples} examples, {stats.tokens} tokens, {stats.bytes / 1e6:.1f} MB")
        _table(["site", "numbers", "MB", "mean", "std", "min", "max", "length", "not finite"],
               [[site, one.count, f"{stats.sites[site] / 1e6:.1f}", *(number(value) for value in (
                   one.mean, one.std, one.min, one.max, one.norm)), one.odd or ""] for site, one in summary.items()])
    return 0


def _diff(options: argparse.Namespace) -> int:
    a, b = _opened(options)
    scores = a.compare(b, options.align, options.metric, sites=options.sites,
                       examples=tuple(options.examples) if options.examples else None)
    values = scores.values.reshape(len(scores.coords["site"]), -1)
    examples = list(scores.coords.get("example", ()))
    if options.json:
        print(json.dumps({"metric": scores.name, "align": options.align, "note": scores.note, "examples": examples,
                          "sites": {site: [_finite(value) for value in row] if examples else _finite(row[0])
                                    for site, row in zip(scores.coords["site"], values.tolist(), strict=True)}}))
        return 0
    print(f"{scores.name}, {scores.note}")
    _compared(scores, values, examples)
    return 0


def _compared(scores: Scores, values: Any, examples: Sequence[str]) -> None:
    sites = list(scores.coords["site"])
    if not examples:
        _table(["site", scores.name], [[site, number(row[0])] for site, row in zip(sites, values, strict=True)])
        return
    _table(["example", *sites], [[name, *(number(value) for value in values[:, i])]
                                 for i, name in enumerate(examples[:SHOWN])])
    if len(examples) > SHOWN:
        print(f"… and {len(examples) - SHOWN} more: --json has all {len(examples)}")
    if len(examples) > 1:
        _table(["over all examples", *sites], [[word, *(number(value) for value in of(values, axis=1))]
                                               for word, of in _over().items()])


def _over() -> dict[str, Callable[..., Any]]:
    import numpy as np

    return {"least": np.min, "mean": np.mean, "most": np.max}


def _verify(options: argparse.Namespace) -> int:
    found = {str(store.path): store.verify() for store in _opened(options)}
    if options.json:
        print(json.dumps([{"path": path, "ok": not damage, "damage": [asdict(one) for one in damage]}
                          for path, damage in found.items()]))
    else:
        for path, damage in found.items():
            print("\n  ".join([f"{path}: " + (f"{len(damage)} parts are DAMAGED" if damage else "every byte is as it was "
                                               "written"), *map(str, damage)]))
    return 1 if any(found.values()) else 0


def _trash(options: argparse.Namespace) -> int:
    moved = [(store.path, store.trash()) for store in _opened(options)]
    _moved(options, moved)
    return 0


def _restore(options: argparse.Namespace) -> int:
    from ..data import restore

    moved = [(path, restore(path)) for path in map(_in_trash, options.folders)]
    _moved(options, moved)
    return 0


def _in_trash(path: Path) -> Path:
    """A store in the trash, by its path there, or by where it was. Raises HooklabError when there is none, or several."""
    from ..data import trashed
    from ..data.store.keeping import TRASH

    path = path.expanduser().absolute()
    if path.parent.parent.name == TRASH:
        return path
    found = [one for one in trashed(path.parent) if one.name == path.name]
    if len(found) != 1:
        raise HooklabError(f"There are {len(found)} stores {path.name} in the trash of {path.parent}: name one by its path, "
                           f"{', '.join(map(str, found))}." if found else
                           f"There is no store {path.name} in the trash of {path.parent}.")
    return found[0]


def _moved(options: argparse.Namespace, moved: Iterable[tuple[Path, Path]]) -> None:
    if options.json:
        print(json.dumps([{"from": str(old), "to": str(new)} for old, new in moved]))
    else:
        for old, new in moved:
            print(f"{old} -> {new}")


def _opened(options: argparse.Namespace) -> list[Store]:
    """Every store that is named, before anything is done to one."""
    from ..data import open_store

    found = [open_store(path) for path in options.folders]
    if options.act is _trash and len({store.path.resolve() for store in found}) < len(found):
        raise HooklabError("A store is named twice.")
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns one below the other: text to the left, numbers to the right."""
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip())


ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "ls": (_ls, "list the stores in a folder; status 1 where one is damaged"),
    "show": (_show, "say what stores hold and what made them"),
    "stats": (_stats, "read every value: mean, spread, extremes and length, by site"),
    "diff": (_diff, "compare two stores, or two examples"),
    "verify": (_verify, "check every byte against its checksum; status 1 where one is damaged"),
    "trash": (_trash, "move stores into .trash beside them"),
    "restore": (_restore, "bring stores back from there, by their old path or the one in the trash"),
}
