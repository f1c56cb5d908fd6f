"""A store for other tools: pandas, numpy, xarray, zarr, Hugging Face datasets. Each holds a site in memory as a whole."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import HooklabWarning, RecordError
from .columns import column
from .layout import DTYPES

if TYPE_CHECKING:
    from .layout import Layout
    from .store import Store


def to_pandas(store: Store, tokens: bool = False) -> Any:
    """A DataFrame with a row per example. Raises RecordError where pandas is not installed."""
    pandas = _needed("pandas", "pip install 'hooklab[store]'")
    table: dict[str, Any] = {"id": list(store.ids), "n_tokens": pandas.array(list(store.n_tokens), dtype="Int64")}
    if tokens:
        table["tokens"] = [store.tokens(i) for i in range(len(store))]
    made = pandas.DataFrame({**table, **store.metadata})
    made.attrs.update(store.manifest.about)
    return made


def to_numpy(store: Store, site: str) -> dict[str, np.ndarray]:
    """A site as arrays, ragged as it is; types that numpy lacks become float32.

    Returns:
        `values` [row, …] (or [number] for a site such as pattern, then with `shapes` [example, axis]); `offsets`
        [example + 1], in rows; `ids` [example]; `positions` [row] for a site with a row per position.
    """
    layout, values = store.layout(site), store[site]
    found = [array(values.mapped(i)) for i in range(len(store))]
    rows = [one.reshape(-1) if layout.kind == "flat" else one[None] if layout.kind == "single" else one for one in found]
    made = {"values": np.concatenate(rows) if rows else _none(layout),
            "offsets": np.cumsum([0, *map(len, rows)]), "ids": np.array(store.ids, dtype=str)}
    if layout.kind == "flat":
        made["shapes"] = np.array([one.shape for one in found], np.int64).reshape(len(found), len(layout.axes))
    elif layout.kind == "rows" and layout.pos_axis is not None:
        made["positions"] = np.array([p for i in range(len(store)) for p in values.positions(i)], np.int64)
    return made


def to_xarray(store: Store, site: str) -> Any:
    """A DataArray: axis `row` (or `example`) with the id of the example and the position as labels.

    Raises:
        RecordError: xarray is not installed, or the site has more than one axis that differs from example to example.
    """
    xarray = _needed("xarray", "pip install 'hooklab[tables]'")
    layout, found = _rows_only(store, site), to_numpy(store, site)
    lead = "row" if layout.kind == "rows" else "example"
    coords: dict[str, Any] = {"id": (lead, np.repeat(found["ids"], np.diff(found["offsets"])))}
    if "positions" in found:
        coords[layout.axes[0]] = (lead, found["positions"])
    dims = (lead, *(layout.axes[1:] if layout.kind == "rows" else layout.axes))
    return xarray.DataArray(found["values"], dims=dims, coords=coords, name=site,
                            attrs={"about": json.dumps(store.manifest.about)})


def to_zarr(store: Store, site: str, out: str | Path) -> Path:
    """The arrays of `to_numpy` in a new zarr group; ids and what the values came from are its attributes.

    Raises:
        RecordError: zarr is not installed, or the place is taken.
    """
    zarr = _needed("zarr", "pip install 'zarr>=3'")
    path = Path(out).expanduser()
    if path.exists():
        raise RecordError(f"{path} exists: choose another name")
    group = zarr.open_group(str(path), mode="w-")
    found = to_numpy(store, site)
    ids = found.pop("ids").tolist()
    for name, data in found.items():
        group.create_array(name, data=data)
    group.attrs.update({"site": site, "axes": list(store.layout(site).axes), "ids": ids, "about": store.manifest.about})
    return path


def to_datasets(store: Store, sites: Sequence[str] = ()) -> Any:
    """A Dataset with a row per example: id, tokens, metadata, and the sites named, as nested lists.

    Whole numbers beside other numbers become floats, and a nan beside text None. A column that Arrow has no type for (text
    beside numbers, whole numbers of more than 64 bits) comes as JSON text, with a HooklabWarning that names it.

    Raises:
        RecordError: datasets is not installed, or there is no such site.
    """
    datasets = _needed("datasets", "pip install datasets")
    columns: dict[str, list[Any]] = {"id": list(store.ids), "tokens": [store.tokens(i) for i in range(len(store))]}
    mixed = []
    for key, values in store.metadata.items():
        columns[key], typed = column(values)
        mixed += [] if typed else [key]
    if mixed:
        warnings.warn(f"{', '.join(map(repr, mixed))} {'has' if len(mixed) == 1 else 'have'} values of several types, or "
                      "too large ones, and became JSON text: json.loads reads each", HooklabWarning, stacklevel=3)
    for site in sites:
        columns[site] = [array(store[site].mapped(i)) for i in range(len(store))]
    return datasets.Dataset.from_dict(columns)


def array(tensor: Tensor) -> np.ndarray:
    """A copy as numpy has it."""
    try:
        return np.array(tensor.numpy())
    except TypeError:  # bfloat16 and float8
        return np.array(tensor.float().numpy())


def _none(layout: Layout) -> np.ndarray:
    """The values of no example, in the type and with the sizes that those of some would have."""
    return array(torch.empty((0, *layout.row), dtype=DTYPES[layout.dtype or "float32"]))


def _rows_only(store: Store, site: str) -> Layout:
    layout = store.layout(site)
    if layout.kind == "flat":
        raise RecordError(f"{site} has the axes {' '.join(layout.axes)}, and examples differ in more than one: "
                          "to_numpy gives it flat, with the shape of each example")
    return layout


def _needed(name: str, how: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise RecordError(f"this needs {name}: {how}") from None
