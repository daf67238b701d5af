"""Where the history is kept: arrays of this process, or of all workers of one supervisor.

It knows arrays, turns and who died in the middle of one; not what is in the arrays.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import mmap
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from proxy.history.memory_file import SECRET_BYTES

AT_ONCE_S = 0.0005
"""What the event loop waits for another worker's turn to end; a turn takes a quarter of this."""
WAIT_S = 0.02
"""What a request waits for its turn, while the event loop goes on with others."""

_NAP_S = 0.00005  # gives the processor to who has the turn, where there are few
_RETRY_S = 0.001  # what timers of an event loop can tell apart
_LAYOUT, _CAPACITY, _WRITING, _WORDS = slice(4, 6), 6, 7, 8


class ForeignLayoutError(Exception):
    """The file is laid out by another version of this program."""


class Memory:
    """Arrays of zeros in this process, whose turn it always is.

    Args:
        capacity: most queries remembered.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = capacity
        """The capacity in force: that of whoever was first."""
        self.secret = os.urandom(SECRET_BYTES)
        """Random, and known to all who share the memory."""
        self.repair: Callable[[], None] = lambda: None
        """Called in an exclusive turn that follows on one that did not come to its end."""

    def array(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of zeros, or what others have put there; all ask for the same in one order."""
        return np.zeros(shape, dtype)

    @contextlib.contextmanager
    def at_once(self, *, shared: bool = False, limit_s: float = AT_ONCE_S) -> Iterator[bool]:
        """A turn, if there is one without waiting for longer than this; whether it is one.

        Nobody else writes during a turn, nor reads if it is not a shared one.
        """
        yield True

    @contextlib.asynccontextmanager
    async def turn(self, *, shared: bool = False, limit_s: float = WAIT_S) -> AsyncIterator[bool]:
        """The same, for who can wait; in the turn there must be no waiting for anything."""
        yield True


class WorkerMemory(Memory):
    """Arrays in a file that other processes have as well (`memory_file`), and turns at them.

    A turn is a lock of the file: the kernel takes it back from a process that dies. A word in the
    file says that an exclusive turn has begun and not ended; whoever comes next then repairs.

    Args:
        file: a descriptor of the file, which is closed.
        layout: what the arrays are; another text means other arrays.
        capacity: for whoever comes first.

    Raises:
        ForeignLayoutError: the file is laid out for others, or somebody keeps its lock.
    """

    def __init__(self, file: int, layout: str, capacity: int) -> None:
        super().__init__(capacity)
        # Opened anew: a lock belongs to what was opened, and all workers inherit the same.
        self._file = os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
        os.close(file)
        weakref.finalize(self, os.close, self._file)
        self._end = 0
        self._words = self.array(_WORDS, np.uint64)
        self.secret = os.pread(self._file, SECRET_BYTES, 0)
        name = hashlib.blake2b(layout.encode(), digest_size=16).digest()
        with self.at_once(limit_s=1.0) as mine:
            if mine and not self._words[_CAPACITY]:
                self._words[_LAYOUT] = np.frombuffer(name, np.uint64)
                self._words[_CAPACITY] = capacity
            is_ours = mine and self._words[_LAYOUT].tobytes() == name
        if not is_ours:
            raise ForeignLayoutError
        self.capacity = int(self._words[_CAPACITY])

    def array(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The next array of the file."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape))
        length = max(1, count * kind.itemsize)
        pages = mmap.mmap(self._file, length, offset=self._end)
        self._end += -(-length // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return np.frombuffer(pages, kind, count).reshape(shape)

    @contextlib.contextmanager
    def at_once(self, *, shared: bool = False, limit_s: float = AT_ONCE_S) -> Iterator[bool]:
        """A turn, unless another worker's lasts for longer than this."""
        deadline = time.monotonic() + limit_s
        while not (mine := self._lock(shared)) and time.monotonic() < deadline:
            time.sleep(_NAP_S)
        with self._ended(mine, shared):
            yield mine

    @contextlib.asynccontextmanager
    async def turn(self, *, shared: bool = False, limit_s: float = WAIT_S) -> AsyncIterator[bool]:
        """A turn, unless the others' last for longer than this."""
        deadline = time.monotonic() + limit_s
        mine = self._lock(shared)
        if not mine:
            time.sleep(_NAP_S)  # noqa: ASYNC251 (far shorter than a timer's least wait)
            mine = self._lock(shared)
        while not mine and time.monotonic() < deadline:
            await asyncio.sleep(_RETRY_S)
            mine = self._lock(shared)
        with self._ended(mine, shared):
            yield mine

    def _lock(self, shared: bool) -> bool:
        """Begin a turn if nobody has one that forbids it."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            if self._words[_WRITING]:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.repair()
                self._words[_WRITING] = 0
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            return False
        if not shared:
            self._words[_WRITING] = 1
        return True

    @contextlib.contextmanager
    def _ended(self, mine: bool, shared: bool) -> Iterator[None]:
        """End the turn; what was left half-way by an error is for the next to repair."""
        try:
            yield
            if mine and not shared:
                self._words[_WRITING] = 0
        finally:
            if mine:
                fcntl.flock(self._file, fcntl.LOCK_UN)
