"""What is refused before it can go wrong: a write of the wrong kind, an nnsight of the wrong kind."""

from __future__ import annotations

from typing import Any

from nnsight.intervention.interleaver import Interleaver
from torch import Tensor

from ..errors import HooklabError, WriteError


def check_write(address: str, axes: tuple[str, ...], new: Any, old: Tensor) -> None:
    """Refuse a value that could not stand where `old` stands.

    Raises:
        WriteError: not a tensor, another shape or device, or not floating-point (another precision is converted).
    """
    if not isinstance(new, Tensor):
        raise WriteError(f"{address} can only be replaced by a tensor, not {type(new).__name__}. To fill it with a "
                         f"number, write into it: `{address.split('.')[-1]}[:] = {new!r}`.")
    if new.shape != old.shape:
        raise WriteError(f"{address} has shape {shape_text(old, axes)}; the value written has {list(new.shape)}.")
    if not new.is_floating_point():
        raise WriteError(f"{address} holds {str(old.dtype).removeprefix('torch.')} numbers; the value written holds "
                         f"{str(new.dtype).removeprefix('torch.')}.")
    if new.device != old.device:
        raise WriteError(f"{address} lives on {old.device}; the value written is on {new.device}.")


def shape_text(tensor: Tensor, axes: tuple[str, ...]) -> str:
    """A shape with its axis names: `[batch 1, pos 7, d_model 64]`."""
    return "[" + ", ".join(f"{axis} {size}" for axis, size in zip(axes, tensor.shape, strict=False)) + "]"


def self_test() -> None:
    """Check that the installed nnsight still has what this file builds on.

    Raises:
        HooklabError: it does not; the message names the version.
    """
    import nnsight

    needed = ("handle", "check_dangling_mediators", "cancel", "reindex", "__enter__", "__exit__")
    fresh = Interleaver()
    missing = [name for name in needed if not hasattr(fresh, name)]
    missing += [name for name in ("parked", "counts", "busy", "mediators", "interleaving") if not hasattr(fresh, name)]
    if missing:
        raise HooklabError(f"nnsight {nnsight.__version__} lacks {', '.join(missing)}; hooklab needs nnsight>=0.8.1,<0.9.")
