"""The folder of a store, as its writer finds and leaves it: made, compared, given a shard, and swept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import RecordError
from . import manifest as files
from . import shard as store_shard
from .checksum import crc32
from .gathered import Gathered
from .index import Row, to_bytes
from .layout import Layout
from .manifest import Entry, Manifest


def begin(folder: Path, manifest: Manifest) -> None:
    """Say what the values are, and open the journal, before the first shard. Raises OSError."""
    (folder / files.JOURNAL).touch()
    files.write(folder, manifest)


def put(folder: Path, name: str, rows: Sequence[Row], found: Mapping[str, Gathered],
        sites: Mapping[str, Layout]) -> Entry:
    """Write the two files of a shard. They are safe once they are `brought` to the disk. Raises OSError."""
    counts = [None if one.tokens is None else len(one.tokens) for one in rows]
    tensors = {key: part for site, layout in sites.items()
               for key, part in store_shard.parts(site, layout, found[site], counts).items()}
    index = to_bytes(rows)
    sums = store_shard.write(files.shard_path(folder, name), tensors)
    store_shard.write_bytes(files.index_path(folder, name), index)
    return Entry(name, len(rows), sum(n or 0 for n in counts), store_shard.size(tensors), len(index), sums,
                 crc32(index))


def brought(folder: Path, name: str) -> None:
    """Wait until the two files of a shard are on the disk under their names. Raises OSError."""
    for path in (files.shard_path(folder, name), files.index_path(folder, name)):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files.sync(path.parent)


def commit(folder: Path, name: str, rows: Sequence[Row], found: Mapping[str, Gathered],
           sites: Mapping[str, Layout]) -> Entry:
    """A shard that is on the disk; it counts once its entry is in the journal or the manifest. Raises OSError."""
    entry = put(folder, name, rows, found, sites)
    brought(folder, name)
    return entry


def made(folder: Path) -> None:
    """The folder and those in it; one that is there is used only where it is a store or empty."""
    if folder.exists() and not (folder / files.MANIFEST).exists():
        if not folder.is_dir():
            raise RecordError(f"{folder} is a file; a store is a folder")
        own = {files.SHARDS, files.INDEX, ".lock"}
        if strangers := sorted(p.name for p in folder.iterdir() if p.name not in own and not p.name.endswith(".part")):
            raise RecordError(f"{folder} exists and is no store: it holds {', '.join(strangers[:3])}")
    for one in (folder / files.SHARDS, folder / files.INDEX):
        one.mkdir(parents=True, exist_ok=True)


def agree(folder: Path, found: Manifest, asked: Manifest) -> None:
    """Raises RecordError unless a store was begun with the settings that are asked for."""
    other = [f"{key}={found.about.get(key)!r}, not {value!r}" for key, value in asked.about.items()
             if found.about.get(key) != value]
    if found.shard_bytes != asked.shard_bytes:
        other.append(f"shard_bytes={found.shard_bytes}, not {asked.shard_bytes}")
    if list(found.sites) != list(asked.sites):
        other.append(f"sites {', '.join(found.sites)}, not {', '.join(asked.sites)}")
    else:
        other += [f"{site} as {old.axes} {old.sizes} {old.dtype}, not {new.axes} {new.sizes} {new.dtype}"
                  for (site, old), new in zip(found.sites.items(), asked.sites.values(), strict=True)
                  if old.axes != new.axes or (new.dtype and new.dtype != old.dtype) or (new.sizes and new.sizes != old.sizes)
                  or new.chosen != old.chosen]
    if other:
        raise RecordError(f"{folder} was begun with other settings: " + "; ".join(other))


def sweep(folder: Path, manifest: Manifest) -> None:
    """Delete what was being written when a writer died, and what no shard of the manifest names any more."""
    known = {one.name for one in manifest.shards}
    for one in folder.glob(f".{files.MANIFEST}.*.part"):
        one.unlink(missing_ok=True)
    for inner in (files.SHARDS, files.INDEX):
        for one in (folder / inner).iterdir():
            ours = one.suffix in (".safetensors", ".parquet") and one.stem.isdigit() and one.stem not in known
            if ours or (one.name.startswith(".") and one.name.endswith(".part")):
                one.unlink(missing_ok=True)
