"""Where an extraction stands: what its reducers have, and which examples it has seen, for every shard that is committed.

A state belongs to a number of examples. It is brought to the disk before the shard that makes the store have as many, so
that whatever ends the process, the state of what is committed is there; the one before it goes when it cannot be asked for
any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...errors import RecordError
from ...files import write_whole
from ...model.inputs import PER_TOKEN
from ..reducers.reducers import from_state
from ..reducers.reducing import Reducer, packed, unpacked
from ..store.index import plain, same
from ..store.manifest import sync

if TYPE_CHECKING:
    from ..store.store import Store
    from .reading import Item

FOLDER = "state"


class States:
    """The states of the extraction that fills a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / FOLDER
        self.folder.mkdir(exist_ok=True)
        for part in self.folder.glob(".*.part"):
            part.unlink(missing_ok=True)

    def path(self, examples: int) -> Path:
        """The file of the state after so many examples."""
        return self.folder / _named(examples)

    def write(self, examples: int, digest: str, reducers: Mapping[str, Reducer]) -> None:
        """Bring a state to the disk. Raises OSError."""
        write_whole(self.path(examples), dumped(digest, reducers), replace=True)
        sync(self.folder)

    def read(self, examples: int, reducers: Mapping[str, Reducer]) -> str:
        """Give the reducers what they had after so many examples; the digest of these.

        Raises:
            RecordError: there is no such state, or it was damaged.
        """
        path = self.path(examples)
        if not path.exists():
            raise RecordError(f"{path.parent.parent} has {examples} examples, after which no extraction stood: something "
                              "else wrote into it")
        try:
            found = load_file(path)
            for name, reducer in reducers.items():
                own = {key.removeprefix(f"{name}/"): value for key, value in found.items() if key.startswith(f"{name}/")}
                reducer._restore(own)
            return str(unpacked(found["digest"]))
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            raise RecordError(f"{path} was damaged: {error}") from error

    def forget(self, committed: int) -> None:
        """Delete the states of fewer examples than are committed."""
        for path in self.folder.glob("*.safetensors"):
            if path.name < self.path(committed).name:
                path.unlink(missing_ok=True)


def dumped(digest: str, reducers: Mapping[str, Reducer]) -> bytes:
    """A state as a file's content: the same bytes for the same state."""
    tensors: dict[str, Tensor] = {"digest": packed(digest)}
    for name, reducer in reducers.items():
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in reducer.state().items()}
    return save(tensors)


def reduced(store: Store | str | Path) -> dict[str, Reducer]:
    """The reducers of the extraction that filled a store: name -> reducer.

    Raises:
        RecordError: none did, or their state was damaged.
    """
    from ..store.store import Store

    opened = store if isinstance(store, Store) else Store(store)
    path = opened.path / FOLDER / _named(sum(one.examples for one in opened.manifest.shards))
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecordError(f"{opened.path} has no state of an extraction that ended with what it holds: {error}") from error
    names = [key.removesuffix("/about") for key in found if key.endswith("/about")]
    return {name: from_state({key.removeprefix(f"{name}/"): value for key, value in found.items()
                              if key.startswith(f"{name}/")}) for name in names}


def _named(examples: int) -> str:
    return f"{examples:09d}.safetensors"


def digested(before: str, item: Item) -> str:
    """What tells apart the examples up to this one from any others: their ids, tokens, further inputs and metadata."""
    assert item.prompt.tokens is not None
    told = [item.example.id, list(item.prompt.tokens.ids[0]), item.positions, item.answers, item.example.metadata,
            sorted(item.prompt.extras)]
    made = hashlib.sha256(before.encode() + json.dumps(told, sort_keys=True, default=str).encode())
    for name in sorted(item.prompt.extras):
        value = item.prompt.extras[name]
        made.update(json.dumps(value).encode() if name in PER_TOKEN
                    else torch.as_tensor(value).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def compared(store: Store, item: Item) -> None:
    """Raises RecordError unless the store's example of that number is this one."""
    known, name = store.ids[item.number], item.example.id
    where = f"the source is not the one that {store.path} was begun with"
    if known != name:
        raise RecordError(f"{where}: its example {item.number} is {name!r}, and there it is {known!r}")
    assert item.prompt.tokens is not None
    if store.tokens(item.number) != list(item.prompt.tokens.ids[0]):
        raise RecordError(f"{where}: its example {name!r} has other tokens")
    old, new = store.row(item.number), {key: value for key, value in item.example.metadata.items() if value is not None}
    differ = [key for key in {**old, **new} if not same(old.get(key), plain(new.get(key), key))]
    if differ:
        raise RecordError(f"{where}: {differ[0]!r} of its example {name!r} is {new.get(differ[0])!r}, and there it is "
                          f"{old.get(differ[0])!r}")
