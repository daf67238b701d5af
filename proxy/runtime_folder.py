"""The supervisor's private folder of sockets and metrics, and what is left of those before it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "breakwater-"
_LOCK = "supervisor.lock"
"""Locked for as long as the folder's supervisor lives: the kernel sees to that."""


@contextlib.contextmanager
def runtime_folder(root: Path | None = None) -> Iterator[Path]:
    """A folder that only this user can read, gone in the end.

    Those of supervisors that were killed are removed first.

    Args:
        root: where. Default: the system's folder for temporary files.
    """
    root = root or Path(tempfile.gettempdir())
    _sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    (folder / "metrics").mkdir()
    unlocked = folder / f"{_LOCK}.new"
    try:
        with unlocked.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unlocked.rename(folder / _LOCK)  # locked from the first moment it has this name
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    for lock in root.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # somebody else's, or in use
            if lock.parent.lstat().st_uid != os.geteuid():
                continue
            with lock.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log.info("removing %s, whose supervisor was killed", lock.parent)
                shutil.rmtree(lock.parent, ignore_errors=True)
