"""One connection to Redis or Valkey, shared by all calls and kept up in the background.

Calls go out as they come and their answers return in order, so that a call nobody waits for any
more costs no connection. While the server is away, slow or refusing, calls fail at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from proxy.errors import ConfigError
from proxy.history.access import CONNECT_S, Access, connections, password
from proxy.tasks import Tasks

log = logging.getLogger(__name__)

PATIENCE = 3
"""So many calls in a row without an answer in time and the server counts as slow."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
"""Between attempts to reach the server again, doubling from the first to the longest; also after
being in touch for less than the longest, so that a server that is slow under load is left alone."""
_TRIES = 3  # of a probe: the first one on a connection also makes the server compile the script

Argument = str | bytes | int | float


class Unreachable(Exception):
    """There is no connection, or it was lost before the answer came."""


class Script:
    """A Lua script and the digest the server knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """A connection that comes back by itself.

    Args:
        access: where the server is and what opens it.
        probe: a call that works when everything does; made before calls are let through again.
        prompt_s: seconds within which the probe must be answered.
    """

    def __init__(
        self, access: Access, *, probe: Callable[[], Awaitable[Any]], prompt_s: float
    ) -> None:
        self._access = access
        self._probe = probe
        self._prompt_s = prompt_s
        self._pool = connections(access)
        self._connection: AbstractConnection | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._tasks = Tasks()
        self._reading: asyncio.Task[None] | None = None
        self._failures = 0
        self._trouble = asyncio.Event()
        self._tried = asyncio.Event()
        self.up = asyncio.Event()
        """Set while calls are let through."""
        self.reason = "unreachable"
        """Why they are not: unreachable, timeout or error."""

    async def start(self) -> None:
        """Begin to connect; returns after the first attempt, whatever came of it."""
        self._tasks.start(self._keep_up())
        await self._tried.wait()

    async def close(self) -> None:
        """Drop the connection and stop."""
        self.up.clear()
        await self._tasks.stop()
        await self._drop()

    async def call(self, *command: Argument) -> Any:
        """The answer to one command.

        Raises:
            Unreachable: there is no connection, or it was lost.
            ResponseError: the server refused.
        """
        connection = self._connection
        if connection is None or not connection.is_connected:  # it would connect by itself
            raise Unreachable(self.reason)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        try:
            # It writes before it waits for anything: the order here is the order on the wire.
            await connection.send_packed_command(
                connection.pack_command(*command), check_health=False
            )
        except (RedisError, OSError) as error:
            await self._drop()
            raise Unreachable(str(error)) from error
        return await answer

    async def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """What a script returns; it is sent whole only to a server that does not have it."""
        try:
            return await self.call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *arguments)

    async def leave(self) -> None:
        """Drop the connection; another one is made, to whatever the name stands for by then."""
        await self._drop()

    def worked(self) -> None:
        """A call was answered in time."""
        self._failures = 0

    def failed(self, reason: str) -> None:
        """A call was not answered in time, or refused; after `PATIENCE` in a row none is made."""
        self._failures += 1
        if self._failures >= PATIENCE:
            self._down(reason)

    def _down(self, reason: str) -> None:
        if self.up.is_set():
            log.warning("shared history: %s; going on without it", reason)
        self.up.clear()
        self.reason = reason
        self._trouble.set()

    async def _keep_up(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                prompt = await self._attempt()
            except (ResponseError, AuthenticationError, ConfigError) as error:
                await self._refused(error)
            except (RedisError, Unreachable, OSError, ValueError) as error:
                await self._drop()
                self._note("unreachable", error)
            else:
                if not prompt:
                    self._note("timeout", None)
                elif await self._serve() >= LONGEST_PAUSE_S:
                    pause_s = FIRST_PAUSE_S
                    continue
            self._tried.set()
            # Replicas that lost the same server do not all come back in the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.3))  # noqa: S311
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(self) -> bool:
        """Connect if there is no connection, and probe; whether the answer was prompt."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            if self._connection is None:
                await self._connect()
            for _ in range(_TRIES):
                started_s = loop.time()
                await self._probe()
                if loop.time() - started_s <= self._prompt_s:
                    return True
        return False

    async def _serve(self) -> float:
        """Let calls through until there is trouble; for how many seconds that was."""
        started_s = asyncio.get_running_loop().time()
        self._failures = 0
        self._trouble.clear()
        self.up.set()
        self._tried.set()
        log.info("shared history: in touch")
        await self._trouble.wait()
        return asyncio.get_running_loop().time() - started_s

    async def _connect(self) -> None:
        if self._access.password_file is not None:
            self._pool.connection_kwargs["password"] = password(self._access.password_file)
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        self._reading = self._tasks.start(self._read(connection))

    async def _read(self, connection: AbstractConnection) -> None:
        """Hand each answer to the call that is first in the line."""
        try:
            while True:
                try:
                    answer: Any = await connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    answer = error
                future = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(answer, ResponseError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (RedisError, OSError, IndexError) as error:
            log.debug("shared history: connection lost: %s", error)
            if connection is self._connection:
                await self._drop()

    def _abandon(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(Unreachable("the connection was lost"))
                future.exception()  # marks it as seen: whoever waited may be gone

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._abandon()
        self._down("unreachable")
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        with contextlib.suppress(RedisError, OSError):
            await connection.disconnect(nowait=True)

    async def _refused(self, error: Exception) -> None:
        if isinstance(error, MovedError):  # a cluster says which of its nodes has our keys
            self._pool.connection_kwargs.update(host=error.host, port=error.port)
            await self._drop()
        elif isinstance(error, ReadOnlyError):  # a primary that was demoted: its name is another's
            await self._drop()
        self._note("error", error)

    def _note(self, reason: str, error: Exception | None) -> None:
        if not self._tried.is_set():
            log.warning("shared history: %s (%s); going on without it", reason, error)
        self.reason = reason
