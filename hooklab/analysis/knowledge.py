"""`hl.analysis.knowledge_probe`: does a model tell true statements from false ones inside, and where?

In: true and false statements, and a place: one neuron, a direction of the stream, or a whole site for a linear probe. Out:
how well the number read there orders them (AUROC: 1 always, 0.5 by chance), with an interval and a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..address import parse
from ..errors import RecordError
from ..positions import columns
from ..records import Scores
from ..sites import SITES
from .probing import probe, stack
from .ranking import area_interval, areas
from .stream import vector_of
from .watching import read, tokens_of

if TYPE_CHECKING:
    from ..model.model import Model

SHUFFLES = 20


def knowledge_probe(model: Model, true: Sequence[Any], false: Sequence[Any], place: str, positions: Any = "last", *,
                    direction: Any = None, method: str = "logistic", folds: int = 5, groups: Sequence[Any] | None = None,
                    strength: float = 1.0, seed: int = 0) -> Scores:
    """How well true statements are told from false ones by what stands at a place of the model.

    | place | direction | what orders the statements |
    |---|---|---|
    | `"L3N17"` or `"L*N17"` | | the activation of a neuron; nothing is fitted |
    | `"L*.resid_post"` | a vector [d_model] | the projection on it; nothing is fitted |
    | `"L*.resid_post"` | | a linear probe, judged on statements that it did not see (`probe`) |

    Args:
        model: An open model.
        true: Statements that are true.
        false: Statements that are false.
        place: Where to look: a site, in one layer or all, or one neuron.
        positions: The one that is read of each statement.
        direction: A vector of the site's width.
        method: Of the linear probe: `"logistic"` or `"means"`.
        folds: Of its cross-validation.
        groups: What the statements belong to, true ones first: those of one group are never split over folds.
        strength: Of the probe's penalty.
        seed: Of folds, intervals and shuffles.

    Returns:
        Scores [layer], or one number where the place names one layer: AUROC, above 0.5 where true statements have more. Its
        interval is over statements; `.control` is the same for labels that were dealt out anew.

    Raises:
        RecordError: there are no statements of a kind, a place of several neurons, a direction of another width, or
            activations that are no finite numbers.
        PositionError, TokenError: a statement has no such position.

    >>> import hooklab as hl
    >>> model = hl.load("lab")
    >>> cities = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
    >>> true = [f"The capital of {country} is {city}" for country, city in cities.items()]
    >>> false = [f"The capital of {country} is {city}" for country in cities for city in set(cities.values())
    ...          if city != cities[country]]
    >>> knowledge_probe(model, true, false, "L*.resid_post", folds=3, method="means").axes
    ('layer',)
    """
    if not isinstance(strength, (int, float)) or not 0 < strength < float("inf"):
        raise RecordError(f"strength={strength!r}: a penalty is a number above 0")
    statements = [*_several(true, "true"), *_several(false, "false")]
    labels = [*(1 for _ in true), *(0 for _ in false)]
    found = _captured(model, statements, place, positions)
    one = parse(_address(place))
    if one.neurons is not None and direction is not None:
        raise RecordError(f"{place} is one number already: leave direction= out, or name a site such as L3.resid_post")
    single = one.layers is None or one.layers.removeprefix("-").isdigit()
    given: Mapping[str, Any] | Any = next(iter(found.values())) if single else found
    if one.neurons is None and direction is None:
        scores = probe(given, labels, method=method, folds=folds, groups=groups, strength=strength, seed=seed).auroc
        assert scores is not None
        note = f"held-out AUROC of a {method} probe, {folds} folds; {_words(np.array(labels))}"
        return replace(scores, name="knowledge", note=note)
    layers, stacked = stack(given)
    if one.neurons is not None:
        return _judged(stacked[:, :, 0].T, np.array(labels), layers, seed, "a neuron")
    along = vector_of(direction, stacked.shape[-1], error=RecordError)
    return _judged((stacked @ along).T, np.array(labels), layers, seed, "a direction")


def _captured(model: Model, statements: list[Any], place: str, positions: Any) -> Mapping[str, Any]:
    """Values [statement d] by address, one position of each statement."""
    address, prompt = _address(place), read(model, statements)
    if SITES[parse(address).site].axes[:2] != ("batch", "pos"):
        raise RecordError(f"{place} has no positions to read at; its axes are {' '.join(SITES[parse(address).site].axes)}")
    counts = {len(row) for row in columns(positions, tokens_of(prompt))}
    if counts != {1}:
        raise RecordError(f"positions={positions!r} are {sorted(counts)} of a statement: a probe reads one of each")
    acts = model.capture(prompt, address, at=positions)
    found = {key: value.reshape(len(statements), -1) for key, value in acts.items()}
    chosen = parse(address)
    if chosen.neurons is not None and next(iter(found.values())).shape[1] != 1:
        raise RecordError(f"{place} names several neurons: give one, or see single_units for all")
    return found


def _address(place: str) -> str:
    """A neuron without a site is one behind the non-linearity."""
    return place if not isinstance(place, str) or "." in place or place in SITES else f"{place}.mlp_post"


def _judged(values: np.ndarray, labels: np.ndarray, layers: tuple[int, ...] | None, seed: int, what: str) -> Scores:
    """AUROC of numbers [statement layer] that nothing was fitted for."""
    drawn = np.random.default_rng(seed)
    shuffled = np.mean([areas(values, drawn.permutation(labels)) for _ in range(SHUFFLES)], axis=0)
    low, high = area_interval(values, labels, seed=seed)
    axes, coords, at = (("layer",), {"layer": layers}, slice(None)) if layers is not None else ((), {}, 0)
    control = Scores(shuffled[at], axes, coords, "fraction", "knowledge on shuffled labels")
    return Scores(areas(values, labels)[at], axes, coords, "fraction", "knowledge", low=low[at], high=high[at],
                  control=control, note=f"AUROC of {what}; {_words(labels)}")


def _several(given: Sequence[Any], which: str) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Sized) or not len(given):
        raise RecordError(f"{which}= is a list of statements, at least one")
    return list(given)


def _words(labels: np.ndarray) -> str:
    return f"{int(labels.sum())} true and {int((1 - labels).sum())} false statements"
