"""A sidecar in this process, a model server that notes what reaches it, and calls to compare."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from proxy import configfile, rpc
from proxy.config import Config
from proxy.pb import open_inference_pb2 as pb
from proxy.server import Server

LIMIT_S = 10.0
"""Longest any single wait may take: generous, since a busy machine is no failure."""

UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Reply(NamedTuple):
    """All that a client can see of a unary call."""

    code: grpc.StatusCode
    details: str
    data: bytes
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]


async def ask(channel: grpc.aio.Channel, name: str, request: Any, **options: Any) -> Reply:
    """Call one of Triton's unary RPCs with a message or with bytes."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    call = channel.unary_unary(rpc.RPCS[name].path)(data, **{"timeout": LIMIT_S, **options})
    try:
        answer = await call
    except grpc.aio.AioRpcError:
        answer = b""
    code, details = await call.code(), await call.details()
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return Reply(code, details or "", answer, tuple(initial), tuple(trailing))


def open_stream(channel: grpc.aio.Channel, **options: Any) -> grpc.aio.StreamStreamCall:
    """Open ModelStreamInfer as bytes."""
    return channel.stream_stream(rpc.STREAM_INFER.path)(**{"timeout": LIMIT_S, **options})


async def check_health(channel: grpc.aio.Channel, service: str) -> int:
    """The state of a service; SERVICE_UNKNOWN where Check says NOT_FOUND."""
    request = health_pb2.HealthCheckRequest(service=service)
    call = health_pb2_grpc.HealthStub(channel).Check(request, timeout=LIMIT_S)
    if await call.code() is grpc.StatusCode.NOT_FOUND:
        return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    return (await call).status


async def until(condition: Callable[[], Awaitable[bool]], *, limit_s: float = LIMIT_S) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110 (what others do cannot set an event here)
            await asyncio.sleep(0.005)


@dataclass
class Running:
    """A sidecar in this process and a connection to it."""

    server: Server
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        return self.server.address

    async def in_flight(self) -> int:
        return (await self.server.status()).in_flight

    async def idle(self) -> None:
        async def is_idle() -> bool:
            return await self.in_flight() == 0

        await until(is_idle)

    async def busy(self, requests: int = 1) -> None:
        async def is_busy() -> bool:
            return await self.in_flight() == requests

        await until(is_busy)

    async def ready(self, *, wanted: bool = True) -> None:
        async def is_so() -> bool:
            return (await self.server.status()).ready is wanted

        await until(is_so)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with at least these labels."""
        _, body = await self.server.metrics()
        return sum(
            sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name == f"breakwater_{name}" and labels.items() <= sample.labels.items()
        )


@contextlib.asynccontextmanager
async def running(
    upstream: str, *, path: Path | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A started sidecar on free ports; `path` is a configuration file instead of settings."""
    where: dict[str, Any] = {
        **{"upstream": upstream, "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        # A drain that waits for nobody to go; test_drain.py has the others.
        **{"drain_delay_seconds": 0, "max_connection_age_s": 0},
    }
    if path is None:
        config = Config.model_validate({**where, **settings})
    else:
        config = configfile.load(path).model_copy(update=where)
    server = Server(config, path=path, overrides=where if path else None)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address, options=UNBOUNDED) as channel:
            yield Running(server, channel)
    finally:
        await server.stop(grace_s=0)


@dataclass
class Call:
    """One call as it reached the model server."""

    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    time_remaining: float | None
    data: bytes = b""
    """The request of a unary call."""
    messages: list[bytes] = field(default_factory=list)
    """The requests of a stream so far."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def values(self, key: str) -> list[str | bytes]:
        return [value for k, value in self.metadata if k == key]


Answerer = Callable[[Call, grpc.aio.ServicerContext], Awaitable[bytes]]
Streamer = Callable[[Call, grpc.aio.ServicerContext], Awaitable[None]]


class Recorder(grpc.GenericRpcHandler):
    """A real gRPC server in the model server's place that notes every call.

    `answers` and `stream` say how it answers; without them it is ready and its answers are empty.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, Answerer] = {}
        self.stream: Streamer | None = None
        self.arrived = asyncio.Condition()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        name = handler_call_details.method.rpartition("/")[2]
        metadata = tuple((m.key, m.value) for m in handler_call_details.invocation_metadata)

        async def unary(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            call = Call(name, metadata, context.time_remaining(), data)
            await self._note(call)
            try:
                if name in self.answers:
                    return await self.answers[name](call, context)
            except asyncio.CancelledError:
                call.cancelled.set()
                raise
            ready = name in ("ServerReady", "ModelReady", "ServerLive")
            return pb.ServerReadyResponse(ready=ready).SerializeToString()

        async def stream(_: object, context: grpc.aio.ServicerContext) -> None:
            call = Call(name, metadata, context.time_remaining())
            await self._note(call)
            try:
                if self.stream is not None:
                    await self.stream(call, context)
            except asyncio.CancelledError:
                call.cancelled.set()
                raise

        if name == rpc.STREAM_INFER.name:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _note(self, call: Call) -> None:
        async with self.arrived:
            self.calls.append(call)
            self.arrived.notify_all()

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.method == name]

    async def expect(self, name: str, count: int = 1) -> Call:
        """Wait until so many calls of an RPC have come; return the latest of them."""
        async with asyncio.timeout(LIMIT_S), self.arrived:
            await self.arrived.wait_for(lambda: len(self.of(name)) >= count)
        return self.of(name)[count - 1]


@contextlib.asynccontextmanager
async def serving(handler: grpc.GenericRpcHandler) -> AsyncIterator[str]:
    """A started gRPC server; yields its address."""
    server = grpc.aio.server(options=UNBOUNDED)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def recording() -> AsyncIterator[tuple[Recorder, str]]:
    """A started recorder and its address."""
    recorder = Recorder()
    async with serving(recorder) as address:
        yield recorder, address


class Relay:
    """A TCP relay to a server: counts what the server sends, and can hold it back."""

    def __init__(self, address: str) -> None:
        self.received = 0
        self.open = asyncio.Event()
        self.open.set()
        self.address = ""
        self._far = address.rpartition(":")[::2]

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._far)
        try:
            await asyncio.gather(self._up(reader, far_writer), self._down(far_reader, writer))
        except OSError:
            return  # one side has gone, and the other is told so
        finally:
            far_writer.close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.received += len(data)
            await self.open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def relayed(address: str) -> AsyncIterator[Relay]:
    """A started relay in front of a server."""
    relay = Relay(address)
    server = await asyncio.start_server(relay.connect, "127.0.0.1", 0, limit=65536)
    host, port = server.sockets[0].getsockname()
    relay.address = f"{host}:{port}"
    try:
        yield relay
    finally:
        server.close()
