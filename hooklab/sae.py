"""Dictionaries of features, attached to a site: whatever can encode and decode.

A dictionary is any object with `encode(x) -> features` and `decode(features) -> x`, or a safetensors file with
`W_enc` [d_model feature], `b_enc`, `W_dec` [feature d_model], `b_dec`: a ReLU autoencoder whose input is `x - b_dec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ModelError


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


def attach(source: Any) -> Dictionary | Attached:
    """Open a dictionary: a path to a safetensors file (or a folder with one), or an object that encodes and decodes.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(source, Dictionary | Attached):
        return source
    if isinstance(source, str | Path):
        return _from_file(Path(source))
    if not callable(getattr(source, "encode", None)) or not callable(getattr(source, "decode", None)):
        raise ModelError(f"A {type(source).__name__} is no dictionary of features: it needs encode(x) and decode(f).")
    return Attached(source, _size(source))


def _size(source: Any) -> int:
    for name in ("n_features", "d_sae", "dict_size", "num_latents"):
        found = getattr(source, name, None) or getattr(getattr(source, "cfg", None), name, None)
        if isinstance(found, int):
            return found
    for name in ("W_dec", "w_dec"):
        if isinstance(getattr(source, name, None), Tensor):
            return int(getattr(source, name).shape[0])
    raise ModelError(f"hooklab cannot tell how many features {type(source).__name__} has; give it an attribute "
                     f"n_features.")


def _from_file(path: Path) -> Dictionary:
    from safetensors.torch import load_file

    file = path / "sae_weights.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"There is no dictionary of features at {path}: give a safetensors file with W_enc, b_enc, "
                         f"W_dec and b_dec, or an object in braces.")
    found = load_file(file)
    missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name not in found]
    if missing:
        raise ModelError(f"{file} has no {', '.join(missing)}.")
    return Dictionary(found["W_enc"], found["b_enc"], found["W_dec"], found["b_dec"])
