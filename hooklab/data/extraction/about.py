"""What an extraction depends on, in words that a store's manifest keeps and a resumed run is compared with."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import HooklabWarning, RecordError
from ...runtime.provenance import fingerprint
from ..inputs import loaders
from ..inputs.rows import is_folder
from ..inputs.rows import rows as rows_of
from ..reducers.reducing import Reducer
from ..store import manifest as files
from ..store.lock import Lock
from ..store.manifest import Manifest
from .functions import text_of, unseen
from .state import FOLDER

if TYPE_CHECKING:
    from ...model.model import Model

LINED = (".jsonl", ".txt", ".csv", ".tsv")
SHORT = 60
SAID = {"hold": "hold (bytes that follow from max_ram and shard_bytes)"}
"""What is said of an option that goes by another name for the user."""


@dataclass(frozen=True)
class Known:
    """What is known of a source without reading its rows.

    Attributes:
        told: What the manifest says.
        rows: How many there are; about, for a file of text. None where nobody knows.
    """

    told: dict[str, Any]
    rows: int | None


def known(source: Any, limit: int | None) -> Known:
    """Look at a source. Raises PromptError where there is none."""
    if loaders.is_loader(source):
        found = Known({}, loaders.count(source))
    elif not isinstance(source, str | Path):
        count = len(source) if hasattr(source, "__len__") else None
        own = getattr(source, "_fingerprint", None)  # of a Hugging Face data set
        found = Known({"fingerprint": own} if isinstance(own, str) else {}, count)
    elif is_folder(path := Path(source).expanduser()):
        found = Known({"folder": path.absolute().name}, sum(1 for _ in rows_of(path)))
    else:
        rows_of(path)  # which says what is wrong with it
        digest, lines = _read(path)
        found = Known({"file": path.name, "sha256": digest}, _count(path, lines))
    return found if limit is None or found.rows is None else Known(found.told, min(found.rows, limit))


def _read(path: Path) -> tuple[str, int]:
    made, lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            made.update(part)
            lines += part.count(b"\n")
    return made.hexdigest(), lines


def _count(path: Path, lines: int) -> int | None:
    if path.suffix.lower() == ".parquet":
        from ..store.index import arrow

        try:
            return int(arrow().parquet.ParquetFile(path).metadata.num_rows)
        except (arrow().ArrowException, OSError):
            return None  # reading it will say why
    return max(1, lines) if path.suffix.lower() in LINED else None


def about(model: Model, spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`model`, `tokenizer`, `spec` and `options` of a manifest."""
    tokenizer = model.tokenizer
    return {
        "model": {"name": getattr(model.hf.config, "_name_or_path", "") or type(model.hf).__name__,
                  "family": model.facts.family, "layers": model.facts.n_layers, "fingerprint": fingerprint(model),
                  "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type,
                  "attention": getattr(model.layout.config, "_attn_implementation", None),
                  "hooks": [hook.address for hook in model.hooks]},
        "tokenizer": None if tokenizer is None else {"kind": type(tokenizer).__name__, "size": len(tokenizer)},
        "spec": spec, "options": dict(options)}


def described(reducers: Mapping[str, Reducer]) -> dict[str, Any]:
    """Reducers, without what they hold."""
    return {name: {"kind": one.kind, "site": one.site} | {key: value for key, value in one.options().items()
                                                         if value is not None} for name, one in reducers.items()}


def named(functions: Mapping[str, Any]) -> dict[str, str]:
    """Functions by their names and what they do, as far as that can be told; text as it is."""
    return {name: one if isinstance(one, str) else text_of(one) for name, one in functions.items()}


def valued(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What names in braces stand for: numbers and short text as they are, anything else by what tells it from others."""
    return {name: one if one is None or (isinstance(one, int | float) and math.isfinite(one))
            or (isinstance(one, str) and len(one) <= SHORT) else text_of(one) for name, one in (values or {}).items()}


def unchanged(folder: Path, asked: Manifest) -> None:
    """Whether a store may be continued; one in which nothing is yet is begun anew, however it was begun.

    What functions read that cannot be told is not compared, which is a warning.

    Raises:
        RecordError: the store was begun in another way, and it says what differs; or an empty one is being written.
    """
    if not files.there(folder):
        return
    found, _ = files.read(folder)
    if not found.shards:
        _begun_anew(folder, asked)
        return
    differ = _differences(found.about, asked.about)
    if differ:
        raise RecordError(f"{folder} was begun otherwise: {'; '.join(differ[:6])}. Choose another folder, or go on as it "
                          "was begun")
    options = asked.about["options"]
    if odd := [name for key in ("edits", "metrics", "values") for name in unseen(options.get(key) or {})]:
        warnings.warn(f"{folder} goes on with {', '.join(odd)}: not all that these functions read can be compared with what "
                      "it was begun with", HooklabWarning, stacklevel=2)


def _begun_anew(folder: Path, asked: Manifest) -> None:
    """Have the manifest of a store without examples say what is asked for; a call that failed early leaves such a one."""
    with Lock(folder):  # whose writer may be about to commit the first shard
        found, _ = files.read(folder)
        as_asked = (found.about, found.sites, found.shard_bytes) == (asked.about, asked.sites, asked.shard_bytes)
        if not found.shards and not as_asked:
            for path in (folder / FOLDER).glob("*.safetensors"):
                path.unlink(missing_ok=True)
            files.write(folder, replace(asked, tags=found.tags))


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in dict.fromkeys((*new, *old)):
            where = key if path in ("", "options") else f"{path}.{key}"
            found += _differences(old.get(key), new.get(key), where)
        return found
    return [] if old == new else [f"{SAID.get(path, path)} was {_short(old)} and is {_short(new)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else text[:57] + "…" + text[-1:]
