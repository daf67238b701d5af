"""What goes on while a fault lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from proxy.tasks import Tasks


@contextlib.asynccontextmanager
async def again_and_again(*steps: tuple[Callable[[], None], float]) -> AsyncIterator[None]:
    """Take the steps in turn, each followed by its pause in seconds, until the end."""

    async def run() -> None:
        while True:
            for step, pause_s in steps:
                step()
                await asyncio.sleep(pause_s)

    tasks = Tasks()
    tasks.start(run())
    try:
        yield
    finally:
        await tasks.stop()


async def until(is_so: Callable[[], bool], limit_s: float) -> bool:
    """Wait until something is so, at most this long; whether it is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not is_so():  # noqa: ASYNC110 (a process elsewhere makes it so)
                await asyncio.sleep(0.05)
    return is_so()
