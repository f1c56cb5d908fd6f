"""What is done with whole stores: check, append, merge, compact, tag, rename, throw away and bring back.

Each of them leaves, whenever it is interrupted, the store as it was or as it was to become.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError
from . import manifest as files
from . import shard as store_shard
from .checksum import crc32
from .folder import commit, sweep
from .gathered import Gathered
from .index import Row
from .layout import piece
from .lock import Lock
from .writer import Writer

if TYPE_CHECKING:
    from .store import Store

TRASH = ".trash"
_LONGEST = 80
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{word}{n}" for word in ("com", "lpt") for n in range(1, 10))}


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
        stores: Made with the same model, tokenizer, spec and options, with the same sites. One alone is copied.
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
        _alike(lead, one)
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
        with Writer(part, first.sites, **first.about, shard_bytes=shard_bytes or opened[0].manifest.shard_bytes) as writer:
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
        RecordError: the place is taken or on another disk, or the store is being written.
    """
    target = name.expanduser().absolute() if isinstance(name, Path) else store.path.with_name(folder_name(name))
    store.reload()
    with Lock(store.path):
        _free(target)
        _moved(store.path, target)
    store.path = target
    return target


def trash(store: Store) -> Path:
    """Move the folder out of the way, into `.trash` beside it. Raises RecordError while it is being written."""
    store.reload()
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
    ours = (path.parent for path in found if path.parent.parent.name.isdecimal())
    return tuple(sorted(ours, key=lambda path: int(path.parent.name)))


def restore(path: str | Path) -> Path:
    """Bring a store back from the trash to where it was. Raises RecordError where it is in none, or the place is taken."""
    path = Path(path).expanduser().absolute()
    bin_ = path.parent.parent
    if bin_.name != TRASH or not (path / files.MANIFEST).exists():
        raise RecordError(f"{path} is no store in a folder {TRASH}")
    target = bin_.parent / path.name
    _free(target)
    _moved(path, target)
    _swept(path.parent)
    return target


def _swept(place: Path) -> None:
    """Take away a place in the trash, and the trash, where nothing is in them."""
    with suppress(OSError):
        place.rmdir()
        place.parent.rmdir()


def folder_name(text: str) -> str:
    """A name for a folder that every file system takes, with a digest of the text where it had to be changed.

    >>> folder_name("runs-1"), folder_name("a/b: c?")
    ('runs-1', 'a_b_c-ffa60210')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._ ")[:_LONGEST]
    if plain == text and plain.split(".")[0].lower() not in _WINDOWS:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.strip('._ ') or 'store'}-{digest}"


def _alike(first: Store, other: Store) -> None:
    for key, value in first.manifest.about.items():
        if other.manifest.about.get(key) != value:
            raise RecordError(f"{first.path} and {other.path} differ in {key}: {value!r} and "
                              f"{other.manifest.about.get(key)!r}")
    mine, theirs = ({site: (one.axes, one.sizes, one.dtype) for site, one in store.sites.items()}
                    for store in (first, other))
    odd = sorted(site for site in mine.keys() | theirs.keys()
                 if site not in mine or site not in theirs or not _fits(mine[site], theirs[site]))
    if odd:
        raise RecordError(f"{first.path} and {other.path} differ in {odd[0]}: {mine.get(odd[0])} and {theirs.get(odd[0])}")


def _fits(mine: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether layouts are the same, as far as both are known: a store without examples may not know sizes and types."""
    return all(a == b for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None)


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


