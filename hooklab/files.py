"""Files that appear whole or not at all: written beside their place, brought to the disk, then given their name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, replace: bool = False) -> Path:
    """Write a file; one that is there already stays as it is unless `replace`, even if it appeared just now.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(path.stat().st_mode & 0o777 if replace and path.exists() else 0o666 & ~_mask())
        _name(part, path, replace)
    finally:
        part.unlink(missing_ok=True)
    return path


def _name(part: Path, path: Path, replace: bool) -> None:
    if replace:
        part.replace(path)
        return
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(17, "File exists", str(path)) from None
        part.replace(path)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
