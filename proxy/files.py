"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def write_whole(path: Path, content: bytes, *, like: os.stat_result | None = None) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one.

    Args:
        path: the file; not a symbolic link, which would be replaced.
        content: all of it.
        like: whose mode and owner the file gets. Default: those of any new file.

    Raises:
        OSError: it could not be written, or cannot have that owner; the old file is untouched.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = 0o666 if like is None else 0o600  # until it has its own, nobody else may read it
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            if like is not None:
                _adopt(stream.fileno(), like)
            os.fsync(stream.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _adopt(file: int, like: os.stat_result) -> None:
    mine = os.fstat(file)
    if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(file, like.st_uid, like.st_gid)
    os.fchmod(file, stat.S_IMODE(like.st_mode))
