"""Answers that their clients have not taken yet.

HTTP/2 lets a client say how much it takes, which may be nothing. By then the request holds no
permit any more, and gRPC keeps the answer for as long as the connection lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_CALL_BYTES = 20_000
"""What gRPC keeps of a call that has not ended, beside its message."""
_STALE_S = 1.0
"""A client is slow when the oldest of its answers has waited so long, seconds."""


@dataclass(slots=True)
class _Peer:
    bytes: int = 0
    since_s: dict[object, float] = field(default_factory=dict)
    """When each of its answers was given to gRPC; the oldest comes first."""


class Untaken:
    """Counts one process's answers on their way, and ends connections that leave too many there.

    Past half of the capacity the slowest client's connection is ended; past the whole, which only
    answers of the last second can fill, `is_full` says so.

    Args:
        capacity: bytes of all answers together.
        end: ends the connection of a peer; says whether there was one.
        on_end: called for each connection ended.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        capacity: int,
        end: Callable[[str], bool],
        *,
        on_end: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._end = end
        self._on_end = on_end
        self._clock = clock
        self._peers: dict[str, _Peer] = {}
        self.bytes = 0
        """Of all answers, and of the calls that they belong to."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more answer."""
        return self.bytes > self._capacity

    def until_done(self, peer: str, size: int) -> None:
        """Count the answer of the current task, gRPC's for this call, until the task has ended.

        It ends when the answer has been taken, or nobody is there to take it.
        """
        task = asyncio.current_task()
        if task is not None:
            self._add(peer, task, size)
            task.add_done_callback(lambda _: self._remove(peer, task, size))

    @contextlib.contextmanager
    def sending(self, peer: str, size: int) -> Iterator[None]:
        """Count one message of a stream."""
        message = object()
        self._add(peer, message, size)
        try:
            yield
        finally:
            self._remove(peer, message, size)

    def look(self) -> None:
        """End the connection of the slowest client where half of the capacity is used."""
        if self.bytes > self._capacity // 2:
            self.give_way()

    def give_way(self) -> None:
        """End the connection with the most bytes among those that are slow, if there is one."""
        late_s = self._clock() - _STALE_S
        slow = [item for item in self._peers.items() if _oldest_s(item[1]) <= late_s]
        slow.sort(key=lambda item: item[1].bytes, reverse=True)
        for name, left in slow:
            if self._end(name):
                self._on_end()
                log.warning(
                    "ended the connection of %s: it left %d answers, %.1f MiB, untaken "
                    "(inflow.max_untaken_bytes)",
                    *(name, len(left.since_s), left.bytes / 2**20),
                )
                return

    def _add(self, name: str, answer: object, size: int) -> None:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer()
        peer.since_s[answer] = self._clock()
        peer.bytes += size + _CALL_BYTES
        self.bytes += size + _CALL_BYTES

    def _remove(self, name: str, answer: object, size: int) -> None:
        peer = self._peers[name]
        del peer.since_s[answer]
        peer.bytes -= size + _CALL_BYTES
        self.bytes -= size + _CALL_BYTES
        if not peer.since_s:
            del self._peers[name]


def _oldest_s(peer: _Peer) -> float:
    return next(iter(peer.since_s.values()))
