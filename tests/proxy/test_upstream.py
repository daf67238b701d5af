from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from proxy.errors import UpstreamError, UpstreamUnavailable
from proxy.rpc import RPCS
from proxy.upstream import Answer, Upstream
from tests.proxy.running import LIMIT_S, Call, Recorder, recording, serving, until

INFER, STREAM = RPCS["ModelInfer"].path, RPCS["ModelStreamInfer"].path


@pytest.fixture
async def upstream(recorder: tuple[Recorder, str]) -> AsyncIterator[Upstream]:
    upstream = Upstream(recorder[1], max_message_bytes=1_000_000)
    yield upstream
    await upstream.close()


async def test_an_answer_is_its_bytes_and_metadata(
    upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def answer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last-bin", b"\x00"),))
        return b"\xff" + call.data

    recorder[0].answers["ModelInfer"] = answer
    got = await upstream.call(INFER, b"\x00data", timeout_s=3, metadata=(("x-a", "b"),))
    assert got == Answer(b"\xff\x00data", (("x-first", "1"),), (("x-last-bin", b"\x00"),))
    call = recorder[0].calls[0]
    assert call.values("x-a") == ["b"]
    assert call.time_remaining is not None
    assert 0 < call.time_remaining < 3.1


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
async def test_a_status_becomes_an_error_with_everything_in_it(
    code: grpc.StatusCode, upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(code, "why", (("x-more", "1"),))
        return b""

    recorder[0].answers["ModelInfer"] = fail
    with pytest.raises(UpstreamError) as error:
        await upstream.call(INFER, b"", timeout_s=None)
    assert (error.value.code_name, error.value.details) == (code.name, "why")
    assert error.value.trailing_metadata == (("x-more", "1"),)


@pytest.mark.parametrize("timeout_s", [0.0, 0.05])
async def test_a_call_ends_at_its_deadline(
    timeout_s: float, upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    recorder[0].answers["ModelInfer"] = never
    with pytest.raises(UpstreamError) as error:
        await upstream.call(INFER, b"", timeout_s=timeout_s)
    assert error.value.code_name == "DEADLINE_EXCEEDED"


async def test_an_answer_over_the_limit_is_an_error(
    upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def large(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return bytes(1_000_001)

    recorder[0].answers["ModelInfer"] = large
    with pytest.raises(UpstreamError) as error:
        await upstream.call(INFER, b"", timeout_s=None)
    assert error.value.code_name == "RESOURCE_EXHAUSTED"


async def test_it_is_found_again_and_meanwhile_not_named() -> None:
    handler = Recorder()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = Upstream(f"127.0.0.1:{port}", max_message_bytes=1000)
    await upstream.call(INFER, b"", timeout_s=None)
    await server.stop(0)
    with pytest.raises(UpstreamUnavailable) as error:
        await upstream.call(INFER, b"", timeout_s=None)
    assert str(error.value) == "the model server cannot be reached"
    again = grpc.aio.server()
    again.add_generic_rpc_handlers((handler,))
    assert again.add_insecure_port(f"127.0.0.1:{port}") == port
    await again.start()

    async def is_back() -> bool:
        try:
            await upstream.call(INFER, b"", timeout_s=None)
        except UpstreamUnavailable:
            return False
        return True

    await until(is_back, limit_s=3)
    await upstream.close()
    await again.stop(0)


async def test_a_busy_server_is_not_an_absent_one() -> None:
    """UNAVAILABLE is also what Triton says of a full queue: that text is the client's."""
    async with recording() as (recorder, address):

        async def busy(call: Call, context: grpc.aio.ServicerContext) -> bytes:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
            return b""

        recorder.answers["ModelInfer"] = busy
        upstream = Upstream(address, max_message_bytes=1000)
        with pytest.raises(UpstreamError, match="Exceeds maximum queue size"):
            await upstream.call(INFER, b"", timeout_s=None)
        await upstream.close()


async def test_a_cancelled_caller_cancels_the_call(
    upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    recorder[0].answers["ModelInfer"] = never
    calling = asyncio.ensure_future(upstream.call(INFER, b"", timeout_s=None))
    call = await recorder[0].expect("ModelInfer")
    calling.cancel()
    await asyncio.wait_for(call.cancelled.wait(), LIMIT_S)
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_stream_echoes_and_ends(upstream: Upstream, recorder: tuple[Recorder, str]) -> None:
    async def echo(call: Call, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            await context.write(data)
        context.set_trailing_metadata((("x-last", "1"),))

    recorder[0].stream = echo
    stream = upstream.stream(STREAM, timeout_s=3, metadata=(("x-a", "b"),))
    for data in (b"", b"\xff" * 1000):
        assert await stream.write(data)
        assert await stream.read() == data
    await stream.done_writing()
    assert await stream.read() is None
    assert await stream.trailing_metadata() == (("x-last", "1"),)
    assert not await stream.write(b"late")
    await stream.done_writing()
    assert recorder[0].calls[0].values("x-a") == ["b"]


@pytest.mark.parametrize("attempt", range(10))
async def test_a_status_that_crosses_a_write_is_not_lost(
    attempt: int, upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    async def fail(call: Call, context: grpc.aio.ServicerContext) -> None:
        await context.read()
        await context.abort(grpc.StatusCode.ABORTED, "no more")

    recorder[0].stream = fail
    stream = upstream.stream(STREAM, timeout_s=LIMIT_S)
    while await stream.write(b"x"):
        pass
    await stream.done_writing()
    with pytest.raises(UpstreamError, match="no more") as error:
        await stream.read()
    assert error.value.code_name == "ABORTED"


async def test_a_stream_to_nobody_is_unavailable() -> None:
    async with serving(Recorder()) as address:
        pass
    upstream = Upstream(address, max_message_bytes=1000)
    stream = upstream.stream(STREAM, timeout_s=None)
    while await stream.write(b"x"):
        pass
    with pytest.raises(UpstreamUnavailable):
        await stream.read()
    await upstream.close()


async def test_a_renewed_connection_is_another_one_and_calls_under_way_go_on(
    upstream: Upstream, recorder: tuple[Recorder, str]
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    peers: list[str] = []

    async def wait(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        peers.append(context.peer())
        begun.set()
        await go_on.wait()
        return call.data

    recorder[0].answers["ModelInfer"] = wait
    under_way = asyncio.ensure_future(upstream.call(INFER, b"old", timeout_s=LIMIT_S))
    await begun.wait()
    upstream.renew()
    begun.clear()
    fresh = asyncio.ensure_future(upstream.call(INFER, b"new", timeout_s=LIMIT_S))
    await begun.wait()
    go_on.set()
    assert ((await under_way).data, (await fresh).data) == (b"old", b"new")
    assert len(set(peers)) == 2
