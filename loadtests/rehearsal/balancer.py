"""The Service: connections to ready endpoints only, each told of late, as kube-proxy is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

PROPAGATION_S = 1.0
"""From a change of readiness until connections go elsewhere: EndpointSlice, watch, iptables."""

Endpoint = tuple[str, int, str]
"""Host, port, name of the pod."""


class Balancer:
    """Balances connections, knows nothing of calls. A port for every client tells them apart."""

    def __init__(self, clients: int) -> None:
        self.addresses: list[str] = []
        self._went: list[tuple[str, str]] = [("", "")] * clients
        self._endpoints: tuple[Endpoint, ...] = ()
        self._next = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(clients), self._loop).result(10)

    async def _start(self, clients: int) -> None:
        for index in range(clients):
            server = await asyncio.start_server(
                lambda r, w, index=index: self._connect(index, r, w), "127.0.0.1", 0
            )
            self._servers.append(server)
            self.addresses.append("{}:{}".format(*server.sockets[0].getsockname()))

    def set(self, endpoints: tuple[Endpoint, ...]) -> None:
        """These are ready: new connections go to them a little later."""
        self._loop.call_soon_threadsafe(
            self._loop.call_later, PROPAGATION_S, setattr, self, "_endpoints", endpoints
        )

    def pods_of(self, client: int) -> tuple[str, str]:
        """Where its last two connections went: a call can fail of one while the next is made."""
        return self._went[client]

    @property
    def ready(self) -> int:
        """How many endpoints get connections now."""
        return len(self._endpoints)

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _connect(
        self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        endpoints = self._endpoints
        if not endpoints:
            writer.close()
            return
        host, port, pod = endpoints[next(self._next) % len(endpoints)]
        self._went[index] = (self._went[index][1], pod)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
