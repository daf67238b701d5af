"""Watches Triton: completes the defences when it can, and keeps the health answers true."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from proxy import rpc
from proxy.defences import Defences
from proxy.errors import ProxyError, UpstreamError
from proxy.health import HealthServicer
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Upstream

_TICK_S = 1.0
_ASK_TIMEOUT_S = 2.0
_RENEW_AFTER = 3
"""So many questions in a row that nobody answered, and the next ones take a new connection."""
_REFRESH_TICKS = 30
"""How often a healthy Triton is asked again for its models' descriptions, in ticks."""

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
        on_upstream: told at every tick whether Triton says that it is ready.
    """

    def __init__(
        self, upstream: Upstream, defences: Defences, on_upstream: Callable[[bool], None]
    ) -> None:
        self.health = HealthServicer()
        """Serves what this loop finds out."""
        self._upstream = upstream
        self._defences = defences
        self._on_upstream = on_upstream
        self._models: dict[str, bool] = {}
        self._ready = False
        self._draining = False
        self._stale = True
        self._unanswered = 0
        self._alive = True
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

    def is_alive(self) -> bool:
        """Whether this process can go on; where it cannot, it is to be replaced."""
        return self._alive

    def live(self, alive: bool) -> None:
        """Say whether it can."""
        if alive is not self._alive:
            self._alive = alive
            self._publish()

    def drain(self) -> None:
        """Answer NOT_SERVING to everything but `liveness`, for good."""
        self._draining = True
        self._publish()
        self._wake.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        ticks = 0
        while not self._draining:
            self._wake.clear()
            try:
                await self.tick(refresh=ticks % _REFRESH_TICKS == 0)
            # A loop that ended here would leave the last answer standing for good.
            except Exception:
                log.exception("cannot tell how the model server is")
                self._on_upstream(False)
                self._ready = False
                self._publish()
            ticks += 1
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def tick(self, *, refresh: bool = False) -> None:
        """Ask Triton once and publish what follows."""
        await self._defences.rotate()
        upstream_ready = await self._ask(
            "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse
        )
        self._on_upstream(upstream_ready)
        if not upstream_ready:
            self._stale = True  # it may come back with other models
        unready = any(not d.is_ready for d in self._defences.models())
        if upstream_ready and (refresh or self._stale or unready):
            try:
                await self._defences.refresh(self._upstream)
                self._stale = False
            except ProxyError as error:
                log.debug("cannot ask about the models: %s", error)
                upstream_ready = False
        defences = self._defences.models()
        served_by_triton = [False] * len(defences)
        if upstream_ready:  # all at once: a Triton that hangs must not be found out one by one
            served_by_triton = await asyncio.gather(*(self._serves(d.name) for d in defences))
        models = {
            defence.name: (served, served and defence.is_ready)
            for defence, served in zip(defences, served_by_triton, strict=True)
        }
        # A configured model that Triton does not serve must not keep the others from being served.
        ready = upstream_ready and all(able for served, able in models.values() if served)
        if ready != self._ready:
            log.info("ready" if ready else "not ready")
        self._ready = ready
        self._models = {name: able for name, (_, able) in models.items()}
        self._publish()

    async def _serves(self, model: str) -> bool:
        return await self._ask(
            "ModelReady", pb.ModelReadyRequest(name=model), pb.ModelReadyResponse
        )

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
            self._unanswered = 0
            return response.FromString(answer.data).ready
        except (ProxyError, DecodeError) as error:
            log.debug("%s: %s", name, error)
            self._note(error)
            return False

    def _note(self, error: Exception) -> None:
        """A question that nobody answers may have gone into a connection that is dead."""
        if not isinstance(error, UpstreamError) or error.code_name != "DEADLINE_EXCEEDED":
            self._unanswered = 0  # refused, lost or answered: the connection tells
            return
        self._unanswered += 1
        if self._unanswered >= _RENEW_AFTER:
            self._unanswered = 0
            log.warning("the model server does not answer: trying a new connection")
            self._upstream.renew()

    def _publish(self) -> None:
        models = {name: able and not self._draining for name, able in self._models.items()}
        ours = dict.fromkeys(("", READINESS, rpc.SERVICE), self.is_ready)
        # Ours last: a model called `liveness` must not answer for this process.
        self.health.publish({**models, **ours, LIVENESS: self._alive})
