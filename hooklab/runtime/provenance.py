"""Where the numbers of a run came from: the model, the versions, the device, the seed."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..compiler import Plan
    from ..model.model import Model

PACKAGES = ("hooklab", "torch", "transformers", "nnsight", "tokenizers")


def provenance(model: Model, plan: Plan) -> dict[str, Any]:
    """Everything that a replay should compare, as plain data."""
    return {
        "model": {"name": getattr(model.hf.config, "_name_or_path", "") or type(model.hf).__name__,
                  "family": model.facts.family, "fingerprint": fingerprint(model),
                  "revision": getattr(model.hf.config, "_commit_hash", None)},
        "dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device),
        "attention": getattr(model.layout.config, "_attn_implementation", None),
        "seed": plan.seed, "versions": versions(), "python": platform.python_version(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
    digest = hashlib.sha256()
    samples: dict[Any, list[torch.Tensor]] = {}
    for name, tensor in (*model.hf.named_parameters(), *model.hf.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if tensor.device.type != "meta" and tensor.numel():
            flat = tensor.detach().reshape(-1)
            samples.setdefault((tensor.device, tensor.dtype), []).append(flat[::max(1, flat.numel() // 32)][:32])
    for parts in samples.values():
        together = torch.cat(parts)
        exact = together.double() if together.is_floating_point() else together.to(torch.int64)
        digest.update(exact.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
