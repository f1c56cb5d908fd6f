"""A training's state in a safetensors file: written whole or not at all, read without running code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..errors import ModelError
from ..files import write_whole
from .files import header
from .recipe import Recipe
from .trainer import State

KEY = "hooklab_sae_training"
VERSION = 1
_NUMBERS = ("scale", "target_scale", "threshold")


class Keeper:
    """Writes a state every so many steps, and at the end.

    Raises:
        ModelError: the file is taken, or cannot hold a checkpoint.
    """

    def __init__(self, path: str | Path | None, every: int, resume: str | Path | None) -> None:
        if every < 1:
            raise ModelError(f"checkpoint_every={every} must be a whole number from 1")
        chosen = path if path is not None else resume
        self.path = None if chosen is None else Path(chosen).expanduser()
        self.every = every
        self.ours = path is None or (resume is not None and Path(path).expanduser() == Path(resume).expanduser())
        if self.path is None:
            return
        if self.path.suffix != ".safetensors":
            raise ModelError(f"{self.path} would not be found again: a checkpoint is a .safetensors file")
        if self.path.exists() and not self.ours:
            raise ModelError(f"{self.path} exists: resume={str(self.path)!r} continues it, or choose another name")

    def keep(self, state: State) -> None:
        """Write the state if it is time."""
        if self.path is None or (state.step % self.every and state.step < state.recipe.steps):
            return
        try:
            write_whole(self.path, to_bytes(state), replace=self.ours)
        except FileExistsError:
            raise ModelError(f"{self.path} has appeared since the training began, and stays as it is") from None
        except OSError as error:
            raise ModelError(f"{self.path} could not be written: {error.strerror or error}") from error
        self.ours = True


def to_bytes(state: State) -> bytes:
    """A state as a file's content."""
    tensors = {f"param.{name}": t for name, t in state.params.items()}
    for name, (mean, square) in state.moments.items():
        tensors |= {f"mean.{name}": mean, f"square.{name}": square}
    tensors |= {"silent": state.silent, "draw": state.draw.get_state(),
                "history": torch.tensor(state.history, dtype=torch.float64),
                "numbers": torch.tensor([getattr(state, name) for name in _NUMBERS], dtype=torch.float64)}
    told = {"version": VERSION, "recipe": asdict(state.recipe), "transcoder": state.transcoder,
            "device": str(state.silent.device)}
    return save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, {KEY: json.dumps(told)})


def read_state(path: Path, asked: Recipe) -> State:
    """The state that a checkpoint holds.

    Raises:
        ModelError: there is none, it cannot be read, or it was begun with other settings than `asked`.
    """
    path = path.expanduser()
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path} to resume from")
    told = _told(path)
    begun = told["recipe"]
    if other := [name for name, value in asdict(asked).items() if begun.get(name) != value]:
        raise ModelError(f"{path} was begun with other settings: " + ", ".join(
            f"{name}={begun.get(name)!r}, not {getattr(asked, name)!r}" for name in other))
    try:
        t = load(path.read_bytes())
        device = torch.device(told["device"])
        params = {name: t[f"param.{name}"].to(device).requires_grad_() for name in
                  (key.removeprefix("param.") for key in t if key.startswith("param."))}
        moments = {name: (t[f"mean.{name}"].to(device), t[f"square.{name}"].to(device)) for name in params}
        draw = torch.Generator()
        draw.set_state(t["draw"])
        numbers = dict(zip(_NUMBERS, t["numbers"].tolist(), strict=True))
        return State(asked, _ordered(params), moments, draw, t["silent"].to(device), transcoder=told["transcoder"],
                     history=t["history"].tolist(), **numbers)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error}") from error


def _told(path: Path) -> dict[str, Any]:
    text = header(path).get(KEY)
    if text is None:
        raise ModelError(f"{path} is no checkpoint of a training: its header has no {KEY}")
    told = json.loads(text)
    if told["version"] != VERSION:
        raise ModelError(f"{path} is a checkpoint of version {told['version']}, and this hooklab reads version {VERSION}")
    assert isinstance(told, dict)
    return told


def _ordered(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In the order they were made in."""
    order = ("w_enc", "b_enc", "b_dec", "w_dec", "log_threshold", "r_mag", "b_mag")
    return {name: params[name] for name in order if name in params}
