"""`TunedLens`: a lens with a translator for every layer (Belrose et al. 2023, arXiv:2303.08112), and its files.

    stream h before block l ──h + h A + b──▶ final norm ──▶ unembedding

A translator is an affine map in residual form, so one of zeros is the logit lens exactly. `tuned_training` fits them.
"""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ..errors import ModelError
from ..files import write_whole
from ..runtime.provenance import fingerprint
from .lens_values import LensError

if TYPE_CHECKING:
    from ..model.model import Model

KEY = "hooklab_tuned_lens"
VERSION = 1
CONFIG, PARAMS = "config.json", "params.pt"
KIND = "linear_tuned_lens"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators of one model, in residual form: h + h A + b before the final norm.

    Attributes:
        weight: A of every layer, [layer d_model d_model], to be multiplied from the right: `h @ weight[l]`.
        bias: b of every layer, [layer d_model]. Translator l is of the stream before block l; behind the last block there
            is none, and the lens is the model's own.
        fingerprint: Of the weights of the model that it was fitted to; "" where it is not known.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.lens import lens
        >>> from hooklab.analysis.tuned import TunedLens
        >>> model = hl.load("lab")
        >>> start = TunedLens.identity(model)
        >>> prompt = "When Mary and John went to"
        >>> bool((lens(model, prompt, value="kl", tuned=start).values == lens(model, prompt, value="kl").values).all())
        True
    """

    weight: Tensor
    bias: Tensor
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Check the shapes. Raises ModelError."""
        if other := [one for one in (self.weight, self.bias) if not isinstance(one, Tensor)]:
            raise ModelError(f"translators are tensors, not {type(other[0]).__name__}")
        layers, width = (*self.weight.shape[:2], 0, 0)[:2]
        if tuple(self.weight.shape) != (layers, width, width) or tuple(self.bias.shape) != (layers, width) or not layers:
            raise ModelError("translators are weights [layer d_model d_model] and biases [layer d_model], not "
                             f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}")
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ModelError("a translator holds what is no finite number")

    @classmethod
    def identity(cls, model: Model) -> TunedLens:
        """The start of training: the logit lens."""
        layers, width = model.facts.n_layers, model.facts.d_model
        zeros = torch.zeros(layers, width, width, device=model.device)
        return cls(zeros, zeros[:, 0].clone(), fingerprint(model))

    def __call__(self, x: Tensor, address: str) -> Tensor:
        """Vectors [… d_model] of a place of the stream, translated.

        Raises:
            LensError: there is no translator of this place, or it is of another width.
        """
        layer = self.index(address)
        if layer is None:
            return x
        if x.shape[-1] != self.weight.shape[-1]:
            raise LensError(f"this tuned lens is of width {self.weight.shape[-1]}, and these vectors are of {x.shape[-1]}.")
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide + wide @ self.weight[layer].to(wide) + self.bias[layer].to(wide)).to(x.dtype)

    def index(self, address: str) -> int | None:
        """The translator of a place: l before block l; none behind the last block.

        Raises:
            LensError: it is no place between blocks.

        >>> lens = TunedLens(torch.zeros(2, 3, 3), torch.zeros(2, 3))
        >>> lens.index("L1.resid_pre"), lens.index("L0.resid_post"), lens.index("L1.resid_post")
        (1, 1, None)
        """
        found = re.fullmatch(r"L(\d+)\.(resid_pre|resid_post)", str(address))
        if found is None:
            raise LensError(f"a tuned lens reads the stream between blocks, resid_pre and resid_post, not {address}.")
        layer = int(found[1]) + (found[2] == "resid_post")
        if layer > len(self.weight):
            raise LensError(f"this tuned lens has {len(self.weight)} layers, and {address} is none of them.")
        return layer if layer < len(self.weight) else None

    def check(self, model: Model) -> None:
        """Refuse a model that it was not fitted to. Raises ModelError."""
        if (len(self.weight), self.weight.shape[1]) != (model.facts.n_layers, model.facts.d_model):
            raise ModelError(f"this tuned lens is of {len(self.weight)} layers of width {self.weight.shape[1]}, and the "
                             f"model has {model.facts.n_layers} of width {model.facts.d_model}")
        if self.fingerprint and self.fingerprint != (found := fingerprint(model)):
            raise ModelError(f"this tuned lens was fitted to other weights ({self.fingerprint}) than this model's "
                             f"({found}): fit one with train_tuned_lens; dataclasses.replace(lens, fingerprint='') reads it "
                             "all the same")

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Store it in a `.safetensors` file, whole or not at all.

        Raises:
            ModelError: the path is taken, has another ending, or cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} would not be found again: a tuned lens is stored in a .safetensors file")
        about = json.dumps({"version": VERSION, "fingerprint": self.fingerprint})
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("weight", "bias")}
        try:
            return write_whole(path, save(tensors, {KEY: about}), replace=overwrite)
        except FileExistsError:
            raise ModelError(f"{path} exists: choose another name, or save(…, overwrite=True) to replace it") from None
        except OSError as error:
            raise ModelError(f"{path} could not be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """What `save` stored; reading it runs no code.

        Raises:
            ModelError: it cannot be read, is no tuned lens, or one of another version.
        """
        path = Path(path).expanduser()
        try:
            with safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get(KEY)
            tensors = load(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
        if text is None:
            raise ModelError(f"{path} was not stored by TunedLens.save: its header has no {KEY}")
        about = _json(text, path)
        if about.get("version") != VERSION:
            raise ModelError(f"{path} is of version {about.get('version')} of this format, and this hooklab reads version "
                             f"{VERSION}")
        if set(tensors) != {"weight", "bias"} or set(about) != {"version", "fingerprint"}:
            raise ModelError(f"{path} holds {', '.join(sorted((*tensors, *about)))}, and a tuned lens is weight, bias, "
                             "version and fingerprint")
        return cls(tensors["weight"], tensors["bias"], str(about["fingerprint"]))

    @classmethod
    def read_params(cls, folder: str | Path) -> TunedLens:
        """A lens in the published layout: a folder with `config.json` and `params.pt`, keys `0.weight`, `0.bias` …

        Its translators too are in residual form and of the stream before each block; their weights are [out in].

        Raises:
            ModelError: the folder cannot be read as data, or holds what this layout does not have.
        """
        folder = Path(folder).expanduser()
        config, state = _config(folder / CONFIG), _state(folder / PARAMS)
        layers, width = config["num_hidden_layers"], config["d_model"]
        biased = config.get("bias", True)
        wanted = {f"{layer}.{name}" for layer in range(layers) for name in (("weight", "bias") if biased else ("weight",))}
        if different := sorted(set(state) ^ wanted):
            raise ModelError(f"{folder / PARAMS} does not fit its {CONFIG} ({layers} layers): missing or unknown are "
                             f"{', '.join(different[:6])}{' …' if len(different) > 6 else ''}")
        shapes = {"weight": (width, width), "bias": (width,)}
        for key, value in state.items():
            if not isinstance(value, Tensor) or tuple(value.shape) != shapes[key.rpartition(".")[2]]:
                raise ModelError(f"{folder / PARAMS}: {key} is not of shape {shapes[key.rpartition('.')[2]]}")
        weight = torch.stack([state[f"{layer}.weight"].float().T for layer in range(layers)])
        bias = torch.stack([state[f"{layer}.bias"].float() if biased else torch.zeros(width) for layer in range(layers)])
        return cls(weight.contiguous(), bias)


def _config(path: Path) -> dict[str, Any]:
    """The config of a published lens. Raises ModelError."""
    try:
        found = _json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    for name in ("num_hidden_layers", "d_model"):
        if isinstance(found.get(name), bool) or not isinstance(found.get(name), int) or found[name] < 1:
            raise ModelError(f"{path} does not say {name}")
    if found.get("lens_type", KIND) != KIND:
        raise ModelError(f"{path} is of a lens of type {found['lens_type']!r}, and hooklab reads {KIND!r}")
    return found


def _state(path: Path) -> dict[str, Any]:
    """The tensors of a published lens, read as data. Raises ModelError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} cannot be read without running code that it brings along") from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}, not a state dict")
    return {str(key): value for key, value in state.items()}


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path} has a header or config that cannot be understood: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} has a header or config that is no table")
    return found
