"""Watches Triton: completes the defences when it can, and keeps the health answers true."""

from __future__ import annotations

import asyncio
import logging

from grpc_health.v1 import health, health_pb2

from proxy import rpc
from proxy.defences import Defences
from proxy.errors import ProxyError, UpstreamError
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Upstream

_TICK_S = 1.0
_ASK_TIMEOUT_S = 2.0
_REFRESH_TICKS = 30
"""How often a healthy Triton is asked again for its models' descriptions, in ticks."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

LIVENESS, READINESS = "liveness", "readiness"

log = logging.getLogger(__name__)


class Monitor:
    """One loop that asks Triton how it is, and tells the health service.

    Services of `grpc.health.v1`: "", `readiness` and the inference service (ready to take
    requests: Triton is ready and every configured model it serves can be scored), `liveness` (this
    process), and each configured model by name.

    Args:
        upstream: Triton.
        defences: completed as Triton describes its models; assign anew on reload.
    """

    def __init__(self, upstream: Upstream, defences: Defences) -> None:
        self.servicer = health.aio.HealthServicer()
        self._upstream = upstream
        self._defences = defences
        self._ready = False
        self._draining = False
        self._stale = True
        self._wake = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self._ready and not self._draining

    def use(self, defences: Defences) -> None:
        """Watch these defences from now on."""
        self._defences = defences
        self._stale = True
        self._wake.set()

    async def drain(self) -> None:
        """Answer NOT_SERVING to everything but `liveness`, for good."""
        self._draining = True
        await self._publish(models={})

    async def run(self) -> None:
        """Tick until cancelled."""
        ticks = 0
        while not self._draining:
            self._wake.clear()
            await self.tick(refresh=ticks % _REFRESH_TICKS == 0)
            ticks += 1
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def tick(self, *, refresh: bool = False) -> None:
        """Ask Triton once and publish what follows."""
        upstream_ready = await self._ask(
            "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse
        )
        if not upstream_ready:
            self._stale = True  # it may come back with other models
        unready = any(not d.is_ready for d in self._defences.models())
        if upstream_ready and (refresh or self._stale or unready):
            try:
                await self._defences.refresh(self._upstream)
                self._stale = False
            except ProxyError as error:
                log.debug("cannot ask about the models: %s", error)
        models = {}
        for defence in self._defences.models():
            served = upstream_ready and await self._ask(
                "ModelReady", pb.ModelReadyRequest(name=defence.name), pb.ModelReadyResponse
            )
            models[defence.name] = (served, served and defence.is_ready)
        # A configured model that Triton does not serve must not keep the others from being served.
        ready = upstream_ready and all(able for served, able in models.values() if served)
        if ready != self._ready:
            log.info("ready" if ready else "not ready")
        self._ready = ready
        await self._publish({name: able for name, (_, able) in models.items()})

    async def _ask(
        self,
        name: str,
        request: pb.ServerReadyRequest | pb.ModelReadyRequest,
        response: type[pb.ServerReadyResponse] | type[pb.ModelReadyResponse],
    ) -> bool:
        try:
            answer = await self._upstream.call(
                rpc.RPCS[name].path, request.SerializeToString(), timeout_s=_ASK_TIMEOUT_S
            )
        except UpstreamError as error:
            log.debug("%s: %s", name, error)
            return False
        except ProxyError:
            return False
        return response.FromString(answer.data).ready

    async def _publish(self, models: dict[str, bool]) -> None:
        state = _SERVING if self.is_ready else _NOT_SERVING
        for service in ("", READINESS, rpc.SERVICE):
            await self.servicer.set(service, state)
        await self.servicer.set(LIVENESS, _SERVING)
        for defence in self._defences.models():
            able = models.get(defence.name, False) and not self._draining
            await self.servicer.set(defence.name, _SERVING if able else _NOT_SERVING)
