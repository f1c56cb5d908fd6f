"""A store as a table: its examples with their metadata, and what is stored of the one that is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import html
from ..data.store.show import title as titled
from ..data.store.store import Store, open_store
from ..errors import HooklabError, ViewError
from ..spec.printer import quote
from .tables import MOST, Column, Table

EXACT = 2**24
"""Whole numbers beyond it are shown as text, since numbers travel in single precision."""
MOST_COLUMNS = 12
MOST_SITES = 60
MOST_READ = 32 * 2**20
"""Bytes of an example up to which its values are looked at."""
MOST_IDS = 64
TEXTS = ("text", "prompt", "question", "sentence")
"""Columns that are an example's text where a task or table has them."""


class StoreTable(Table):
    """The examples of a store; `selection` has the chosen `example`.

    Attributes:
        store: The opened store, or a selection of its examples.
    """

    WORD = "example"
    SHARED = ()

    def __init__(self, store: Store, *, model: Any = None, most: int = MOST, title: str = "", **options: Any) -> None:
        held = store if len(store) <= most else store._selection(np.arange(most))
        self.store, self._model = held, model
        lengths = np.array([math.nan if n is None else n for n in held.n_tokens], dtype=np.float64)
        known = {key: some for key, some in held.metadata.items() if any(one is not None for one in some)}
        columns = [Column("tokens", lengths), *(_column(key, some) for key, some in islice(known.items(), MOST_COLUMNS))]
        notes = [f"the first {most:,}" if len(store) > most else "",
                 f"{len(known) - MOST_COLUMNS} more columns: choose an example to see them" if len(known) > MOST_COLUMNS
                 else ""]
        super().__init__(held.ids, columns, total=len(store), title=title or titled(store),
                         note=" · ".join(one for one in notes if one), **options)

    def look(self, row: int) -> tuple[list[tuple[str, str]], list[tuple[str, list[str], list[list[Any]]]], str]:
        try:
            values, ids, metadata, at = self.store.example(row)
            about = [(key, str(value)) for key, value in metadata.items()]
            if ids is not None:
                about.append(("tokens", self._spelled(ids.tolist())))
            lines = [_site(site, value, at.get(site)) for site, value in islice(values.items(), MOST_SITES)]
        except (HooklabError, OSError) as error:
            return [], [], str(error)
        left = len(values) - MOST_SITES
        head = ["site", "shape", "type", "mean", "smallest", "largest", "not finite", "positions"]
        return about, [("What is stored", head, lines)], f"{left} more sites" if left > 0 else ""

    def _spelled(self, ids: Sequence[int]) -> str:
        """Ids of tokens, as texts where the model is there."""
        some = list(ids[:MOST_IDS])
        more = f" … ({len(ids)} tokens)" if len(ids) > MOST_IDS else ""
        if self._model is None:
            return " ".join(map(str, some)) + more
        return "|".join(self._model.tokens([some]).pieces[0]) + more

    def spell(self, selection: Any) -> str:
        """The prompt of the chosen example, where the store has its text."""
        if "example" not in selection:
            return ""
        row = self._axes["example"].index(selection["example"])
        known = [self.store.metadata[name][row] for name in TEXTS if name in self.store.metadata]
        text = next((one for one in known if isinstance(one, str)), None)
        return "" if text is None else f"prompt {quote(text)}"

    def release(self) -> None:
        super().release()
        self.store = self.store._selection(np.zeros(0, dtype=np.int64))
        self._model = None


def _column(key: str, values: list[Any]) -> Column:
    """A column of metadata: numbers where all are numbers that travel as they are, else texts."""
    numbers = [one for one in values if one is not None]
    if all(isinstance(one, (int, float)) and not isinstance(one, bool) and (isinstance(one, float) or abs(one) <= EXACT)
           for one in numbers):
        return Column(key, np.array([math.nan if one is None else one for one in values], dtype=np.float64))
    return Column(key, ["" if one is None else str(one) for one in values], pick=True)


def _site(site: str, value: Any, positions: Any) -> list[Any]:
    """A line about one site of one example."""
    shape, kind = " × ".join(map(str, value.shape)) or "one number", str(value.dtype).removeprefix("torch.")
    where = "" if positions is None else html.printable(", ".join(map(str, positions[:8])) + (" …" * (len(positions) > 8)))
    if not value.numel() or value.numel() * value.element_size() > MOST_READ:
        return [site, shape, kind, None, None, None, None, where]
    every = value.double()
    finite = every[every.isfinite()]
    mean, low, high = (float(finite.mean()), float(finite.min()), float(finite.max())) if finite.numel() else [None] * 3
    return [site, shape, kind, mean, low, high, every.numel() - finite.numel(), where]


def store(source: Store | str | Path, *, model: Any = None, most: int = MOST, title: str = "") -> StoreTable:
    """The examples of a store to search, sort, narrow by their metadata, and look into.

    Only the index is read for the list; the values of an example are when it is chosen, and stay on the disk otherwise.

    Args:
        source: An opened store, a selection of one (`store.where(split="test")`), or a folder.
        model: With it, tokens are spelled; it should be the one that the store was made with.
        most: How many examples the view holds, from the first.
        title: A heading; what the store is unless given.

    Returns:
        A view whose `spec` is the prompt of the chosen example, where the store has its text.

    Raises:
        ViewError: this is no store, or `most` is not positive.
        RecordError: there is no store in the folder, or it is of a newer schema.

    Example:
        >>> import tempfile
        >>> import hooklab as hl
        >>> rows = [{"text": "Mary and John", "kind": "names"}, {"text": "John gave", "kind": "other"}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = hl.extract(hl.load("lab"), rows, "L1.resid_post", f"{folder}/acts", metadata=["text", "kind"])
        ...     hl.view.store(f"{folder}/acts").select(example="0").spec
        'prompt "Mary and John"'
    """
    if isinstance(source, (str, Path)):
        source = open_store(source)
    if not isinstance(source, Store):
        raise ViewError(f"a store is opened by hl.open_store(folder); this is {type(source).__name__}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ViewError(f"most is how many examples the view holds, at least 1, not {most!r}")
    return StoreTable(source, model=model, most=min(most, MOST), title=title)
