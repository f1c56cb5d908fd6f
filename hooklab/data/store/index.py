"""The index of a shard: a Parquet file with a row per example, which pandas, DuckDB and the like read as it is.

Columns: `id`, `n_tokens`, `tokens`, and one per key of the metadata. A column whose values are all of one plain type has
that type; any other holds JSON and says so in its field's metadata. A key that an example lacks reads as None.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import RecordError
from ...jsontext import encodable

RESERVED = ("id", "n_tokens", "tokens")
_JSON = {b"hooklab": b"json"}


@dataclass(frozen=True)
class Row:
    """One example of the index; `tokens` is None where the input was none."""

    id: str
    tokens: np.ndarray | None
    metadata: dict[str, Any]


def arrow() -> Any:
    """`pyarrow`. Raises RecordError that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise RecordError("a store keeps its index in Parquet, which needs pyarrow: pip install 'hooklab[store]'") from None
    return pyarrow


def row(example: Any, tokens: Any, metadata: Mapping[str, Any] | None) -> Row:
    """What is known of one example, checked.

    Raises:
        RecordError: the id is none, ids of tokens are none, or metadata holds what JSON cannot.
    """
    if isinstance(example, bool) or not isinstance(example, str | int) or example == "":
        raise RecordError(f"the id of an example is text or a whole number, not {example!r}")
    ids = None if tokens is None else _ids(tokens)
    kept = {}
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or key in RESERVED or not key or not encodable(key):
            raise RecordError(f"metadata cannot have the key {key!r}" + (": the index has a column of that name"
                                                                        if key in RESERVED else ""))
        if (found := plain(value, f"metadata {key!r} of example {example!r}")) is not None:
            kept[key] = found
    if not encodable(str(example)):
        raise RecordError(f"the id {example!r} is no valid text")
    return Row(str(example), ids, kept)


def _ids(tokens: Any) -> np.ndarray:
    if not isinstance(tokens, list | tuple | range | np.ndarray):
        tokens = _listed(tokens)
    array = np.asarray(tokens)
    if array.ndim == 1 and not array.size:
        return np.zeros(0, np.int32)
    if array.ndim == 1 and array.dtype.kind in "iu":
        kept = array.astype(np.int32)
        if not np.count_nonzero(kept != array):
            return kept
    raise RecordError(f"tokens are whole numbers, one per position, not {array.dtype} of shape {array.shape}"
                      + (" up to 2**31" if array.dtype.kind in "iu" and array.ndim == 1 else ""))


def _listed(tokens: Any) -> Any:
    from ...tokens import Tokens

    if isinstance(tokens, Tokens):
        if len(tokens) != 1:
            raise RecordError(f"these are the tokens of {len(tokens)} examples: give those of one, tokens[i]")
        tokens = tokens.ids[0]
    return tokens.cpu() if hasattr(tokens, "cpu") else list(tokens)


def plain(value: Any, where: str) -> Any:
    """The value as text, numbers, lists and dictionaries. Raises RecordError for what is none of these."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(one, where) for one in value]
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise RecordError(f"{where} has the key {wrong[0]!r}: keys are text")
        return {key: plain(one, where) for key, one in value.items()}
    raise RecordError(f"{where} is a {type(value).__name__}: metadata holds text, numbers, lists and dictionaries; "
                      "a tensor belongs among the sites")


def to_bytes(rows: Sequence[Row]) -> bytes:
    """The Parquet file of some examples: the same bytes for the same rows."""
    pa = arrow()
    lengths = [None if one.tokens is None else len(one.tokens) for one in rows]
    flat = np.concatenate([np.zeros(0, np.int32), *(one.tokens for one in rows if one.tokens is not None)])
    offsets = np.array([0, *np.cumsum([n or 0 for n in lengths])], np.int64)
    missing = pa.array([n is None for n in lengths])
    fields = [pa.field("id", pa.string()), pa.field("n_tokens", pa.int32()), pa.field("tokens", pa.large_list(pa.int32()))]
    arrays = [pa.array([one.id for one in rows], pa.string()), pa.array(lengths, pa.int32()),
              pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=missing)]
    for key in sorted({key for one in rows for key in one.metadata}):
        field, array = _column(pa, key, [one.metadata.get(key) for one in rows])
        fields.append(field)
        arrays.append(array)
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), sink, compression="none",
                           use_dictionary=False, write_statistics=False)
    return sink.getvalue()


def _column(pa: Any, key: str, values: list[Any]) -> tuple[Any, Any]:
    kinds = {type(value) for value in values if value is not None}
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind in types and all(value is None or _fits(value) for value in values):
        return pa.field(key, types[kind]), pa.array(values, types[kind], from_pandas=False)
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.field(key, pa.string(), metadata=_JSON), pa.array(texts, pa.string())


def _fits(value: Any) -> bool:
    if isinstance(value, str):
        return encodable(value)
    return not (isinstance(value, int) and not isinstance(value, bool)) or -(1 << 63) <= value < 1 << 63


class Index:
    """The index of one shard, read column by column when asked. Errors of the file are RecordErrors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pa = arrow()

    def _read(self, columns: list[str] | None) -> Any:
        try:
            return self._pa.parquet.ParquetFile(self.path, memory_map=True).read(columns, use_threads=False)
        except (self._pa.ArrowException, OSError, ValueError) as error:
            raise RecordError(f"{self.path} is missing or damaged: {error}. `store.verify()` says what is lost") from error

    @cached_property
    def ids(self) -> list[str]:
        """The id of every example."""
        found: list[str] = self._read(["id"]).column("id").to_pylist()
        return found

    @cached_property
    def n_tokens(self) -> list[int | None]:
        """Tokens of every example; None where the input was no text."""
        found: list[int | None] = self._read(["n_tokens"]).column("n_tokens").to_pylist()
        return found

    @cached_property
    def _tokens(self) -> tuple[np.ndarray, np.ndarray]:
        column = self._read(["tokens"]).column("tokens").combine_chunks()
        values = column.values.to_numpy() if len(column) else np.zeros(0, np.int32)
        return column.offsets.to_numpy(), values

    def tokens(self, i: int) -> np.ndarray | None:
        """int32 ids of the i-th example's tokens."""
        if self.n_tokens[i] is None:
            return None
        offsets, values = self._tokens
        return values[offsets[i] : offsets[i] + self.n_tokens[i]]

    @cached_property
    def metadata(self) -> dict[str, list[Any]]:
        """Key -> value of every example, as it was given."""
        try:
            names = [name for name in self._pa.parquet.ParquetFile(self.path).schema_arrow.names if name not in RESERVED]
        except (self._pa.ArrowException, OSError) as error:
            raise RecordError(f"{self.path} is missing or damaged: {error}") from error
        table = self._read(names) if names else None
        made = {}
        for name in names:
            values = table.column(name).to_pylist()  # type: ignore[union-attr]
            coded = (table.schema.field(name).metadata or {}).get(b"hooklab") == b"json"  # type: ignore[union-attr]
            made[name] = [None if one is None else json.loads(one) for one in values] if coded else values
        return made


def same(a: Any, b: Any) -> bool:
    """Whether two values of metadata are equal; nan is equal to itself."""
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))
