"""What a run ran in: Python, the platform, versions of packages, the state of the repository, seeds."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from ..errors import RecordError
from .digest import digest

PACKAGES = ("hooklab", "torch", "transformers", "nnsight", "numpy")
PATIENCE = 10.0
"""Seconds that git may take; a repository that takes longer is recorded without its state."""


def environment(folder: Path, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Where a run runs, as plain data.

    Args:
        folder: Of the code; the repository that holds it is recorded.
        packages: Modules that the code uses.
    """
    return {"python": platform.python_version(), "implementation": platform.python_implementation(),
            "platform": platform.platform(), "versions": versions(packages),
            "git": _recent(folder, int(time.monotonic())), "device": _device(),
            "host": socket.gethostname(), "pid": os.getpid(), "folder": str(Path.cwd()), "program": sys.argv[:1]}


def versions(modules: Iterable[str] = ()) -> dict[str, str]:
    """Versions of the packages that matter to every run, and of those that these modules belong to."""
    homes = _homes() if set(modules) - {*PACKAGES, *sys.stdlib_module_names} else {}
    names = [*PACKAGES, *(home for module in modules for home in homes.get(module, []))]
    return {name: found for name in dict.fromkeys(names) if (found := _version(name))}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@cache
def _homes() -> Mapping[str, list[str]]:
    return packages_distributions()


def git(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository around a folder, and whether files it tracks were changed; None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        if commit is None:
            return None
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return {"commit": commit.strip(), "dirty": None if changed is None else bool(changed.strip())}
    except subprocess.TimeoutExpired:
        return {"commit": None, "dirty": None}
    except OSError:  # no git
        return None


@lru_cache(maxsize=64)
def _recent(folder: Path, second: int) -> dict[str, Any] | None:
    """The same, looked at once a second."""
    return git(folder)


def _git(folder: Path, *words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=PATIENCE, check=False,
                          stdin=subprocess.DEVNULL, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
    return done.stdout if done.returncode == 0 else None


def _device() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {"threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype()).removeprefix("torch.")}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found |= {"cuda": torch.version.cuda, "name": torch.cuda.get_device_name()}
    return found


def random_states() -> dict[str, Any]:
    """The states of the sources of random numbers that a function may draw from."""
    import numpy as np

    found: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def random_hashes() -> dict[str, str]:
    """The hash of each state."""
    return {name: digest(str(state) if name == "python" else state) for name, state in random_states().items()}


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed inside: Python's, numpy's and torch's numbers; what was there before is there again afterwards."""
    if seed is None:
        yield
        return
    import numpy as np
    import torch

    before = random_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before["python"])
        np.random.set_state(before["numpy"])
        torch.set_rng_state(before["torch"])
        if "cuda" in before:
            torch.cuda.set_rng_state_all(before["cuda"])


def checked_seed(seed: Any) -> int | None:
    """A seed, or None. Raises RecordError for what is none."""
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63):
        return seed
    raise RecordError(f"a seed is a whole number from 0, not {seed!r}")


