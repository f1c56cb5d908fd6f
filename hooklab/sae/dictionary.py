"""The two simplest dictionaries of features: a plain ReLU autoencoder, and any object that encodes and decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError


@dataclass(frozen=True)
class Dictionary:
    """A ReLU autoencoder.

    Attributes:
        w_enc: [d_model feature].
        b_enc: [feature].
        w_dec: [feature d_model].
        b_dec: [d_model].
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return int(self.w_dec.shape[0])

    def encode(self, x: Tensor) -> Tensor:
        """Features [… feature] of activations [… d_model]."""
        w, b, centre = (t.to(x) for t in (self.w_enc, self.b_enc, self.b_dec))
        return torch.relu((x - centre) @ w + b)

    def decode(self, features: Tensor) -> Tensor:
        """Activations [… d_model] that features [… feature] stand for."""
        return features @ self.w_dec.to(features) + self.b_dec.to(features)

    def changed(self, x: Tensor, before: Tensor, after: Tensor, like: Tensor | None = None) -> Tensor:
        """`x` [… d_model] once features, of it or of `like`, went from `before` to `after`: what is not explained stays."""
        moved = after - before
        return (x + moved @ self.w_dec.to(moved)).to(x.dtype)


@dataclass(frozen=True)
class Attached:
    """An object of the user's that encodes and decodes."""

    inner: Any
    n_features: int

    def encode(self, x: Tensor) -> Tensor:
        """Features [… feature] of activations [… d_model]."""
        with torch.no_grad():
            encoded: Tensor = self.inner.encode(x)
            return encoded

    def decode(self, features: Tensor) -> Tensor:
        """Activations [… d_model] that features stand for."""
        with torch.no_grad():
            decoded: Tensor = self.inner.decode(features)
            return decoded

    def changed(self, x: Tensor, before: Tensor, after: Tensor, like: Tensor | None = None) -> Tensor:
        """`x` [… d_model] once features, of it or of `like`, went from `before` to `after`: what they do not explain stays.

        Some objects remember the scale of what they encoded last and decode to it, once; so each time that is encoded first.
        """
        decoded = []
        for features in (after, before):
            self.inner.encode(x if like is None else like)
            decoded.append(self.inner.decode(features))
        moved = (x + (decoded[0] - decoded[1])).to(x.dtype)
        assert isinstance(moved, Tensor)
        return moved


def size_of(source: Any) -> int:
    """How many features an object of the user's has. Raises ModelError where it does not say."""
    for name in ("n_features", "d_sae", "dict_size", "num_latents"):
        found = getattr(source, name, None) or getattr(getattr(source, "cfg", None), name, None)
        if isinstance(found, int):
            return found
    for name in ("W_dec", "w_dec"):
        if isinstance(getattr(source, name, None), Tensor):
            return int(getattr(source, name).shape[0])
    raise ModelError(f"hooklab cannot tell how many features {type(source).__name__} has; give it an attribute "
                     f"n_features.")
