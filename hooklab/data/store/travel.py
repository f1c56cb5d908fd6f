"""A store in a copy or in another process: its path and its selection go there, and it is opened anew.

In: an opened `Store`, or a selection of one. Out: what `pickle` and `copy` make it of again. Values stay on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RecordError

if TYPE_CHECKING:
    from .store import Store


def parted(store: Store) -> tuple[Callable[..., Store], tuple[Any, ...]]:
    """What `Store.__reduce__` gives: how it is opened again, and of what."""
    chosen = store._chosen
    return reopened, (str(store.path), *((None, "") if chosen is None else (np.asarray(chosen), _digest(store))))


def reopened(path: str, chosen: np.ndarray | None, digest: str) -> Store:
    """The store in a folder, or the same selection of its examples.

    A store itself is what its folder holds now. A selection must mean the same examples: they may have been compacted, and
    others appended, meanwhile.

    Raises:
        RecordError: there is no store any more, or it has other examples in their places.
    """
    from .store import Store

    try:
        found = Store(path)
    except RecordError as error:
        raise RecordError(f"a copied store is its path, opened anew, and {path} cannot be: {error}") from error
    if chosen is None:
        return found
    n = len(found)
    made = found._selection(chosen) if not len(chosen) or chosen.max() < n else None
    if made is None or _digest(made) != digest:
        raise RecordError(f"{Path(path)} was changed: the {len(chosen)} examples that were selected of it are not in their "
                          f"places any more, among the {n} that it has. Select them anew")
    return made


def _digest(store: Store) -> str:
    """What tells the examples of a selection apart from others: ids, lengths, sites, and what they came from."""
    sites = {name: layout.axes for name, layout in store.manifest.sites.items()}
    told = [store.ids, store.n_tokens, sites, store.manifest.about]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
