"""Under which name a store holds a site: addresses are read here as they are wherever else one is given.

In: what a user calls a site, such as `blocks.2.hook_resid_post` or `L-1.resid_post`. Out: its name in the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...address import Address, expand, parse
from ...errors import LayerError, RecordError, SiteError


def site_name(given: Any, sites: Iterable[str], about: Mapping[str, Any]) -> Any:
    """The name of a site in a store; what is no address comes back as it is.

    >>> site_name("blocks.2.hook_resid_post", [], {}), site_name("L-1.z", ["L0.z", "L1.z"], {}), site_name("gap", [], {})
    ('L2.resid_post', 'L1.z', 'gap')

    Args:
        given: What the user calls it.
        sites: Names of what is stored.
        about: What the store says of its model, and so how many layers that has.

    Raises:
        RecordError: it names several, or counts layers from the end where nobody knows how many there are.
    """
    sites = list(sites)
    if not isinstance(given, str) or given in sites:
        return given
    try:
        address = parse(given)
        layers = _layers(given, address, sites, about)
        heads, neurons = _singled(address.heads), _singled(address.neurons)
        found = expand(replace(address, heads=None, neurons=None), n_layers=layers)
    except (SiteError, LayerError):
        return given  # which the store then lacks, and says so
    if len(found) != 1:
        raise RecordError(f"{given} names {len(found)} sites, and values are read of one at a time: "
                          f"{', '.join(map(str, found[:4]))}{' …' * (len(found) > 4)}")
    return str(replace(found[0], heads=heads, neurons=neurons))


def is_address(name: str) -> bool:
    """Whether text is an address as it is written."""
    try:
        parse(name)
    except SiteError:
        return False
    return True


def _layers(given: str, address: Address, sites: Iterable[str], about: Mapping[str, Any]) -> int:
    """How many layers the model has: as the store says, or as it holds them from the first one on."""
    model = about.get("model")
    told = model.get("layers") if isinstance(model, Mapping) else None
    if isinstance(told, int):
        return told
    stored = {int(match[1]) for site in sites if (match := re.match(r"L(\d+)[.HN]", site))}
    if address.layers is not None and address.layers.isdigit():
        return int(address.layers) + 1
    if stored != set(range(len(stored))):
        raise RecordError(f"{given}: how many layers the model has is not known here: give the number of the layer, one of "
                          f"{', '.join(map(str, sorted(stored)))}")
    return len(stored)


def _singled(text: str | None) -> tuple[int, ...] | None:
    """Heads or neurons that are named by number: `3`, `[0,2]`. Raises LayerError for others, as their count is not known."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+|\[\s*\d+(\s*,\s*\d+)*\s*\]", text):
        raise LayerError(text)
    return tuple(dict.fromkeys(map(int, re.findall(r"\d+", text))))
