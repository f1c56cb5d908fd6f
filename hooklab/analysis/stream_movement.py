"""How the residual stream moves: between any two of its places, and from layer to layer.

In: a model and one prompt. Out: Scores by position, or by layer and position. Lengths and cosines are those of the stream as
it is, before any norm. How far every single write goes along a direction is `stream(…, direction=…)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..records import Scores
from ..records.drawn import Drawn
from ..runtime.trace import places
from .single import POINTS, Single, point, single
from .stream import direction_name, direction_of, measured

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..model.model import Model


@dataclass(frozen=True, repr=False)
class Movement(Drawn):
    """How the stream differs between two places.

    Attributes:
        change: ‖end − start‖ / ‖start‖: Scores [pos].
        cosine: Of the angle between the two: Scores [pos].
    """

    change: Scores
    cosine: Scores

    def pictures(self) -> dict[str, Scores]:
        """Both, by their names."""
        return {"change": self.change, "cosine": self.cosine}


def movement(model: Model, prompt: Any, start: str, end: str, *, positions: Any = "each", **inputs: Any) -> Movement:
    """How far, and in which direction, the stream moves between two of its places.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        start: A place of the stream, such as `"L1.resid_post"`.
        end: Another; it may also come first.
        positions: Which ones.
        inputs: Further inputs, such as `images=`.

    Raises:
        SiteError: a place is not one of the stream.
        PromptError: there are several prompts.
        PositionError, TokenError: there is no such position.

    Example:
        >>> import hooklab as hl
        >>> moved = movement(hl.load("lab"), "When Mary and John went to the store", "L1.resid_post", "L2.resid_pre")
        >>> float(moved.change.values.max())  # the same place under two names
        0.0
    """
    first, last = (point(model, address).key for address in (start, end))
    seen = single(model, prompt, [first, last], positions, **inputs)
    before, after = seen[first], seen[last]

    def scores(values: Tensor, name: str, unit: str) -> Scores:
        return Scores(values.numpy(), ("pos",), {"pos": seen.positions}, unit, name, seen.spec, note=f"{first} to {last}")

    return Movement(scores((after - before).norm(dim=-1) / before.norm(dim=-1), "relative change", "× length"),
                    scores(cosine_similarity(before, after, dim=-1), "cosine", "cosine"))


@dataclass(frozen=True, repr=False)
class Circulation(Drawn):
    """What every layer does to the stream, each Scores [layer pos].

    Attributes:
        attn: Length of what attention writes.
        mlp: Length of what the MLP writes.
        change: Length of what the layer changes, resid_post − resid_pre: that of the sum of both writes, but where norms
            stand in the stream itself.
        cosine: Of the stream after the layer with the last one.
    """

    attn: Scores
    mlp: Scores
    change: Scores
    cosine: Scores

    def pictures(self) -> dict[str, Scores]:
        """All four, by their names."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def share(self) -> Scores:
        """(‖attn‖ + ‖mlp‖) of each layer over the sum of ‖change‖ over all layers, Scores [layer pos]."""
        values = (self.attn.values + self.mlp.values) / np.asarray(self.change.values).sum(0)
        return Scores(values, self.attn.axes, self.attn.coords, "fraction", "circulation", self.attn.spec)

    def to_pandas(self) -> DataFrame:
        """One row for each layer and position, one column for each measure.

        Raises:
            RecordError: pandas is not installed.
        """
        table = self.attn.to_pandas()[["layer", "pos"]]
        for entry in fields(self):
            table[entry.name] = getattr(self, entry.name).to_pandas()["score"]
        return table


def circulation(model: Model, prompt: Any, *, positions: Any = "each", **inputs: Any) -> Circulation:
    """What attention and MLP of every layer write at each position, how much it changes the stream, and where that heads.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        positions: Which ones, such as `"last"`.
        inputs: Further inputs, such as `images=`.

    Raises:
        PromptError: there are several prompts.
        PositionError, TokenError: there is no such position.

    Example:
        >>> import hooklab as hl
        >>> found = circulation(hl.load("lab"), "When Mary and John went to the store", positions="last")
        >>> list(found.to_pandas().columns), float(found.cosine.values[-1, 0].round(6))
        (['layer', 'pos', 'attn', 'mlp', 'change', 'cosine'], 1.0)
    """
    layers = range(model.facts.n_layers)
    seen = single(model, prompt, [f"L{layer}.{site}" for layer in layers
                                  for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")], positions, **inputs)
    last = seen[f"L{len(layers) - 1}.resid_post"]
    changes = [seen[f"L{layer}.resid_post"] - seen[f"L{layer}.resid_pre"] for layer in layers]
    return Circulation(
        _table(seen, [seen[f"L{layer}.attn_out"].norm(dim=-1) for layer in layers], "norm of attn_out"),
        _table(seen, [seen[f"L{layer}.mlp_out"].norm(dim=-1) for layer in layers], "norm of mlp_out"),
        _table(seen, [change.norm(dim=-1) for change in changes], "norm of the change"),
        _table(seen, [cosine_similarity(seen[f"L{layer}.resid_post"], last, dim=-1) for layer in layers],
               "cosine with the last stream", "cosine"))


def accumulated(model: Model, prompt: Any, direction: Any, *, positions: Any = "each", normalised: bool = False,
                **inputs: Any) -> Scores:
    """How far the stream has come along a direction at every place: all that was written up to there.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        direction: A vector [d_model], a token, or two tokens for the difference of theirs, as in `stream`.
        positions: Which ones.
        normalised: Divide the direction by its length.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [site pos]; a place that is the end of the layer before is left out.

    Raises:
        SweepError, TokenError: there is no such direction.
        PromptError: there are several prompts.

    Example:
        >>> import hooklab as hl
        >>> found = accumulated(hl.load("lab"), "When Mary and John went to the store", " Mary", positions="last")
        >>> found.coords["site"][:3], found.shape
        (('L0.resid_pre', 'L0.resid_mid', 'L0.resid_post'), (11, 1))
    """
    vector = direction_of(model, direction, normalised=normalised)
    names = [f"L*.{name}" for name in POINTS if model.sites.missing(name) is None]
    seen = single(model, prompt, [place.key for place in places(model, names)], positions, **inputs)
    values = {site: value.numpy() for site, value in seen.values.items()}
    return measured(values, seen.positions, vector, named=direction_name(direction, normalised=normalised),
                    spec=seen.spec)["projection"]


def _table(seen: Single, rows: list[Tensor], name: str, unit: str = "length") -> Scores:
    return Scores(np.stack([row.numpy() for row in rows]), ("layer", "pos"), {"pos": seen.positions}, unit, name, seen.spec)
