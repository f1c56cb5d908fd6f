"""A store of activations, opened: values are read from the disk when they are asked for, and no more of them than that.

In: the folder that a `Writer` filled. Out: tensors by site, example and position; batches for a training; tables of what the
examples are. A store that is still being written can be read: it holds what is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...errors import RecordError, did_you_mean
from . import export, keeping, query, show, sparse, travel
from . import manifest as files
from .batches import Batches
from .compare import compare_stores
from .index import Index
from .keeping import Damage
from .layout import Layout
from .reread import tokens_with
from .shard import Shard
from .show import Numbers
from .sitename import is_address, site_name
from .stats import Stats, bytes_of, stats
from .values import Values, at

if TYPE_CHECKING:
    from ...model.model import Model
    from ...records import Scores
    from ...tokens import Tokens
    from .writer import Writer


class Store:
    """An opened store, or a selection of its examples: see `open_store` and `where`.

    Attributes:
        path: Its folder.
        manifest: Sites, what the values came from (`about`), tags, shards.
    """

    def __init__(self, path: str | Path, chosen: np.ndarray | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        self.manifest, _ = files.read(self.path)
        self._chosen = chosen
        self._shards: dict[int, Shard] = {}
        self._indexes: dict[int, Index] = {}

    def reload(self) -> None:
        """Read the manifest anew: what was committed or compacted since, and where the folder now is."""
        if self._chosen is not None:
            raise RecordError("this is a selection of a store: do that with the store itself")
        self.manifest, _ = files.read(self.path)
        self._shards, self._indexes = {}, {}
        for name in ("places", "ids", "number_of", "n_tokens", "metadata"):
            self.__dict__.pop(name, None)

    def _selection(self, chosen: np.ndarray) -> Store:
        made = object.__new__(Store)
        made.path, made.manifest, made._shards, made._indexes = self.path, self.manifest, self._shards, self._indexes
        made._chosen = chosen if self._chosen is None else self._chosen[chosen]
        return made

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        """A copy, or what another process gets: its path and selection, opened anew; see `travel`."""
        return travel.parted(self)

    @cached_property
    def places(self) -> np.ndarray:
        """int64 [example, (shard, number in it)]."""
        counts = [one.examples for one in self.manifest.shards]
        shard = np.repeat(np.arange(len(counts)), counts)
        local = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])
        every = np.stack([shard, local], 1).astype(np.int64)
        return every if self._chosen is None else every[self._chosen]

    def shard(self, number: int) -> Shard:
        """A shard, mapped when it is first asked for. Raises RecordError where it is missing or torn."""
        if number not in self._shards:
            entry = self.manifest.shards[number]
            self._shards[number] = Shard(files.shard_path(self.path, entry.name), entry.bytes, entry.sums[""])
        return self._shards[number]

    def index(self, number: int) -> Index:
        """The index of a shard."""
        if number not in self._indexes:
            self._indexes[number] = Index(files.index_path(self.path, self.manifest.shards[number].name))
        return self._indexes[number]

    def _name(self, site: str) -> str:
        """The name under which a site is stored, of any address that is one site. Raises RecordError for several."""
        return str(site_name(site, self.manifest.sites, self.manifest.about))

    def layout(self, site: str) -> Layout:
        """Axes, sizes and type of a site. Raises RecordError where there is none of that name."""
        if not isinstance(site, str):
            raise RecordError(f"a site is named by text, not by {site!r}: {self.path} has {', '.join(self.manifest.sites)}")
        if (site := self._name(site)) not in self.manifest.sites:
            near = "" if is_address(site) else did_you_mean(site, self.manifest.sites)  # another layer is no misspelling
            raise RecordError(f"{self.path} has no {site}.{near} It has {', '.join(self.manifest.sites)}")
        return self.manifest.sites[site]

    def _column(self, pick: Callable[[Index], list[Any]]) -> list[Any]:
        every = [value for number in range(len(self.manifest.shards)) for value in pick(self.index(number))]
        return every if self._chosen is None else [every[i] for i in self._chosen]

    @property
    def sites(self) -> dict[str, Layout]:
        """Name -> layout."""
        return dict(self.manifest.sites)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The id of every example."""
        return tuple(self._column(lambda index: index.ids))

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Id -> number of the example."""
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def n_tokens(self) -> tuple[int | None, ...]:
        """Tokens of every example; None where the input was no text."""
        return tuple(self._column(lambda index: index.n_tokens))

    @cached_property
    def metadata(self) -> dict[str, list[Any]]:
        """Key -> value of every example; None where it has none."""
        every = query.joined((one.examples, self.index(i).metadata) for i, one in enumerate(self.manifest.shards))
        return every if self._chosen is None else {key: [some[i] for i in self._chosen] for key, some in every.items()}

    def tokens(self, example: int | str) -> list[int] | None:
        """The ids of an example's tokens; None where the input was no text."""
        shard, local = self.places[query.number(self, example)]
        found = self.index(int(shard)).tokens(int(local))
        return None if found is None else found.tolist()

    def tokens_with(self, site: str, model: Model) -> Tokens:
        """The tokens of all examples as `model` reads them, one for each stored position of `site`.

        Raises:
            RecordError: the store was made with another model, or does not hold what this needs; see `reread`.
            SiteError: the store lacks the site.
        """
        return tokens_with(self, self._name(site), model)

    def row(self, example: int | str) -> dict[str, Any]:
        """The metadata of one example."""
        return self.example(query.number(self, example))[2]

    def __len__(self) -> int:
        """Examples."""
        return sum(one.examples for one in self.manifest.shards) if self._chosen is None else len(self._chosen)

    def __getitem__(self, site: str) -> Values:
        return Values(self, self._name(site) if isinstance(site, str) else site)

    def site(self, site: str, examples: Any = None, positions: str | int | Sequence[int] | None = None) -> Any:
        """Values of a site, of some examples, at some positions.

        Args:
            site: Its name.
            examples: Numbers, ids, a slice; None for all.
            positions: "first", "last", the number of a token (negative from the end), or several; None for all.

        Returns:
            A list of one tensor per example where `positions` is None. Otherwise a tensor [example, …], with a further axis
            for several positions in place of `pos`; that axis stands where it stands in one example.

        Raises:
            PositionError: it is no position, an example has no such one, or it was not stored.
            RecordError: there is no such site or example.
        """
        if not isinstance(examples, slice | Iterable | None):
            examples = query.number(self, examples)  # which refuses what is none
        return at(self[site], query.numbers(self, examples), positions)

    def dense(self, site: str, example: int | str) -> Tensor:
        """A pattern [head query_pos key_pos] of which the strongest keys were stored (`strongest=` of `hl.extract`).

        Zero where nothing was stored; with the queries that were stored. A site that was stored whole comes as it is.

        Raises:
            RecordError: there is no such example, or neither was stored.
        """
        return sparse.dense(self, self._name(site), example)

    def where(self, test: Callable[[Mapping[str, Any]], bool] | None = None, **wanted: Any) -> Store:
        """The examples whose metadata is as wanted, as a store of their own that reads the same files.

        Args:
            test: Called with the metadata of each example, `id` and `n_tokens` among it.
            wanted: Key = a value; several of which it is one (a list, set, range, array or Series); a compiled pattern to be
                found in it; or a function of it. Where ids are numbers, `id=` takes them as such.

        Raises:
            RecordError: no example has such a key, or none has a value of the type that is wanted.
        """
        return self._selection(query.matching(self, test, wanted))

    def batches(self, site: str | tuple[str, str], size: int, seed: int = 0, shuffle: bool = True, skip: int = 0) -> Batches:
        """Batches of rows drawn from all examples, for a training: what `hl.sae.train_sae` takes as its batches.

        Args:
            site: One with a row per position or example; two for pairs of input and target.
            size: Rows of a batch.
            seed: Decides the order.
            shuffle: Over all rows of all shards; otherwise as they lie.
            skip: Tokens at the start of each example that are left out.

        Raises:
            RecordError: the site has no rows to draw.
        """
        named = self._name(site) if isinstance(site, str) else tuple(map(self._name, site))
        return Batches(self, named, size, seed, shuffle, skip)  # type: ignore[arg-type]  # it counts them

    @property
    def whole(self) -> bool:
        """Whether it is the store itself, not a selection of its examples."""
        return self._chosen is None

    @property
    def complete(self) -> bool:
        """Whether its writer was closed."""
        return self.manifest.complete

    @property
    def stats(self) -> Stats:
        """How much there is."""
        return stats(self)

    @property
    def nbytes(self) -> int:
        """Bytes of all its values, of the examples meant; ids, tokens and metadata are not among them."""
        return sum(bytes_of(self, site) for site in self.manifest.sites)

    def tree(self) -> dict[str, tuple[int | None, ...]]:
        """Site -> (examples, …the size of each axis); None where examples differ, or there is none yet."""
        return {site: (len(self), *(layout.sizes or (None,) * len(layout.axes)))
                for site, layout in self.manifest.sites.items()}

    def verify(self) -> tuple[Damage, ...]:
        """Every file against its checksum; what is damaged, by shard and tensor. Empty when all is well."""
        return keeping.verify(self)

    def append(self) -> Writer:
        """A writer that goes on where the store ends."""
        return keeping.append(self)

    def merge(self, others: Sequence[Store | str | Path], out: str | Path, order: Sequence[str] | None = None,
              shard_bytes: int | None = None) -> Store:
        """A new store with the examples of this one and of others; see `keeping.merge`."""
        return keeping.merge([self, *others], out, order, shard_bytes)

    def compact(self, shard_bytes: int | None = None) -> Store:
        """Small shards made into ones of full size, in place; see `keeping.compact`."""
        return keeping.compact(self, shard_bytes)

    def tag(self, *words: str, remove: bool = False) -> tuple[str, ...]:
        """Add words to find the store by, or take them away; the tags that it then has."""
        return keeping.tag(self, words, remove)

    def rename(self, name: str | Path) -> Path:
        """Give the folder another name beside its place, or another place on the same disk; its new path."""
        return keeping.rename(self, name)

    def trash(self) -> Path:
        """Move the folder to `.trash` beside it; where it is now. `restore` brings it back."""
        return keeping.trash(self)

    def restore(self) -> Path:
        """Bring the folder back from the trash; where it is now."""
        self.path = keeping.restore(self.path)
        return self.path

    def example(self, i: int) -> tuple[dict[str, Tensor], np.ndarray | None, dict[str, Any], dict[str, list[int]]]:
        """What `Writer.add` was given for the i-th example: values (windows on the file), tokens, metadata, positions."""
        shard, local = (int(n) for n in self.places[i])
        opened, index = self.shard(shard), self.index(shard)
        values = {site: opened.example(site, layout, local) for site, layout in self.manifest.sites.items()}
        at = {site: opened.positions(site, layout, local) for site, layout in self.manifest.sites.items()}
        metadata = {key: some[local] for key, some in index.metadata.items() if some[local] is not None}
        return values, index.tokens(local), metadata, {site: p.tolist() for site, p in at.items() if p is not None}

    def to_pandas(self, tokens: bool = False) -> Any:
        """A DataFrame with a row per example: id, number of tokens, metadata; with `tokens` their ids too."""
        return export.to_pandas(self, tokens)

    def to_numpy(self, site: str) -> dict[str, np.ndarray]:
        """`values`, `offsets`, `ids` and the like of a site as arrays; see `export.to_numpy`."""
        return export.to_numpy(self, self._name(site))

    def to_xarray(self, site: str) -> Any:
        """A DataArray of a site with a row per position, labelled by example and position."""
        return export.to_xarray(self, self._name(site))

    def to_zarr(self, site: str, out: str | Path) -> Path:
        """The same arrays as `to_numpy` in a zarr group."""
        return export.to_zarr(self, self._name(site), out)

    def to_datasets(self, *sites: str) -> Any:
        """A Hugging Face Dataset with a row per example."""
        return export.to_datasets(self, tuple(map(self._name, sites)))

    def summary(self) -> dict[str, Numbers]:
        """Site -> mean, spread, extremes and length of its values."""
        return show.summary(self)

    def compare(self, other: Store | str | Path, align: str = "last", metric: str = "cosine", **more: Any) -> Scores:
        """How alike the values of two stores or examples are; see `compare.compare_stores`."""
        return compare_stores(self, other, align, metric, **more)

    def __repr__(self) -> str:
        return show.text(self)

    def _repr_html_(self) -> str:
        return show.page(self)


def open_store(path: str | Path) -> Store:
    """Open the store in a folder; nothing but its manifest is read yet.

    Raises:
        RecordError: there is no store, its manifest was damaged, or a newer version of hooklab wrote it.
    """
    if not isinstance(path, str | Path):
        raise RecordError(f"a store is opened by the name of its folder, not by {path!r}")
    return Store(path)
