"""What is done with whole stores: check, append, merge, compact, tag, rename, throw away and bring back.

Each of them leaves, whenever it is interrupted, the store as it was or as it was to become.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import RecordError
from . import manifest as files
from . import shard as store_shard
from .alike import alike, together
from .checksum import crc32
from .folder import commit, sweep
from .gathered import Gathered
from .index import Row
from .layout import piece
from .lock import Lock
from .naming import folder_name, named
from .writer import Writer

if TYPE_CHECKING:
    from .store import Store

__all__ = ["TRASH", "Damage", "append", "compact", "folder_name", "merge", "rename", "restore", "tag", "trash", "trashed",
           "verify"]
TRASH = ".trash"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written.

    Attributes:
        shard: Its number, as the names of its files have it.
        part: The tensor; "index" for the table of examples; "" for the file of values as a whole.
        what: What is wrong with it.
    """

    shard: str
    part: str
    what: str

    def __str__(self) -> str:
        return f"shard {self.shard}{', ' + self.part if self.part else ''}: {self.what}"


def verify(store: Store) -> tuple[Damage, ...]:
    """Every committed byte against its checksum."""
    found = []
    for entry in store.manifest.shards:
        path = files.shard_path(store.path, entry.name)
        found += [Damage(entry.name, part, what) for part, what in store_shard.damage(path, entry.bytes, entry.sums)]
        try:
            index = files.index_path(store.path, entry.name).read_bytes()
        except OSError as error:
            found.append(Damage(entry.name, "index", f"could not be read: {error.strerror or error}"))
            continue
        if len(index) != entry.index_bytes:
            found.append(Damage(entry.name, "index", f"has {len(index)} bytes of {entry.index_bytes}"))
        elif crc32(index) != entry.index_sum:
            found.append(Damage(entry.name, "index", "was changed: its checksum is another"))
    return tuple(found)


def append(store: Store) -> Writer:
    """A writer with the settings of the store. Raises RecordError while another writes it."""
    if not store.whole:
        raise RecordError("a selection cannot be added to: append to the store itself")
    about = store.manifest.about
    return Writer(store.path, store.manifest.sites, model=about["model"], tokenizer=about["tokenizer"], spec=about["spec"],
                  options=about["options"], shard_bytes=store.manifest.shard_bytes, resume=True)


def merge(stores: Sequence[Store | str | Path], out: str | Path, order: Sequence[str] | None = None,
          shard_bytes: int | None = None) -> Store:
    """A new store with the examples of several stores or selections, one after the other; it appears when it is complete.

    Args:
        stores: With the same sites, made with the same model, tokenizer, spec and options, as far as these decide what a
            value is; batches, limits and sources may differ, and are then kept beside each other. One alone is copied.
        out: Where; it must not exist.
        order: Ids: which examples, in which order. All of all stores where it is not given.
        shard_bytes: Size of its shards; that of the first store where it is not given.

    Returns:
        The same bytes as one writer would have written that was given the examples in this order.

    Raises:
        RecordError: the stores differ in what they hold, two have an example of the same id, or `out` cannot be written.
    """
    from .store import Store

    opened = [one if isinstance(one, Store) else Store(one) for one in stores]
    lead = next((one for one in opened if one.manifest.shards), opened[0])  # one that is empty may not know its sizes yet
    first = lead.manifest
    for one in opened:
        alike(lead, one)
    where: dict[str, tuple[Store, int]] = {}
    for one in opened:
        for i, name in enumerate(one.ids):
            if name in where:
                raise RecordError(f"{where[name][0].path} and {one.path} both have an example {name!r}: leave one of them "
                                  "out with where(), and merge what is left")
            where[name] = one, i
    if unknown := [name for name in order or () if name not in where]:
        raise RecordError(f"order names {unknown[0]!r}, which none of the stores has")
    target = Path(out).expanduser().absolute()
    _free(target)
    part = target.with_name(f".{target.name}.part")
    if part.exists():
        with Lock(part):
            shutil.rmtree(part)
    try:
        about = together([one.manifest.about for one in opened])
        with Writer(part, first.sites, **about, shard_bytes=shard_bytes or opened[0].manifest.shard_bytes) as writer:
            for name in where if order is None else order:
                values, tokens, metadata, at = where[name][0].example(where[name][1])
                writer.add(name, values, tokens, metadata, at)
        _moved(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Store(target)


def compact(store: Store, shard_bytes: int | None = None) -> Store:
    """Write the examples anew into shards of full size, then let these take the place of the old ones in one step.

    Raises:
        RecordError: another writes the store, it is damaged, or the disk has no room for a second copy; it stays as before.
    """
    if not store.whole:
        raise RecordError("a selection cannot be compacted: merge([], out) writes it as a store of its own")
    try:
        with Lock(store.path):
            store.reload()
            if damaged := verify(store):
                raise RecordError(f"{store.path} is damaged and stays as it is: {damaged[0]}")
            files.seal(store.path, store.manifest)
            files.sync(store.path)  # lines of the old shards must be gone before a manifest without these is there
            sweep(store.path, store.manifest)
            size = shard_bytes or store.manifest.shard_bytes
            try:
                new = replace(store.manifest, shards=tuple(_rewritten(store, size)), shard_bytes=size)
            except BaseException:
                sweep(store.path, store.manifest)
                raise
            files.seal(store.path, new)
            store.reload()
            sweep(store.path, store.manifest)
    except OSError as error:
        raise RecordError(f"{store.path} could not be compacted and is as before: {error.strerror or error}") from error
    return store


def _rewritten(store: Store, size: int) -> list[files.Entry]:
    made: list[files.Entry] = []
    rows: list[Row] = []
    found = {site: Gathered() for site in store.manifest.sites}
    number = 1 + max((int(one.name) for one in store.manifest.shards), default=-1)
    held = 0
    for i in range(len(store)):
        values, tokens, metadata, at = store.example(i)
        rows.append(Row(store.ids[i], tokens, metadata))
        for site, layout in store.manifest.sites.items():
            found[site].add(piece(site, layout, values[site], None if tokens is None else len(tokens), at.get(site)))
            held += values[site].nbytes
        if held >= size or i == len(store) - 1:
            made.append(commit(store.path, f"{number + len(made):06d}", rows, found, store.manifest.sites))
            rows, found, held = [], {site: Gathered() for site in found}, 0
    return made


def tag(store: Store, words: Sequence[str], remove: bool = False) -> tuple[str, ...]:
    """Change the tags in the manifest. Raises RecordError while another writes the store."""
    if wrong := [word for word in words if not isinstance(word, str) or not word.strip()]:
        raise RecordError(f"a tag is a word, not {wrong[0]!r}")
    try:
        with Lock(store.path):
            store.reload()
            kept = [one for one in store.manifest.tags if not (remove and one in words)]
            tags = tuple(dict.fromkeys([*kept, *(() if remove else words)]))
            files.seal(store.path, replace(store.manifest, tags=tags))
    except OSError as error:
        raise RecordError(f"{store.path} could not be tagged: {error.strerror or error}") from error
    store.reload()
    return tags


def rename(store: Store, name: str | Path) -> Path:
    """Move the folder; text is a name beside its place, and is escaped where a file system could not have it.

    Raises:
        RecordError: the text is no name, the place is taken or on another disk, or the store is being written.
    """
    target = name.expanduser().absolute() if isinstance(name, Path) else store.path.with_name(named(name))
    store.reload()
    with Lock(store.path):
        _free(target)
        _moved(store.path, target)
    store.path = target
    return target


def trash(store: Store) -> Path:
    """Move the folder out of the way, into `.trash` beside it.

    Raises:
        RecordError: it is there already, or is being written.
    """
    store.reload()
    if _in_trash(store.path):
        raise RecordError(f"{store.path} is in the trash already; restore brings it back")
    bin_, number = store.path.parent / TRASH, 0
    try:
        with Lock(store.path):
            bin_.mkdir(exist_ok=True)
            while True:
                with suppress(FileExistsError):
                    (bin_ / str(number)).mkdir()
                    break
                number += 1
            try:
                store.path = _moved(store.path, bin_ / str(number) / store.path.name)
            except BaseException:
                _swept(bin_ / str(number))
                raise
    except OSError as error:
        raise RecordError(f"{store.path} could not be moved to {bin_}: {error.strerror or error}") from error
    return store.path


def trashed(folder: str | Path) -> tuple[Path, ...]:
    """The stores in the trash of a folder, for `restore`."""
    found = (Path(folder).expanduser().absolute() / TRASH).glob(f"*/*/{files.MANIFEST}")
    ours = (path.parent for path in found if _in_trash(path.parent))
    return tuple(sorted(ours, key=lambda path: int(path.parent.name)))


def restore(path: str | Path) -> Path:
    """Bring a store back from the trash to where it was. Raises RecordError where it is in none, or the place is taken."""
    path = Path(path).expanduser().absolute()
    if path.parent.parent.name != TRASH or not (path / files.MANIFEST).exists():
        raise RecordError(f"{path} is no store in a folder {TRASH}")
    target = path.parents[2] / path.name
    _free(target)
    _moved(path, target)
    _swept(path.parent)
    return target


def _in_trash(path: Path) -> bool:
    """Whether it is where `trash` puts a store: in a numbered place of a trash."""
    return path.parent.name.isdecimal() and path.parents[1].name == TRASH


def _swept(place: Path) -> None:
    """Take away a place in the trash, and the trash, where nothing is in them."""
    with suppress(OSError):
        place.rmdir()
        place.parent.rmdir()


def _free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise RecordError(f"{target} exists: choose another name")
    if not target.parent.is_dir():
        raise RecordError(f"there is no folder {target.parent}")


def _moved(path: Path, target: Path) -> Path:
    try:
        path.rename(target)
        files.sync(target.parent)
    except OSError as error:
        raise RecordError(f"{path} could not be moved to {target}: {error.strerror or error}") from error
    return target


