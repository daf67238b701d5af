"""When an answer may leave, so that how long it took does not tell its verdict.

A purified request takes another call to the model server, and whoever measures can tell. Rounding
the time of every answer up to a multiple of one quantum leaves a caller log2(multiples) bits; where
both ways end within the first, none (Köpf and Dürmuth, "A provably secure and efficient
countermeasure against timing attacks", CSF 2009, section 4).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
import time

_SEND_S = 0.005
"""What an answer needs to reach a client before its deadline."""


def wait_s(arrival_s: float, now_s: float, quantum_s: float, deadline_s: float | None) -> float:
    """How long to hold an answer that is ready.

    Args:
        arrival_s: when its request came.
        now_s: the time, on the same clock.
        quantum_s: over 0. Answers leave at multiples of it after the arrival.
        deadline_s: the client's; an answer leaves in time for it, whatever the verdict.

    Returns:
        Seconds, at least 0.
    """
    taken = math.ceil((now_s - arrival_s) / quantum_s)
    leaves_s = arrival_s + max(1, taken) * quantum_s
    if deadline_s is not None:
        leaves_s = min(leaves_s, deadline_s - _SEND_S)
    return max(0.0, leaves_s - now_s)


class Pacer:
    """Wakes coroutines to a tenth of a millisecond.

    The event loop's own timers count whole milliseconds from when they are set: what is left over
    of the time that an answer took would still be there when it leaves. A thread's wait is finer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._count = itertools.count()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def sleep_until(self, at_s: float) -> None:
        """Return at a time of `time.monotonic`, or soon after."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)
                self._thread.start()
            heapq.heappush(self._waiting, (at_s, next(self._count), loop, woken))
            if self._waiting[0][3] is woken:
                self._changed.notify()
        await woken

    def close(self) -> None:
        """End the thread; who still waits is not woken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                left_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                _, _, loop, woken = heapq.heappop(self._waiting)
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_wake, woken)


_Waiting = tuple[float, int, asyncio.AbstractEventLoop, "asyncio.Future[None]"]


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():  # whoever waited may have gone
        woken.set_result(None)
