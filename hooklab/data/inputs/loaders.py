"""A torch `DataLoader` as a source: the batches that it gives, taken apart into the rows that they were made of.

In: a loader. Out: rows, as the plain list of the same examples would give them. How a batch is taken apart follows from
how it was put together: torch's own collation turns lists inside out, a function of the user's makes columns or lists of
rows, and a loader without batches gives rows as they are.

    {"text": [a, b], "label": tensor}             columns: a row for each entry
    {"input_ids": …, "attention_mask": …}         ids without their padding, on the left or on the right
    [a, b]                                        rows
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import PromptError

PADDED = ("token_type_ids", "position_ids", "labels", "special_tokens_mask")
"""Columns that are as long as the ids, padding included."""
MADE = ("pixel_values", "inputs_embeds")
"""Columns that a processor or a model made: no prompt can be read from them."""
AS_ROWS = "give collate_fn=list, which leaves the rows as they are"


def is_loader(source: Any) -> bool:
    """Whether a source is a DataLoader; torch is not imported for it."""
    torch = sys.modules.get("torch.utils.data")
    return torch is not None and isinstance(source, torch.DataLoader)


def count(loader: Any) -> int | None:
    """How many examples a loader gives; None where nobody knows."""
    try:
        if loader.batch_sampler is None:
            return None
        n = len(loader.sampler)
    except (TypeError, NotImplementedError):
        return None
    if loader.batch_size is None:  # batches of the user's own
        return None
    return n // loader.batch_size * loader.batch_size if loader.drop_last else n


def shuffled(loader: Any) -> bool:
    """Whether a loader may give its examples in another order each time."""
    from torch.utils.data import IterableDataset, SequentialSampler

    if isinstance(loader.dataset, IterableDataset):
        return False
    sampler = loader.sampler if loader.batch_sampler is None else getattr(loader.batch_sampler, "sampler", None)
    return type(sampler) is not SequentialSampler


def unrolled(loader: Any) -> Iterator[tuple[str, Any]]:
    """Rows of a loader, each with its place.

    >>> from torch.utils.data import DataLoader
    >>> list(unrolled(DataLoader(["one", "two", "three"], batch_size=2)))
    [('batch 0, row 0', 'one'), ('batch 0, row 1', 'two'), ('batch 1, row 0', 'three')]

    Raises:
        PromptError: the loader fails, or a batch is nothing that rows can be made of; it names the batch.
    """
    batches, n = iter(loader), 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise PromptError(f"batch {n}: the loader fails: {last}. Where its rows cannot be put together, as of different "
                              f"length or pictures, {AS_ROWS}.") from error
        if loader.batch_sampler is None and _is_row(batch):
            yield f"batch {n}", batch
        else:
            for i, row in enumerate(_rows(batch, _turned(loader), f"batch {n}")):
                yield f"batch {n}, row {i}", row
        n += 1


def _turned(loader: Any) -> bool:
    """Whether torch's own collation put the batches together."""
    from torch.utils.data import default_collate

    return loader.batch_sampler is not None and loader.collate_fn is default_collate


def _is_row(value: Any) -> bool:
    """Whether what a loader without batches gives is one row; otherwise its dataset makes batches itself."""
    if isinstance(value, Mapping):
        if "input_ids" in value:
            return not _nested(value["input_ids"])
        return any(not _is_column(one) or _is_chat(one) for one in value.values())
    if isinstance(value, list | tuple):
        return _is_chat(value) or all(isinstance(one, int) for one in value)
    return getattr(value, "ndim", 1) < 2


def _rows(batch: Any, turned: bool, where: str) -> Iterator[Any]:
    """The rows of a batch."""
    if isinstance(batch, Mapping):
        return _of_columns(batch, turned, where)
    if isinstance(batch, list | tuple):
        return _of_list(batch, where) if turned and not _texts(batch) else iter(batch)
    if getattr(batch, "ndim", 0) >= 1:
        return iter(_plain(one) for one in batch)
    raise PromptError(f"{where}: a loader's batch is columns ({{'text': […], …}}), a list of rows or a tensor of ids, not "
                      f"{type(batch).__name__} ({str(batch)[:40]!r})")


def _of_list(batch: Sequence[Any], where: str) -> Iterator[Any]:
    """Rows that were sequences themselves, which torch's collation has turned inside out."""
    for i in range(_length(batch, where)):
        row = _entry(batch, i)
        if len(row) > 1 and not _is_chat(row) and not all(isinstance(one, int) for one in row):
            kinds = ", ".join(type(one).__name__ for one in row)
            raise PromptError(f"{where}: its rows have {len(row)} parts without names ({kinds}), so that nobody knows which "
                              "is the prompt: let the data set give dictionaries, {'text': …, 'label': …}")
        yield row[0] if len(row) == 1 and not (_is_chat(row) or isinstance(row[0], int)) else row


def _of_columns(batch: Mapping[str, Any], turned: bool, where: str) -> Iterator[Any]:
    """A dictionary of columns, split."""
    if made := [name for name in MADE if name in batch]:
        raise PromptError(f"{where}: {made[0]!r} is made of a prompt already, which cannot be read back from it: give texts "
                          "and pictures, and the model's own processor reads them")
    if odd := [name for name, one in batch.items() if not (_is_column(one) or (turned and isinstance(one, Mapping)))]:
        raise PromptError(f"{where}: its column {odd[0]!r} is {type(batch[odd[0]]).__name__} "
                          f"({str(batch[odd[0]])[:40]!r}), and not a list or a tensor with an entry for each row")
    lengths = {name: _length(one, where) if turned else len(one) for name, one in batch.items()}
    if len({*lengths.values()}) > 1:
        said = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise PromptError(f"{where}: its columns have different numbers of rows: {said}")
    if not batch:
        raise PromptError(f"{where}: it has no columns")
    for i in range(next(iter(lengths.values()))):
        row = {name: _entry(one, i) if turned else _plain(one[i]) for name, one in batch.items()}
        yield _unpadded(row, f"{where}, row {i}")


def _unpadded(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row of ids without its padding, and without the mask that tells of it."""
    if "input_ids" not in row or "attention_mask" not in row:
        return row
    ids, mask = ([int(n) for n in _listed(row[name], name, where)] for name in ("input_ids", "attention_mask"))
    if len(ids) != len(mask):
        raise PromptError(f"{where}: it has {len(ids)} ids, and an attention_mask for {len(mask)}")
    kept = [i for i, n in enumerate(mask) if n]
    if not kept:
        raise PromptError(f"{where}: its attention_mask leaves out every token")
    if {*mask} - {0, 1} or kept != list(range(kept[0], kept[-1] + 1)):
        raise PromptError(f"{where}: its attention_mask is 1 for the tokens, which stand together, and 0 for padding before "
                          f"or behind them, not {str(mask)[:60]}")
    own = slice(kept[0], kept[-1] + 1)
    along = {name: _plain(row[name])[own] for name in PADDED if name in row and _is_column(row[name])
             and len(row[name]) == len(ids)}
    return {name: one for name, one in (row | along).items() if name != "attention_mask"} | {"input_ids": ids[own]}


def _listed(value: Any, name: str, where: str) -> Any:
    found = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(found, list | tuple) or any(not isinstance(n, int) for n in found):
        raise PromptError(f"{where}: {name} is a list of whole numbers, not {str(found)[:40]!r}")
    return found


# How values are put together --------------------------------------------------------------------------------------------


def _entry(value: Any, i: int) -> Any:
    """The i-th row's part of what torch's collation made of all."""
    if isinstance(value, Mapping):
        return {name: _entry(one, i) for name, one in value.items()}
    if isinstance(value, list | tuple) and not _texts(value):
        return [_entry(one, i) for one in value]
    return _plain(value[i])


def _length(value: Any, where: str) -> int:
    """How many rows torch's collation has put together."""
    while isinstance(value, Mapping) or (isinstance(value, list | tuple) and not _texts(value)):
        if not value:
            raise PromptError(f"{where}: how many rows it has cannot be told from an empty list: {AS_ROWS}")
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return len(value)


def _plain(value: Any) -> Any:
    """A single number as one, and more of them as a list; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") and getattr(value, "ndim", 9) < 2 else value


def _texts(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(one, str | bytes) for one in value)


def _is_column(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) >= 1


def _nested(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 1 or (isinstance(value, list | tuple) and bool(value) and _is_column(value[0]))


def _is_chat(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(
        isinstance(one, Mapping) and isinstance(one.get("role"), str) for one in value)
