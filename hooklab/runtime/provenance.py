"""Where the numbers of a run came from: the model, the versions, the device, the seed."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

if TYPE_CHECKING:
    from ..compiler import Plan
    from ..model.model import Model

PACKAGES = ("hooklab", "torch", "transformers", "nnsight", "tokenizers")


def provenance(model: Model, plan: Plan) -> dict[str, Any]:
    """Everything that a replay should compare, as plain data."""
    return {
        "model": {"name": name_of(model.hf),
                  "family": model.facts.family, "fingerprint": fingerprint(model),
                  "revision": getattr(model.hf.config, "_commit_hash", None)},
        "dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device),
        "attention": getattr(model.layout.config, "_attn_implementation", None),
        "seed": plan.seed, "versions": versions(), "python": platform.python_version(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def name_of(module: torch.nn.Module) -> str:
    """Where a model was loaded from, or what its class is called."""
    return str(getattr(getattr(module, "config", None), "_name_or_path", "") or type(module).__name__)


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def fingerprint(model: Model) -> str:
    """A short digest of a model's weights: names, shapes, types, and a sample of every tensor.

    Reading every weight of a large model takes longer than running it; a sample of thirty-two numbers of each tensor,
    taken at fixed places, tells trained, fine-tuned and edited weights apart.
    """
    known = _SAMPLES.get(model)
    if known is None or any(held.get(name) is not tensor or tensor.data_ptr() != where
                            for held, name, tensor, where in known.places):
        known = _SAMPLES[model] = _sampled(model)
    digest = hashlib.sha256(known.header)
    for parts in known.views:
        digest.update(torch.cat(parts).cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Sample:
    """Views into a model's weights: their numbers are read anew each time, their places are found once.

    Attributes:
        places: The dictionary that holds each tensor, its name there, the tensor and its address in memory.
        header: Names, shapes and types.
        views: A few numbers of every tensor, by device and type.
    """

    places: tuple[tuple[dict[str, Any], str, torch.Tensor, int], ...]
    header: bytes
    views: tuple[list[torch.Tensor], ...]


_SAMPLES: WeakKeyDictionary[Any, _Sample] = WeakKeyDictionary()


def _sampled(model: Model) -> _Sample:
    places = tuple((held, name, tensor, tensor.data_ptr()) for module in model.hf.modules()
                   for held in (module._parameters, module._buffers) for name, tensor in held.items() if tensor is not None)
    header = []
    views: dict[Any, list[torch.Tensor]] = {}
    for name, tensor in (*model.hf.named_parameters(), *model.hf.named_buffers()):
        header.append(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n")
        if tensor.device.type != "meta" and tensor.numel():
            flat = tensor.detach().reshape(-1)
            views.setdefault((tensor.device, tensor.dtype), []).append(flat[::max(1, flat.numel() // 32)][:32])
    return _Sample(places, "".join(header).encode(), tuple(views.values()))
