"""Addresses: the text that names sites, such as `L5.resid_post`, `L*.z`, `L9H6.z` or `logits`.

`parse` reads one address and `expand` resolves it against a model's sizes into concrete places. TransformerLens
hook names (`blocks.5.attn.hook_z`) are accepted as aliases.

>>> parse("L0:4.pattern")
Address(site='pattern', layers='0:4', heads=None, neurons=None)
>>> [str(p) for p in expand("L-1.mlp_post", n_layers=3)]
['L2.mlp_post']
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import LayerError, SiteError, did_you_mean
from .sites import LAYER_SITES, MODEL_SITES, ORDER, SITES

_INDEX = r"-?\d+|\*|-?\d*:-?\d*|\[[^\]]*\]"
_ADDRESS = re.compile(
    rf"^L(?P<layers>{_INDEX})(?:H(?P<heads>{_INDEX})|N(?P<neurons>{_INDEX}))?(?:\.(?P<site>\w+))?$"
)
_TL_LAYER = re.compile(r"^blocks\.(\d+)\.(.+)$")
_TL_NAMES = {site.tl: site.name for site in SITES.values() if site.tl}


@dataclass(frozen=True)
class Address:
    """A parsed address: a site, and which layers, heads or neurons of it (text as written, None for all)."""

    site: str
    layers: str | None = None
    heads: str | None = None
    neurons: str | None = None


@dataclass(frozen=True)
class Place:
    """One site of one layer (`layer` is None for a site of the whole model), with heads or neurons singled out."""

    site: str
    layer: int | None = None
    heads: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """The address of the whole site: `L2.z`, whatever heads are singled out."""
        return self.site if self.layer is None else f"L{self.layer}.{self.site}"

    def __str__(self) -> str:
        if self.heads is not None:
            picked = self.heads[0] if len(self.heads) == 1 else "[" + ",".join(map(str, self.heads)) + "]"
            return f"L{self.layer}H{picked}.{self.site}"
        if self.neurons is not None:
            picked = self.neurons[0] if len(self.neurons) == 1 else "[" + ",".join(map(str, self.neurons)) + "]"
            return f"L{self.layer}N{picked}.{self.site}"
        return self.key

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: the order in which a forward pass reaches the place."""
        rank = ORDER[self.site]
        if self.layer is None:
            return (-1, rank) if rank < ORDER["resid_pre"] else (1 << 30, rank)
        return self.layer, rank


def parse(text: str) -> Address:
    """Read one address.

    Raises:
        SiteError: the site is unknown; the message names the nearest one.
    """
    if not isinstance(text, str):
        raise SiteError(f'An address is text such as "L5.resid_post", not {type(text).__name__}.')
    text = text.strip()
    if text in MODEL_SITES:
        return Address(text)
    if text in _TL_NAMES and "{}" not in text:
        return Address(_TL_NAMES[text])
    if match := _TL_LAYER.match(text):
        name = _TL_NAMES.get("blocks.{}." + match[2])
        if name is None:
            raise SiteError(f'"{text}" is no TransformerLens hook that hooklab knows.'
                            + did_you_mean(match[2], [k[10:] for k in _TL_NAMES if k.startswith("blocks")]))
        return Address(name, match[1])
    match = _ADDRESS.match(text)
    if match is None:
        if text in LAYER_SITES:
            raise SiteError(f'"{text}" is a site of every layer: write "L0.{text}" for one or "L*.{text}" for all.')
        raise SiteError(f'"{text}" is not an address.' + did_you_mean(text, SITES)
                        + ' Addresses look like "L5.resid_post", "L*.z", "L0:4.pattern", "L9H6.z" or "logits".')
    site = match["site"] or _default_site(match)
    if site in MODEL_SITES:
        raise SiteError(f'{site} belongs to the whole model, not to a layer: write "{site}".')
    if site not in LAYER_SITES:
        raise SiteError(f'There is no site "{site}" (in "{text}").' + did_you_mean(site, SITES))
    _check_parts(site, match, text)
    return Address(site, match["layers"], match["heads"], match["neurons"])


def expand(address: str | Address, *, n_layers: int, n_heads: int | None = None, n_kv_heads: int | None = None,
           d_mlp: int | None = None) -> list[Place]:
    """Resolve an address to the places that it names, in the order of a forward pass.

    Raises:
        LayerError: a layer, head or neuron is out of range.
        SiteError: the address is misspelt.
    """
    parsed = address if isinstance(address, Address) else parse(address)
    if parsed.layers is None:
        return [Place(parsed.site)]
    heads = neurons = None
    if parsed.heads is not None:
        kv = "kv_head" in SITES[parsed.site].axes
        heads = tuple(indices(parsed.heads, n_kv_heads if kv else n_heads, "kv_head" if kv else "head"))
    if parsed.neurons is not None:
        neurons = tuple(indices(parsed.neurons, d_mlp, "neuron"))
    return [Place(parsed.site, layer, heads, neurons) for layer in indices(parsed.layers, n_layers, "layer")]


def indices(text: str, size: int | None, word: str) -> list[int]:
    """The indices that an index text (`3`, `-1`, `*`, `1:4`, `[0,2]`) names among `size` things.

    >>> indices("[0,-1]", 4, "layer")
    [0, 3]
    """
    if size is None:
        raise LayerError(f"This model has no {word}s to choose from.")
    if text == "*":
        return list(range(size))
    if text.startswith("["):
        return list(dict.fromkeys(i for part in text[1:-1].split(",") for i in indices(part.strip(), size, word)))
    if not re.fullmatch(r"-?\d+|-?\d*:-?\d*", text):
        raise LayerError(f"{text!r} is no {word} index; write a number, a range such as 0:4, or * for all.")
    if ":" in text:
        start, stop = (int(part) if part else None for part in text.split(":"))
        chosen = list(range(size))[start:stop]
        if not chosen:
            raise LayerError(f"{word} range {text} names none of the {size} {word}s.")
        return chosen
    return [check_index(int(text), size, word)]


WHOSE = {"feature": "the dictionary", "dimension": "the stream"}
"""What has things that are not the model's own."""


def check_index(index: int, size: int, word: str) -> int:
    """`index` counted from 0, or LayerError saying what the range is."""
    try:
        index = operator.index(None if isinstance(index, bool) else index)  # type: ignore[arg-type]
    except TypeError:
        raise LayerError(f"A {word} is named by a whole number, 0 to {size - 1}, not by {index!r}.") from None
    if not -size <= index < size:
        raise LayerError(f"There is no {word} {index}: {WHOSE.get(word, 'this model')} has {size} {word}s, 0 to {size - 1} "
                         f"(or -{size} to -1 from the end).")
    return index % size


def _default_site(match: re.Match[str]) -> str:
    """What an address without a site means: a head's own write, or a neuron's activation."""
    if match["heads"]:
        return "result"
    if match["neurons"]:
        return "mlp_post"
    raise SiteError(f'"{match[0]}" names a layer but no site: write "{match[0]}.resid_post", say.')


def _check_parts(site: str, match: re.Match[str], text: str) -> None:
    axes: Iterable[str] = SITES[site].axes
    if match["heads"] and not {"head", "kv_head"} & set(axes):
        raise SiteError(f'"{text}": {site} has no heads (its axes are {" ".join(axes)}).')
    if match["neurons"] and "d_mlp" not in axes:
        raise SiteError(f'"{text}": {site} has no neurons (its axes are {" ".join(axes)}).')
