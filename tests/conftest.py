"""What every test runs under: one thread, quiet libraries, nothing fetched."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def seeded():
    """A fixed seed for every test, and the process's own random state back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
