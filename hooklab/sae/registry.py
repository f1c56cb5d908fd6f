"""The dictionaries of a model, one for each site, opened when they are first used; and without their dead features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..address import Place, parse
from ..errors import ModelError, SiteError, did_you_mean
from ..records.run import MissingError
from .autoencoder import SAE
from .layouts import CFG
from .opening import Features, attach
from .stats import FeatureStats

ENDINGS = (".safetensors", ".pt", ".pth")
RARE = 1e-8
"""The frequency below which a feature is called dead where counts say no more."""


def omit_dead(sae: SAE, stats: FeatureStats | None = None, *, frequency: float = RARE, after: int | None = None) -> SAE:
    """An autoencoder without its dead features; its activation, its biases and how inputs are prepared stay.

    Where a feature was never active, no reconstruction changes.

    Args:
        sae: Any kind.
        stats: What a stream said of its features; by default `sae.statistics["frequency"]` does.
        frequency: Features that were active in a smaller share of examples are left out.
        after: With `stats`: those too that were silent in the last so many examples.

    Raises:
        ModelError: nothing is known of its features, too few examples, or none would be left.

    Example:
        >>> sae = SAE(torch.eye(2, 3), torch.zeros(3), torch.eye(3, 2), torch.zeros(2))
        >>> omit_dead(sae, FeatureStats(3).add(torch.tensor([[1.0, 2.0, 0.0]]))).n_features
        2
    """
    if stats is not None:
        if len(stats.active) != sae.n_features:
            raise ModelError(f"these statistics are of {len(stats.active)} features, and the autoencoder has "
                             f"{sae.n_features}")
        gone = stats.dead(after) if after is not None else stats.dead()
        known = stats.frequency
    elif after is not None:
        raise ModelError("after= asks how long features have been silent: give the statistics of a stream")
    elif "frequency" in sae.statistics:
        known, gone = sae.statistics["frequency"], torch.zeros(sae.n_features, dtype=torch.bool)
    else:
        raise ModelError("nothing is known of how often these features are active: give the FeatureStats of a stream")
    return sae.pruned(~(gone | (known.cpu() < frequency)))


class SAEs(Mapping[str, Features]):
    """Dictionaries by the site that they read: `saes["L3.resid_post"]`. Each is opened once, when it is first asked for.

    >>> saes = SAEs({"L3.resid_post": SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2))})
    >>> list(saes), saes["blocks.3.hook_resid_post"].n_features, saes.opened
    (['L3.resid_post'], 2, ('L3.resid_post',))

    Args:
        sources: Address -> a dictionary, or what `attach` opens: a path, an object that encodes and decodes.

    Raises:
        SiteError: what is no address of one site.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        if not isinstance(sources, Mapping):
            raise SiteError('a registry is of dictionaries by site, such as {"L3.resid_post": sae}')
        found = [(_key(address), source) for address, source in sources.items()]
        self._sources = dict(sorted(found, key=lambda one: one[0].order)) if found else {}
        if len(self._sources) < len(found):
            raise SiteError("two dictionaries are of one site: a registry has one for each")
        self._by_key = {place.key: source for place, source in self._sources.items()}
        self._made: dict[str, Features] = {}
        self._changes: tuple[Callable[[str, Features], Features], ...] = ()

    @classmethod
    def from_folder(cls, folder: str | Path, site: str | None = None) -> SAEs:
        """Those of a folder whose names are addresses: `L3.resid_post.safetensors`, `L3.mlp_out.pt`, or a folder of SAELens.

        Nothing is opened yet, and other names are passed over. TransformerLens names (`blocks.3.hook_resid_post`) are
        addresses too.

        Args:
            folder: The folder.
            site: What files with a number for a name are of, the number being the layer: with `site="mlp_post"`, `3.pt` is
                of `L3.mlp_post`.

        Raises:
            SiteError: `site` is no site of a layer.
            ModelError: there is no such folder, none of its files is named by a site, or two are of one site.
        """
        folder = Path(folder).expanduser()
        if site is not None:
            _key(f"L0.{site}")
        if not folder.is_dir():
            raise ModelError(f"there is no folder {folder}")
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if not (path.suffix in ENDINGS or (path / CFG).is_file()):
                continue
            try:
                name = path.name if path.is_dir() else path.stem
                key = _key(f"L{int(name)}.{site}" if site is not None and name.isdigit() else name).key
            except SiteError:
                continue
            if key in found:
                raise ModelError(f"{found[key].name} and {path.name} are both of {key}: leave one in the folder")
            found[key] = path
        if not found:
            raise ModelError(f"nothing in {folder} is a dictionary named by its site, such as L3.resid_post.safetensors")
        return cls(found)

    def __getitem__(self, address: str) -> Features:
        """The dictionary of a site, opened.

        Raises:
            MissingError: there is none of this site (a KeyError).
            ModelError: it cannot be opened.
        """
        key = _key(address).key
        if key not in self._by_key:
            raise MissingError(f"there is no dictionary of {key}.{did_you_mean(key, self._by_key)}")
        if key not in self._made:
            made = attach(self._by_key[key])
            for change in self._changes:
                made = change(key, made)
            self._made[key] = made
        return self._made[key]

    def __contains__(self, address: object) -> bool:
        try:
            return isinstance(address, str) and _key(address).key in self._by_key
        except SiteError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def opened(self) -> tuple[str, ...]:
        """The sites whose dictionary is in memory."""
        return tuple(key for key in self._by_key if key in self._made)

    def open(self) -> SAEs:
        """Open all of them now. Returns itself."""
        for key in self._by_key:
            self[key]
        return self

    def n_features(self, address: str) -> int:
        """How many features the dictionary of a site has; it is opened."""
        return int(self[address].n_features)

    def omit_dead(self, stats: Mapping[str, FeatureStats] | None = None, *, frequency: float = RARE,
                  after: int | None = None) -> SAEs:
        """A registry of the same dictionaries without their dead features, as `omit_dead`; still opened when asked for.

        Args:
            stats: Address -> what a stream said; for sites that it lacks, what the dictionary knows of itself.
            frequency: As in `omit_dead`.
            after: As in `omit_dead`.
        """
        known = {_key(address).key: one for address, one in (stats or {}).items()}

        def without(key: str, made: Features) -> Features:
            if not isinstance(made, SAE):
                raise ModelError(f"the dictionary of {key} is a {type(getattr(made, 'inner', made)).__name__}, which "
                                 "cannot be cut down: only an SAE can")
            return omit_dead(made, known.get(key), frequency=frequency, after=after)

        other = SAEs(self._by_key)
        other._changes = (*self._changes, without)
        return other

    def __repr__(self) -> str:
        """One line per site."""
        told = [f"{key:<18} {self._made[key]!r}" if key in self._made else f"{key:<18} not opened yet" for key in self]
        return "SAEs\n  " + "\n  ".join(told) if told else "SAEs (none)"


def _key(address: str) -> Place:
    """The one whole site that an address names. Raises SiteError where it names another thing."""
    found = parse(address)
    if found.heads is not None or found.neurons is not None:
        raise SiteError(f"a dictionary reads a whole site, and {address} is a part of one")
    if found.layers is None:
        return Place(found.site)
    if not found.layers.isdigit():
        raise SiteError(f"a dictionary reads one site, and {address} names several, or counts from the last: write "
                        f"L3.{found.site}")
    return Place(found.site, int(found.layers))
