"""In which clusters the neighbours of some examples lie: `cluster_overlap`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import RecordError
from ..records import Scores
from .asking import whole
from .geometry import neighbours
from .probing import stack
from .watching import averaged


def cluster_overlap(activations: Mapping[str, Any] | Any, clusters: Sequence[Any], targets: Mapping[str, Any] | Any = None,
                    *, k: int = 40, seed: int = 0) -> Scores:
    """Of the k nearest neighbours of a target, the share that lies in each cluster, averaged over targets.

    Args:
        activations: Address -> [example d], or one array: where neighbours are looked for.
        clusters: The cluster (or class) of each example.
        targets: The same layers of other examples, [target d]; without them every example is one, and itself no neighbour.
        k: How many neighbours.
        seed: Of intervals.

    Returns:
        Scores [layer cluster], or [cluster] for arrays: shares that add up to 1, each target in `.examples`. Without
        targets there is an axis `own` before `cluster`, the cluster that the targets are of: a table of who lies beside
        whom.

    Raises:
        RecordError: clusters that do not fit, targets of other layers or another width, or fewer examples than neighbours.

    >>> cloud = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> cluster_overlap(cloud, list("aaabbb"), np.array([[0.05], [9.05]]), k=2).examples.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> cluster_overlap(cloud, list("aaabbb"), k=2).values.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    layers, stacked = stack(activations)
    whole("k", k, error=RecordError)
    given = np.asarray(clusters)
    if given.ndim != 1 or given.dtype == object:
        raise RecordError("clusters are names of one type, text or numbers, one for each example")
    names, which = np.unique(given, return_inverse=True)
    if len(which) != stacked.shape[1]:
        raise RecordError(f"{len(which)} clusters for {stacked.shape[1]} examples")
    asked = _targets(targets, layers, stacked.shape[2])
    found = []
    for i, features in enumerate(stacked):
        near = which[neighbours(features, k, None if asked is None else asked[i])]
        found.append(np.stack([(near == one).mean(1) for one in range(len(names))], -1))
    shares = np.stack(found, 1)  # [target layer cluster]
    axes: tuple[str, ...] = ("layer", "cluster")
    coords: dict[str, Any] = {"layer": layers or (0,), "cluster": tuple(names.tolist())}
    if asked is None:
        own = np.where(which[:, None] == np.arange(len(names)), 0.0, np.nan)  # [example own]
        shares = shares[:, :, None] + own[:, None, :, None]
        axes, coords = ("layer", "own", "cluster"), {**coords, "own": coords["cluster"]}
    if layers is None:
        shares, axes = shares[:, 0], axes[1:]
        coords.pop("layer")
    return averaged(shares, axes, coords, seed, unit="fraction", name="cluster overlap", note=f"of {k} nearest neighbours")


def _targets(given: Any, layers: tuple[int, ...] | None, width: int) -> np.ndarray | None:
    if given is None:
        return None
    theirs, asked = stack(given)
    if not asked.shape[1]:
        raise RecordError("there are no targets")
    if theirs != layers or asked.shape[2] != width:
        raise RecordError(f"targets are of the same layers and width as the examples: these are of "
                          f"{theirs or 'no layer'} and {asked.shape[2]}, not of {layers or 'no layer'} and {width}")
    return asked
