"""How a worker opens its model: what fits in a message, instead of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ModelError

if TYPE_CHECKING:
    from ...model.model import Model


@dataclass(frozen=True)
class Opening:
    """The arguments of `hl.load`, kept until a worker opens the model.

    >>> Opening("lab").open().facts.family
    'gpt2'
    >>> Opening("gpt2", device="cuda:{worker}").device_of(3)
    'cuda:3'

    Attributes:
        name: A name on the hub, or a folder that every worker sees.
        device: Where to put it; `{worker}` is the number of the worker among those of its machine. None: as `hl.load`.
        dtype: Type of the weights, such as "bfloat16".
        options: Further arguments of `hl.load`.
        fingerprint: Of the weights that it must have; "" for any.
    """

    name: str
    device: str | None = None
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def device_of(self, worker: int) -> str | None:
        """The device of a worker."""
        return None if self.device is None else self.device.replace("{worker}", str(worker))

    @property
    def gpus(self) -> float:
        """How many GPUs a worker needs for itself."""
        return 1.0 if self.device is not None and self.device.startswith("cuda") else 0.0

    def open(self, worker: int = 0) -> Model:
        """The model. Raises ModelError where it cannot be opened, or has other weights than it should."""
        from ...model.load import load
        from ...runtime.provenance import fingerprint

        model = load(self.name, device=self.device_of(worker), dtype=self.dtype, **self.options)
        if self.fingerprint and (found := fingerprint(model)) != self.fingerprint:
            raise ModelError(f"{self.name} has other weights here ({found}) than the model that was given "
                             f"({self.fingerprint}): save that one to a folder and give its name")
        return model


def opening_of(model: Model, device: str | None = None) -> Opening:
    """How another process opens the same model: by its name or folder, with the same type of weights.

    Args:
        model: Opened from a name or a folder, its weights unchanged since.
        device: As of `Opening`; on the CPU, the model's own where it is not given.

    Raises:
        ModelError: it was made in memory; or it lies on a GPU, and it is not said where its copies are to lie.
    """
    from ...model.lab import PATH
    from ...runtime.provenance import fingerprint

    name = getattr(model.hf, "name_or_path", "") or ""
    if not name:
        raise ModelError("Workers open the model themselves, by its name, and this one was made in memory: save it to a "
                         "folder with model.hf.save_pretrained and model.tokenizer.save_pretrained, and open it from there")
    if device is None and model.device.type == "cuda":
        raise ModelError('The model lies on a GPU, and each worker has a copy of its own: say where, device="cuda:{worker}"')
    name = "lab" if Path(name) == PATH else str(Path(name).absolute()) if Path(name).is_dir() else name
    revision, attention = vars(model).get("_revision"), getattr(model.hf.config, "_attn_implementation", None)
    options = {"revision": revision} if revision else {}
    options |= {"attn_implementation": attention} if attention in ("eager", "sdpa") else {}
    dtype = str(next(model.hf.parameters()).dtype).removeprefix("torch.")
    return Opening(name, device, dtype, options, fingerprint(model))
