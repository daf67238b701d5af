"""`grpc.health.v1`: Check and Watch over one table of states.

The servicer of grpcio-health-checking is not used: when one of two watchers of a service leaves,
the other is never told anything again, and a watcher that does not read holds up whoever sets a
state (read in its 1.67.1 and confirmed by tests/proxy/test_health.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

MAX_WATCHERS = 1024
"""Watch streams at a time; each holds a connection's stream for as long as its client likes."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped in grpcio
    """Answers from the last table published; before the first one, no service is known."""

    def __init__(self) -> None:
        self._states: Mapping[str, bool] = {}
        self._changed: set[asyncio.Event] = set()
        self._closed = False

    def publish(self, states: Mapping[str, bool]) -> None:
        """Replace the table: whether each service is serving. Watchers are told what changed."""
        self._states = dict(states)
        self._wake()

    def close(self) -> None:
        """End every Watch, after it has sent its last state: a stopping server waits for them."""
        self._closed = True
        self._wake()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The state of a service; NOT_FOUND for one that is not known."""
        state = self._state(request.service)
        if state == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """The state of a service now and whenever it changes; SERVICE_UNKNOWN is a state too."""
        if len(self._changed) >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers")
        changed = asyncio.Event()
        self._changed.add(changed)
        last = None
        try:
            while True:
                # Cleared before the look, so that a change during the write is not missed.
                changed.clear()
                is_last = self._closed
                state = self._state(request.service)
                if state != last:
                    last = state
                    await context.write(health_pb2.HealthCheckResponse(status=state))
                if is_last:
                    return
                await changed.wait()
        finally:
            self._changed.discard(changed)

    def _state(self, service: str) -> int:
        serving = self._states.get(service)
        if serving is None:
            return int(_UNKNOWN)
        return int(_SERVING if serving else _NOT_SERVING)

    def _wake(self) -> None:
        for changed in self._changed:
            changed.set()
