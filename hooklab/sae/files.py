"""An autoencoder in one safetensors file: its tensors, and in the file's header what else it is, as JSON.

One file appears whole or not at all, and reading it runs no code. `config(path)` reads the header alone.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ..errors import ModelError
from ..files import write_whole
from .activations import ACTIVATIONS, Activation
from .autoencoder import SAE

KEY = "hooklab_sae"
VERSION = 1
_FIELDS = {"version", "activation", "tied", "pre_bias", "norm", "scale", "restore", "statistics", "about"}


def save_sae(sae: SAE, path: str | Path, *, overwrite: bool = False) -> Path:
    """Store an autoencoder in a `.safetensors` file.

    Args:
        sae: Of any kind.
        path: Where.
        overwrite: Replace the file that is there.

    Raises:
        ModelError: the path is taken or cannot be written, or `about` holds what JSON cannot.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} would not be found again: an autoencoder is stored in a .safetensors file")
    try:
        return write_whole(path, to_bytes(sae), replace=overwrite)
    except FileExistsError:
        raise ModelError(f"{path} exists: choose another name, or save_sae(…, overwrite=True) to replace it") from None
    except OSError as error:
        raise ModelError(f"{path} could not be written: {error.strerror or error}") from error


def to_bytes(sae: SAE, tensors: dict[str, Tensor] | None = None, about: dict[str, str] | None = None) -> bytes:
    """The file's content, with further tensors and header entries where others build on it."""
    about_json = {"version": VERSION, "activation": {"kind": sae.activation.name} | sae.activation.numbers,
                  "tied": sae.tied, "pre_bias": sae.pre_bias, "norm": sae.norm, "scale": sae.scale, "restore": sae.restore,
                  "statistics": sorted(sae.statistics), "about": dict(sae.about)}
    try:
        text = json.dumps(about_json, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f"`about` must be what JSON can hold: {error}") from error
    made = {"w_enc": sae.w_enc, "b_enc": sae.b_enc, "b_dec": sae.b_dec} | ({} if sae.w_dec is None else {"w_dec": sae.w_dec})
    made |= {f"activation.{name}": t for name, t in sae.activation.tensors.items()}
    made |= {f"statistics.{name}": t for name, t in sae.statistics.items()} | (tensors or {})
    return save({name: t.detach().cpu().contiguous().clone() for name, t in made.items()}, {KEY: text} | (about or {}))


def header(path: Path) -> dict[str, str]:
    """The text entries of a safetensors file's header. Raises ModelError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def config(path: str | Path) -> dict[str, Any]:
    """What a stored autoencoder is besides its tensors: kind, norm, about …

    Raises:
        ModelError: it is no stored autoencoder, or one of a newer version.
    """
    text = header(Path(path)).get(KEY)
    if text is None:
        raise ModelError(f"{path} was not stored by save_sae: its header has no {KEY}")
    try:
        found = json.loads(text)
        version = found["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} has a header that cannot be understood: {error}") from error
    if version != VERSION:
        raise ModelError(f"{path} is of version {version} of this format, and this hooklab reads version {VERSION}")
    if unknown := sorted(set(found) ^ _FIELDS):
        raise ModelError(f"{path} has a header with what is missing or unknown: {', '.join(unknown)}")
    assert isinstance(found, dict)
    return found


def read(path: str | Path, *, further: bool = False) -> tuple[SAE, dict[str, Tensor]]:
    """The autoencoder of a file, and the tensors that are no part of it.

    Raises:
        ModelError: the file cannot be read, is no stored autoencoder, or, unless `further`, holds other tensors.
    """
    path = Path(path)
    found = config(path)
    try:
        tensors = load(path.read_bytes())
        kind = dict(found["activation"])
        activation = made(kind.pop("kind"), kind, {name.removeprefix("activation."): tensors.pop(name) for name in
                                                   [name for name in tensors if name.startswith("activation.")]})
        statistics = {name: tensors.pop(f"statistics.{name}") for name in found["statistics"]}
        sae = SAE(tensors.pop("w_enc"), tensors.pop("b_enc"), None if found["tied"] else tensors.pop("w_dec"),
                  tensors.pop("b_dec"), activation, found["pre_bias"], found["norm"], found["scale"], found["restore"],
                  statistics, found["about"])
    except KeyError as error:
        raise ModelError(f"{path} has no tensor {error}") from error
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if tensors and not further:
        raise ModelError(f"{path} holds tensors that belong to no autoencoder: {', '.join(sorted(tensors))}")
    return sae, tensors


def made(kind: Any, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> Activation:
    """An activation of its parts. Raises ModelError for an unknown kind or parts it does not have."""
    if kind not in ACTIVATIONS:
        raise ModelError(f"there is no activation {kind!r}: there are {', '.join(ACTIVATIONS)}")
    known = {f.name for f in fields(ACTIVATIONS[kind])}
    if unknown := sorted((set(numbers) | set(tensors)) - known):
        raise ModelError(f"{kind} has no {', '.join(unknown)}")
    try:
        return ACTIVATIONS[kind](**numbers, **tensors)
    except TypeError as error:
        raise ModelError(f"{kind} lacks a part: {error}") from error
