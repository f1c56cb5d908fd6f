"""The random state of the process: kept while something runs, set where it is asked to be."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """The state of Python's, numpy's and torch's random numbers is afterwards what it was before, errors included."""
    torch: Any = sys.modules.get("torch")
    python, legacy = random.getstate(), np.random.get_state()
    with contextlib.ExitStack() as stack:
        if torch is not None:
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def start(seed: int) -> None:
    """Start all of them from a seed below 2^32; torch only where it is in use."""
    random.seed(seed)
    np.random.seed(seed)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
