"""What commands that open a model have in common: `--dtype`, `--device`, and words where these are wrong."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..errors import HooklabError


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--dtype` and `--device`."""
    parser.add_argument("--dtype", help="load the weights as float32, bfloat16 or float16")
    parser.add_argument("--device", help="where to put the model, e.g. cuda")


def opened(options: argparse.Namespace, name: str, line: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """The model as the options say, or as the line of a spec does where they are silent.

    Raises:
        HooklabError: there is no such dtype, device or model.
    """
    line = line or {}
    chosen = {"dtype": _dtype(options.dtype or line.get("dtype")), "device": _device(options.device or line.get("device"))}
    from ..model.load import load

    return load(name, **{**line, **chosen, **more})


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise HooklabError(f'There is no dtype "{name}" to load as; choose {", ".join(known)}.')
    return known[name]


def _device(name: str | None) -> Any:
    """A device on which a tensor can be made, so that a wrong one is known before a model is loaded."""
    if name is None:
        return None
    import torch

    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HooklabError(f'There is no device "{name}" here: {reason}') from error
