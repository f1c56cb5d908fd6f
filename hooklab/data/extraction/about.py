"""What an extraction depends on, in words that a store's manifest keeps and a resumed run is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError
from ...runtime.provenance import fingerprint
from ..inputs.rows import is_folder
from ..inputs.rows import rows as rows_of
from ..reducers.reducing import Reducer
from ..store import manifest as files

if TYPE_CHECKING:
    from ...model.model import Model

LINED = (".jsonl", ".txt", ".csv", ".tsv")
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
    if not isinstance(source, str | Path):
        count = len(source) if hasattr(source, "__len__") else None
        own = getattr(source, "_fingerprint", None)  # of a Hugging Face data set
        found = Known({"fingerprint": own} if isinstance(own, str) else {}, count)
    elif is_folder(path := Path(source).expanduser()):
        found = Known({"folder": path.name}, sum(1 for _ in rows_of(path)))
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
                  "family": model.facts.family, "fingerprint": fingerprint(model),
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
    """Functions by the names that they go by; what they do is not compared."""
    return {name: one if isinstance(one, str) else getattr(one, "__qualname__", type(one).__name__)
            for name, one in functions.items()}


def unchanged(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raises RecordError that says what differs, where a store was begun in another way."""
    if not files.there(folder):
        return
    found, _ = files.read(folder)
    differ = _differences(found.about, files.told(asked))
    if differ:
        raise RecordError(f"{folder} was begun otherwise: {'; '.join(differ[:6])}. Choose another folder, or go on as it "
                          "was begun")


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
    return text if len(text) <= 60 else text[:57] + "…" + text[-1:]
