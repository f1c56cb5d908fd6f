"""A sparse autoencoder as a value: weights, an activation and how inputs are prepared; nothing in it ever changes.

    pre      = x' @ w_enc + b_enc            x' = prepared(x) - b_dec, or prepared(x) without `pre_bias`
    features = activation(pre)
    output   = restored(features @ w_dec + b_dec)

`prepared` brings inputs to a common scale (`norm`, `scale`), `restored` takes outputs back to that of the input.
Axes: `d_in` what is read, `feature`, `d_out` what is written; d_in = d_out but for transcoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError
from .activations import Activation, ReLU
from .norms import NORMS, Prepared

Latents = slice | list[int] | tuple[int, ...] | Tensor
_ALL = slice(None)


class Pass(NamedTuple):
    """One pass: pre-activations [… feature], features [… feature], reconstruction [… d_out]."""

    pre: Tensor
    features: Tensor
    reconstruction: Tensor


class Sparse(NamedTuple):
    """Features that are not 0, largest first: indices and values [… rank]; where an example has fewer, -1 and 0."""

    indices: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class SAE:
    """A sparse autoencoder, or a transcoder, of any kind in `hooklab.sae.ACTIVATIONS`.

    >>> sae = SAE(torch.eye(2, 3), torch.zeros(3), torch.eye(3, 2), torch.zeros(2))
    >>> sae.encode(torch.tensor([2.0, -1.0])).tolist(), sae(torch.tensor([2.0, -1.0])).reconstruction.tolist()
    ([2.0, 0.0, 0.0], [2.0, 0.0])

    Attributes:
        w_enc: [d_in feature].
        b_enc: [feature]; the bias of the gate, for a Gated one.
        w_dec: [feature d_out]; None where it is the encoder's transpose (tied).
        b_dec: [d_out].
        activation: What makes features of pre-activations.
        pre_bias: Whether `b_dec` is taken from the input first.
        norm: How each input is prepared: `"none"`, `"layer"` (mean 0, standard deviation 1), `"length"` (length √d_in).
        scale: What every input is multiplied by, after `norm`.
        restore: Whether outputs are taken back to the scale of the input; not for transcoders.
        statistics: Name -> [feature …], numbers that are known of each feature, such as `frequency`.
        about: Words and numbers for the reader, such as the site.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor | None
    b_dec: Tensor
    activation: Activation = field(default_factory=ReLU)
    pre_bias: bool = True
    norm: str = "none"
    scale: float = 1.0
    restore: bool = True
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit. Raises ModelError where they do not."""
        if self.w_enc.ndim != 2:
            raise ModelError(f"w_enc is [d_in feature], not of shape {tuple(self.w_enc.shape)}")
        d, n = self.w_enc.shape
        out = d if self.w_dec is None else self.w_dec.shape[-1]
        fits = {"b_enc": (self.b_enc, (n,)), "w_dec": (self.decoder, (n, out)), "b_dec": (self.b_dec, (out,))}
        for name, (tensor, shape) in fits.items():
            if tuple(tensor.shape) != shape:
                raise ModelError(f"{name} has the shape {tuple(tensor.shape)} where w_enc {(d, n)} asks for {shape}")
        if self.pre_bias and d != out:
            raise ModelError(f"b_dec of {out} cannot be taken from inputs of {d}: a transcoder has pre_bias=False")
        if self.norm not in NORMS:
            raise ModelError(f"norm={self.norm!r} is none of {', '.join(NORMS)}")
        if not 0 < self.scale < float("inf"):
            raise ModelError(f"scale={self.scale!r} must be a positive number")
        if self.restore and self.norm != "none" and d != out:
            raise ModelError(f"outputs of {out} cannot take the scale of inputs of {d}: a transcoder has restore=False")
        short = [name for name, t in self.statistics.items() if t.ndim < 1 or len(t) != n]
        if short:
            raise ModelError(f"statistics of {n} features begin with an axis of {n}: not so {', '.join(short)}")
        self.activation.check(n)

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return int(self.w_enc.shape[1])

    @property
    def d_in(self) -> int:
        """Size of what is read."""
        return int(self.w_enc.shape[0])

    @property
    def d_out(self) -> int:
        """Size of what is written."""
        return int(self.b_dec.shape[0])

    @property
    def tied(self) -> bool:
        """Whether the decoder is the encoder's transpose."""
        return self.w_dec is None

    @property
    def decoder(self) -> Tensor:
        """What an activation of 1 writes, [feature d_out], before `restored`."""
        return self.w_enc.T if self.w_dec is None else self.w_dec

    # Encoding and decoding

    def encode_pre(self, x: Tensor, latents: Latents = _ALL) -> Tensor:
        """Pre-activations [… feature] of inputs [… d_in], of all features or of some.

        Raises:
            ModelError: inputs of another size.
        """
        linear, bias, activation = self._linear(x, latents)
        return activation.pre(linear, bias)

    def encode(self, x: Tensor, latents: Latents = _ALL) -> Tensor:
        """Features [… feature] of inputs [… d_in], of all features or of some, which are the same either way.

        Raises:
            ModelError: inputs of another size, or a BatchTopK that was never trained.
        """
        if self.activation.whole:
            return self.encode_pre_features(x)[1][..., latents]
        linear, bias, activation = self._linear(x, latents)
        return activation.features(linear, bias)

    def encode_pre_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-activations and features, [… feature] each."""
        linear, bias, activation = self._linear(x, _ALL)
        return activation.pre(linear, bias), activation.features(linear, bias)

    def _linear(self, x: Tensor, latents: Latents) -> tuple[Tensor, Tensor, Activation]:
        x, _ = self.prepared(x)
        if self.pre_bias:
            x = x - self.b_dec.to(x)
        if isinstance(latents, slice) and latents == _ALL:
            return x @ self.w_enc.to(x), self.b_enc.to(x), self.activation
        index = torch.arange(self.n_features)[latents]
        part = self.activation if self.activation.whole else self.activation.part(index, len(index))
        return x @ self.w_enc[:, index].to(x), self.b_enc[index].to(x), part

    def prepared(self, x: Tensor) -> Prepared:
        """Inputs [… d_in] as the encoder takes them, and the way back to their scale. Raises ModelError for another size."""
        if x.shape[-1:] != (self.d_in,):
            raise ModelError(f"this autoencoder reads vectors of {self.d_in}, and was given some of shape {tuple(x.shape)}: "
                             "use it at the site it was trained on (heads, where it read all of them, side by side)")
        made = NORMS[self.norm](x.to(torch.promote_types(x.dtype, self.w_enc.dtype)))
        if self.scale == 1:
            return made
        return Prepared(made.x * self.scale, made.back._replace(factor=made.back.factor / self.scale))

    def decode(self, features: Tensor, like: Tensor | None = None) -> Tensor:
        """Outputs [… d_out] that features [… feature] stand for.

        Args:
            features: [… feature].
            like: The inputs [… d_in], whose scale the outputs take; needed with a `norm`.

        Raises:
            ModelError: there is a norm to undo, and no input to undo it by.
        """
        features = features.to(torch.promote_types(features.dtype, self.w_enc.dtype))
        return self._restored(features @ self.decoder.to(features) + self.b_dec.to(features), like)

    def decode_sparse(self, found: Sparse, like: Tensor | None = None) -> Tensor:
        """Outputs [… d_out] of features of which only those that are not 0 are given."""
        indices, values = found.indices.reshape(-1, found.indices.shape[-1]), found.values
        values = values.reshape(indices.shape).to(torch.promote_types(values.dtype, self.w_enc.dtype))
        values = torch.where(indices < 0, 0, values)
        out = functional.embedding_bag(indices.clamp(min=0), self.decoder.to(values), mode="sum", per_sample_weights=values)
        return self._restored(out.reshape(*found.indices.shape[:-1], self.d_out) + self.b_dec.to(values), like)

    def _restored(self, out: Tensor, like: Tensor | None) -> Tensor:
        if not self.restore:
            return out
        if self.norm == "none":
            return out if self.scale == 1 else out / self.scale
        if like is None:
            raise ModelError(f"this autoencoder brings every input to one scale (norm={self.norm!r}), so what features "
                             "stand for depends on the input: decode(features, like=x)")
        return self.prepared(like).back(out)

    def __call__(self, x: Tensor) -> Pass:
        """Pre-activations, features and reconstruction of inputs [… d_in]; nothing is remembered."""
        pre, features = self.encode_pre_features(x)
        return Pass(pre, features, self.decode(features, like=x))

    forward = __call__

    def encode_sparse(self, x: Tensor, most: int | None = None) -> Sparse:
        """The features that are not 0, largest first.

        Args:
            x: [… d_in].
            most: Only so many of the largest; by default every one.
        """
        return sparse(self.encode(x), most)

    def changed(self, x: Tensor, before: Tensor, after: Tensor, like: Tensor | None = None) -> Tensor:
        """`x` [… d_out] once features went from `before` to `after`: what they do not explain stays as it is.

        Args:
            x: What stands at the site that features are written to.
            before: [… feature].
            after: [… feature].
            like: The inputs [… d_in] that they are features of, whose scale the change takes; `x` itself unless given.
        """
        moved = (after - before).to(torch.promote_types(after.dtype, self.w_enc.dtype))
        moved = moved @ self.decoder.to(moved)
        if self.restore and (self.norm != "none" or self.scale != 1):
            moved = moved * self.prepared(x if like is None else like).back.factor
        return (x + moved).to(x.dtype)

    # Other autoencoders made of this one

    def pruned(self, keep: Latents) -> SAE:
        """Only the features `keep` (a mask, indices or a slice), with the activation, the biases and all else kept.

        Where the others are never active, no feature and no reconstruction changes. A TopK chooses among those left.

        Raises:
            ModelError: a feature that does not exist, or none left.
        """
        n = self.n_features
        if isinstance(keep, Tensor) and keep.dtype == torch.bool and keep.shape != (n,):
            raise ModelError(f"a mask of {n} features has the shape ({n},), not {tuple(keep.shape)}")
        try:
            index = torch.arange(n)[keep.cpu() if isinstance(keep, Tensor) else keep]
        except IndexError as error:
            raise ModelError(f"this autoencoder has the features 0 to {n - 1}: {error}") from error
        if not len(index):
            raise ModelError("no feature would be left: keep at least one")
        return replace(self, w_enc=self.w_enc[:, index], b_enc=self.b_enc[index],
                       w_dec=None if self.w_dec is None else self.w_dec[index],
                       activation=self.activation.part(index, len(index)),
                       statistics={name: t[index] for name, t in self.statistics.items()})

    def unit_norm(self) -> SAE:
        """The same function with decoder rows of length 1: features become larger by what the rows lose.

        Rows of zeros stay. A BatchTopK becomes a JumpReLU, since its threshold is then another for each feature.

        Raises:
            ModelError: a TopK would choose others, and a tied decoder is the encoder itself.
        """
        if self.w_dec is None:
            raise ModelError("the decoder is the encoder's transpose: longer features would need two different matrices")
        if self.activation.whole:
            raise ModelError("a TopK chooses by size, so other lengths of its decoder rows would change which it chooses")
        norm = self.w_dec.norm(dim=1)
        norm = torch.where(norm == 0, 1, norm)
        return replace(self, w_enc=self.w_enc * norm, b_enc=self.b_enc * norm, w_dec=self.w_dec / norm[:, None],
                       activation=self.activation.scaled(norm), statistics={})

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> SAE:
        """The same on a device, in a floating-point type."""
        def move(t: Tensor) -> Tensor:
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

        return self._mapped(move)

    def _mapped(self, move: Callable[[Tensor], Tensor]) -> SAE:
        return replace(self, w_enc=move(self.w_enc), b_enc=move(self.b_enc), b_dec=move(self.b_dec),
                       w_dec=None if self.w_dec is None else move(self.w_dec), activation=self.activation.map(move),
                       statistics={name: move(t) for name, t in self.statistics.items()})

    def __repr__(self) -> str:
        """One line."""
        kind, tied = type(self.activation).__name__, ", tied" if self.tied else ""
        settings = "".join(f", {k}={v}" for k, v in self.activation.numbers.items())
        size = f"{self.d_in}" if self.d_in == self.d_out else f"{self.d_in} → {self.d_out}"
        norm = "" if self.norm == "none" else f", norm={self.norm}"
        return f"SAE({kind}{settings}, {size} × {self.n_features} features{tied}{norm})"


def sparse(features: Tensor, most: int | None = None) -> Sparse:
    """The features [… feature] that are not 0, largest first; among equal ones the first.

    >>> sparse(torch.tensor([[0.0, 2.0, 3.0], [1.0, 0.0, 0.0]])).indices.tolist()
    [[2, 1], [0, -1]]
    """
    active = features != 0
    rank = int(active.sum(-1).max()) if features.numel() else 0
    order = partial(torch.sort, dim=-1, descending=True, stable=True)
    found = order(torch.where(active, features, -torch.inf))
    rank = rank if most is None else min(rank, most)
    values, indices = found.values[..., :rank], found.indices[..., :rank]
    empty = values == -torch.inf
    return Sparse(torch.where(empty, -1, indices), torch.where(empty, 0, values))
