"""How images and text lie in the stream: `modality_vectors`, `modality_similarity`, `modality_geometry`.

In: prompts with images and the positions of each modality, in the language's words. Out: vectors by group and layer, and
Scores over layers. The measures are those of `hooklab.analysis.geometry`; here they are asked layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError, did_you_mean
from ..positions import resolve
from ..records import Scores
from .geometry import homogeneity, label_overlap, similarity
from .probing import stack
from .watching import Seen, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

MODALITIES = {"image": "image", "text": "text"}
MEASURES: dict[str, Callable[..., Scores]] = {"homogeneity": homogeneity, "overlap": label_overlap}
Vectors = dict[str, dict[str, np.ndarray]]


def modality_vectors(model: Model, prompts: Any, groups: Mapping[str, Any] = MODALITIES, *, site: str = "resid_post",
                     **inputs: Any) -> Vectors:
    """The vectors of each modality in every layer, from one pass.

    Args:
        model: An opened model.
        prompts: Text, encodings, or a list of them.
        groups: Name -> position selector: every position that it chooses, in every example, is one vector. Take one of an
            example with `"random(1, of=image)"` or `"eoi"`.
        site: A site of the layers, with one vector a position.
        inputs: Further inputs, such as `images=`.

    Returns:
        Group -> address -> [example d_model], in the order of the prompts; a prompt that lacks a group gives it none.

    Raises:
        RecordError: no prompt has any position of a group, or the site is no vector.
        PositionError, SiteError: there is no such position or site.

    Example:
        >>> import hooklab as hl
        >>> model, prompts = hl.load("lab"), ["When Mary and John", "When Mary"]
        >>> found = modality_vectors(model, prompts, {"first": "first", "rest": "all - first"})
        >>> len(found["rest"]["L0.resid_post"]) == sum(n - 1 for n in model.tokens(prompts).lengths)
        True
    """
    prompt = read(model, prompts, **inputs)
    places = {str(name): resolve(selector, tokens_of(prompt), allow_empty=True) for name, selector in groups.items()}
    for name, rows in places.items():
        if not any(rows):
            raise RecordError(f"no prompt has a position of {name}, {groups[name]!r}")
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in places}

    def visit(seen: Seen) -> None:
        for example in seen.examples:
            values = seen.of(site, example)
            if values.ndim != 2:
                raise RecordError(f"{site} is {tuple(values.shape[1:])} a position, and vectors are compared")
            for name, rows in places.items():
                found[name].setdefault(f"L{seen.layer}.{site}", []).append(values[rows[example]].cpu().numpy())

    watch(model, prompt, (site,), visit)
    return {name: {address: np.concatenate(parts) for address, parts in layers.items()} for name, layers in found.items()}


def modality_similarity(groups: Mapping[str, Mapping[str, Any]], *, quantiles: tuple[float, float] = (0.25, 0.75),
                        middle: str = "median") -> Scores:
    """Cosine similarity within and between modalities, layer by layer.

    Args:
        groups: Group -> address -> [example d]: what `modality_vectors` gives, or what was captured or stored.
        quantiles: Of the bounds that stand in `.low` and `.high`.
        middle: `"median"` or `"mean"` over pairs.

    Returns:
        Scores [layer group other], over all pairs of different vectors.

    Raises:
        RecordError: groups of different layers, or as `similarity` does.

    >>> image, text = np.eye(4)[:2], np.eye(4)[2:]
    >>> found = modality_similarity({"image": {"L0.resid_post": image}, "text": {"L0.resid_post": text}})
    >>> found.axes, float(found.sel(layer=0, group="image", other="text").values)
    (('layer', 'group', 'other'), 0.0)
    """
    layers, arrays = _by_layer(groups)
    each = [similarity({name: stacked[i] for name, stacked in arrays.items()}, quantiles=quantiles, middle=middle)
            for i in range(len(layers))]
    one = each[0]
    low, high = (np.stack([getattr(scores, word) for scores in each]) for word in ("low", "high"))
    return Scores(np.stack([scores.values for scores in each]), ("layer", *one.axes), {"layer": layers, **one.coords},
                  "cosine", "modality similarity", low=low, high=high, level=one.level, note=one.note)


def modality_geometry(groups: Mapping[str, Mapping[str, Any]], measure: str = "homogeneity", **options: Any) -> Scores:
    """How far apart modalities lie in every layer: whether clusters, or neighbourhoods, are of one modality.

    Args:
        groups: Group -> address -> [example d], as for `modality_similarity`.
        measure: `"homogeneity"` of clusters, 1 when each holds one modality; or `"overlap"`, the share of the nearest
            neighbours that are of the same modality.
        options: Those of `homogeneity` (`smallest=`) or of `label_overlap` (`k=`, `corrected=`).

    Returns:
        Scores [layer].

    Raises:
        RecordError: another measure, groups of different layers, or as the measure does.

    >>> rng = np.random.default_rng(0)
    >>> near = {"L0.resid_post": rng.normal(size=(40, 3)) + 9}
    >>> far = {"L0.resid_post": rng.normal(size=(40, 3)) - 9}
    >>> modality_geometry({"image": near, "text": far}, "overlap", k=5).values.tolist()
    [1.0]
    """
    if measure not in MEASURES:
        raise RecordError(f"there is no measure {measure!r}.{did_you_mean(measure, MEASURES)} There are "
                          f"{', '.join(MEASURES)}")
    layers, arrays = _by_layer(groups)
    labels = [name for name, stacked in arrays.items() for _ in range(stacked.shape[1])]
    together = np.concatenate(list(arrays.values()), axis=1)
    clouds = {f"L{layer}.resid_post": together[i] for i, layer in enumerate(layers)}  # the site is not shown
    return MEASURES[measure](clouds, labels, **options)


def _by_layer(groups: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    """The layers that all groups have, and group -> [layer example d]. Raises RecordError."""
    if not groups:
        raise RecordError("there are no groups to compare")
    stacked = {str(name): stack(layers) for name, layers in groups.items()}
    different = {layers for layers, _ in stacked.values()}
    layers = next(iter(different))
    if len(different) > 1 or layers is None:
        raise RecordError("every group needs the same layers, by address: "
                          + "; ".join(f"{name} has {found}" for name, (found, _) in stacked.items()))
    if len({array.shape[-1] for _, array in stacked.values()}) > 1:
        raise RecordError(f"the groups have vectors of different length: {[a.shape[-1] for _, a in stacked.values()]}")
    return layers, {name: array for name, (_, array) in stacked.items()}
