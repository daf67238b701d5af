"""Upstream through shared memory: tensors are lent to Triton, and the message only says where.

Nothing but this process writes to the memory, and it holds what was in the client's message: what
was inspected is what Triton reads. Whatever goes wrong, requests travel inline, as without it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from proxy import rpc
from proxy.arena import PREFIX, Arena, Lease, sweep
from proxy.errors import ProxyError, UpstreamError, UpstreamUnavailable
from proxy.identity.settings import UpstreamTls
from proxy.pb import open_inference_pb2 as pb
from proxy.references import Places, can_move, places
from proxy.upstream import Answer, Metadata, Upstream
from proxy.wire import InferRequest

OUTCOMES = ("used", "inline_small", "inline_unsuitable", "full", "unregistered", "lost")
"""What may become of a request, for the metrics. inline_unsuitable: a sequence, typed values, its
own shared memory; lost, besides used: Triton no longer knew the memory, and got it inline too."""

MAX_KNOWN = 256
"""Most kinds of requests remembered, as in `proxy.reader`."""
MAX_HEAD_BYTES = 2048

RETRY_S, UNREACHABLE_RETRY_S = 30.0, 1.0
"""Pauses between attempts to register: after a refusal, and while Triton cannot be reached."""
_REGISTER_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Region:
    """An arena that Triton has mapped."""

    name: str
    arena: Arena


class HandoffUpstream(Upstream):
    """The connection to Triton, with memory lent to it.

    Args:
        address: host:port of Triton's gRPC endpoint.
        max_message_bytes: largest message either way.
        memory_bytes: size of the arena.
        hold_s: how long memory stays out of use after a call that ended without Triton's word:
            Triton may yet read it. An inference must not wait in Triton's queue for longer.
        least_bytes: smaller tensors travel inline.
        tls: how Triton is known; None: without TLS.
        new_arena: makes the memory.
    """

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int,
        memory_bytes: int,
        hold_s: float,
        least_bytes: int,
        tls: UpstreamTls | None = None,
        new_arena: Callable[[int], Arena] = Arena,
    ) -> None:
        super().__init__(address, max_message_bytes=max_message_bytes, tls=tls)
        self.counts = dict.fromkeys(OUTCOMES, 0)
        """Requests by outcome since the start."""
        self._memory_bytes = memory_bytes
        self._hold_s = hold_s
        self._least_bytes = least_bytes
        self._new_arena = new_arena
        self._region: Region | None = None
        self._known: dict[tuple[bytes, tuple[int, ...]], Places | str] = {}
        self._lost = asyncio.Event()
        self._warned = False

    @property
    def leased_bytes(self) -> int:
        """Memory in use now, or held back."""
        return 0 if self._region is None else self._region.arena.leased_bytes

    @property
    def is_registered(self) -> bool:
        """Whether Triton knows the memory, as far as we know."""
        return self._region is not None

    # -- requests --------------------------------------------------------------------------------

    async def infer(
        self,
        data: bytes,
        *,
        timeout_s: float | None,
        metadata: Metadata | None = None,
        request: InferRequest | None = None,
    ) -> Answer:
        """As `Upstream.infer`; the tensors through memory where that can be."""
        region = self._region
        if region is None:
            self.counts["unregistered"] += 1
            return await self.call(rpc.INFER.path, data, timeout_s=timeout_s, metadata=metadata)
        if request is None or request.data is not data:
            request = InferRequest.parse(data)
        lent = self._lend(region, request)
        if isinstance(lent, str):
            self.counts[lent] += 1
            return await self.call(rpc.INFER.path, data, timeout_s=timeout_s, metadata=metadata)
        self.counts["used"] += 1
        started_s = time.monotonic()
        try:
            return await self._ask(region, *lent, timeout_s, metadata)
        except UpstreamError as error:
            # Only a request whose memory was not found can be told of it: it was not executed.
            if region.name not in error.details:
                raise
        self._lose(region)
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - (time.monotonic() - started_s))
        return await self.call(rpc.INFER.path, data, timeout_s=timeout_s, metadata=metadata)

    async def _ask(
        self,
        region: Region,
        lease: Lease,
        message: bytes,
        timeout_s: float | None,
        metadata: Metadata | None,
    ) -> Answer:
        """Send the small message; the lease ends here, now or in time."""
        answered = False
        try:
            answer = await self.call(
                rpc.INFER.path, message, timeout_s=timeout_s, metadata=metadata
            )
            answered = True
            return answer
        except UpstreamError as error:
            answered = error.is_final
            raise
        finally:
            if answered:
                region.arena.release(lease)
            else:
                region.arena.hold(lease, self._hold_s)

    def _lend(self, region: Region, request: InferRequest) -> tuple[Lease, bytes] | str:
        """Copy the tensors to memory; the message that says where, or why that cannot be."""
        pieces = request.pieces
        key = request.common.data, tuple([piece.end - piece.start for piece in pieces])
        known = self._known.get(key)
        if known is None:
            known = self._learn(region, request, key)
        if isinstance(known, str):
            return known
        lease = region.arena.lend(known.byte_size)
        if lease is None:
            return "full"
        for index, offset in known.moved:
            region.arena.write(lease.offset + offset, pieces[index].view)
        return lease, known.message(lease.offset, pieces, request.request_id)

    def _learn(
        self, region: Region, request: InferRequest, key: tuple[bytes, tuple[int, ...]]
    ) -> Places | str:
        head, sizes = request.common, key[1]
        found: Places | str | None = "inline_unsuitable"
        if can_move(head):
            found = places(head, sizes, region.name, least_bytes=self._least_bytes)
        known = "inline_small" if found is None else found
        if len(head.data) <= MAX_HEAD_BYTES:
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = known
        return known

    # -- registration ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Register for the first time; where that fails, `run` goes on trying."""
        await self.register()

    async def run(self) -> None:
        """Keep the memory registered, until cancelled."""
        while True:
            if self._region is None:
                pause_s = await self.register()
            if self._region is not None:
                await self._lost.wait()
                continue
            await asyncio.sleep(pause_s)

    async def register(self) -> float:
        """Try to register memory once; returns how long to wait before another attempt, seconds.

        Always with memory of its own: what has been lent before may still be read.
        """
        try:  # before there is somebody to take it, memory would be made in vain every second
            live = pb.ServerLiveRequest().SerializeToString()
            await self.call(rpc.RPCS["ServerLive"].path, live, timeout_s=_REGISTER_TIMEOUT_S)
        except ProxyError:
            return UNREACHABLE_RETRY_S
        try:
            arena = await asyncio.to_thread(_arena, self._new_arena, self._memory_bytes)
        except OSError as error:
            self._warn(f"no shared memory of {self._memory_bytes} bytes: {error.strerror}")
            return RETRY_S
        name = f"{PREFIX}{secrets.token_hex(16)}"
        request = pb.SystemSharedMemoryRegisterRequest(
            name=name, key=arena.key, byte_size=arena.byte_size
        )
        try:
            await self.call(
                rpc.RPCS["SystemSharedMemoryRegister"].path,
                request.SerializeToString(),
                timeout_s=_REGISTER_TIMEOUT_S,
            )
        except UpstreamUnavailable:
            return UNREACHABLE_RETRY_S
        except ProxyError as error:
            self._warn(f"Triton refused it: {str(error).replace(arena.key, '...')}")
            return RETRY_S
        finally:
            # Triton has mapped it or never will: from here on no name leads to it.
            arena.unlink()
        self._known.clear()
        self._lost.clear()
        self._region = Region(name, arena)
        self._warned = False
        log.info("tensors go to Triton through %d bytes of shared memory", arena.byte_size)
        return 0.0

    def _lose(self, region: Region) -> None:
        """Triton does not know this memory any more: it is new, or was told to forget."""
        self.counts["lost"] += 1
        if self._region is region:
            self._region = None
            self._lost.set()

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "upstream_shared_memory: tensors go inline for now: %s. It needs a Triton on this "
                "machine that shares /dev/shm (size: upstream_shared_memory_mb for every worker), "
                "runs as the same user or root, and takes shared-memory requests from clients",
                why,
            )

    async def close(self) -> None:
        """Take the memory back where nothing may still read it, and close the connection.

        Triton unmaps it at once, also under an inference that reads it: with calls unaccounted for
        the memory stays mapped until Triton ends.
        """
        region, self._region = self._region, None
        if region is not None and not region.arena.leased_bytes:
            request = pb.SystemSharedMemoryUnregisterRequest(name=region.name)
            try:
                await self.call(
                    rpc.RPCS["SystemSharedMemoryUnregister"].path,
                    request.SerializeToString(),
                    timeout_s=_REGISTER_TIMEOUT_S,
                )
            except ProxyError as error:
                log.debug("cannot unregister: %s", error)
        await super().close()


def _arena(new_arena: Callable[[int], Arena], byte_size: int) -> Arena:
    sweep()
    return new_arena(byte_size)
