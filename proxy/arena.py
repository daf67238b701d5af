"""A piece of POSIX shared memory that only this process writes, lent out range by range.

Knows nothing of Triton. A range is lent again only after its lease has ended: whoever was told of
it may read it until then, and must find what was written for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from proxy.fields import Buffer

PREFIX = "breakwater-"
"""How the names of our objects, and of the regions made of them, begin."""

FOLDER = Path("/dev/shm")  # noqa: S108 (where Linux keeps POSIX shared memory)
ALIGNMENT = 64
"""Bytes; a cache line, and what vector instructions of a backend may ask of a tensor."""


class Lease(NamedTuple):
    """A range of an arena that is in use."""

    offset: int
    byte_size: int


class Arena:
    """Shared memory with a name, until `unlink`, under which another process may map it.

    Mode 0600: the other process needs the same user id, or root with its usual capabilities.

    Args:
        byte_size: rounded up to whole pages; taken from the system at once, so that a /dev/shm
            that is too small is an error here and not a signal on the first write.
        folder: where the object is made.
        clock: seconds, for the leases that end with time.

    Raises:
        OSError: there is not so much shared memory, or no such folder.
    """

    def __init__(
        self,
        byte_size: int,
        *,
        folder: Path = FOLDER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.byte_size = -(-byte_size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._clock = clock
        self._path, self._handle = _create(folder)
        try:
            os.posix_fallocate(self._handle, 0, self.byte_size)
            memory = mmap.mmap(self._handle, self.byte_size)
        except OSError:
            self.unlink()
            raise
        self._view = memoryview(memory)
        self._free = [Lease(0, self.byte_size)]
        self._held: deque[tuple[float, Lease]] = deque()

    @property
    def key(self) -> str:
        """The object's name, as shm_open(3) takes it."""
        return f"/{self._path.name}"

    @property
    def leased_bytes(self) -> int:
        """How much is not to be lent now."""
        self._release_held()
        return self.byte_size - sum(piece.byte_size for piece in self._free)

    def lend(self, byte_size: int) -> Lease | None:
        """A range of at least so many bytes, the lowest there is; None where none is free.

        The lowest, since what was used last is still in the processor's caches.
        """
        self._release_held()
        wanted = aligned(byte_size)
        for index, (offset, size) in enumerate(self._free):
            if size >= wanted:
                if size == wanted:
                    del self._free[index]
                else:
                    self._free[index] = Lease(offset + wanted, size - wanted)
                return Lease(offset, wanted)
        return None

    def write(self, offset: int, data: Buffer) -> None:
        """Copy `data` to a place inside a lease."""
        self._view[offset : offset + len(data)] = data

    def release(self, lease: Lease) -> None:
        """Nobody will read this range any more."""
        offset, size = lease
        at = bisect(self._free, lease)
        if at < len(self._free) and self._free[at].offset == offset + size:
            size += self._free.pop(at).byte_size
        if at and sum(self._free[at - 1]) == offset:
            at -= 1
            before = self._free.pop(at)
            offset, size = before.offset, size + before.byte_size
        self._free.insert(at, Lease(offset, size))

    def hold(self, lease: Lease, seconds: float) -> None:
        """Somebody may still read this range: release it after this time, the same for all."""
        self._held.append((self._clock() + seconds, lease))

    def _release_held(self) -> None:
        while self._held and self._held[0][0] <= self._clock():
            self.release(self._held.popleft()[1])

    def unlink(self) -> None:
        """Take the name away; whoever has mapped the memory keeps it."""
        self._path.unlink(missing_ok=True)
        if self._handle >= 0:
            os.close(self._handle)  # and with it the lock that kept `sweep` off
            self._handle = -1


def aligned(byte_size: int) -> int:
    """The size rounded up to the alignment."""
    return -(-byte_size // ALIGNMENT) * ALIGNMENT


def sweep(folder: Path = FOLDER) -> int:
    """Remove the objects whose process has died; returns how many.

    Every living one holds a lock on its object. A process id would not tell: containers that share
    the folder need not share the ids.
    """
    removed = 0
    for path in folder.glob(f"{PREFIX}*"):
        # Another user's objects cannot be opened, and one that is gone by now need not be.
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            finally:
                os.close(handle)
    return removed


def _create(folder: Path) -> tuple[Path, int]:
    """A new object that nobody else knows, locked."""
    while True:
        path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return path, handle
        except BlockingIOError:
            pass  # `sweep` of another process got in between, and removes it
        os.close(handle)
