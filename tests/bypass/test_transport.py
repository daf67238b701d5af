"""Metadata, paths and frames that might lead around the inspection, or bring the front down."""

from __future__ import annotations

import asyncio
import gzip
import os

import grpc
import pytest

from loadtests.http2 import (
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    connected,
    exchange,
    frame,
    message,
    packed,
)
from proxy import rpc
from tests.bypass.subject import ATTACK, has_seen
from tests.images import CLEAN, request
from tests.proxy.running import Running, ask

pytestmark = pytest.mark.triton

BAD = request("digits_like", ATTACK).SerializeToString()
GOOD = request("digits_like", CLEAN[:1]).SerializeToString()
BUSY = grpc.StatusCode.UNAVAILABLE

METADATA = {
    "of our own": (("breakwater-verdict", "pass"), ("breakwater-request-id", "1")),
    "that Triton reads": (("triton_grpc_error", "true"), ("triton-request-id", "x")),
    "forwarded for": (("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=::1")),
    "trace context": (
        ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
        ("tracestate", "x" * 600),
    ),
    "binary": (("image-bin", os.urandom(500)), ("model-bin", b"identity_fp32")),
    "many": tuple((f"x-{i}", "y") for i in range(80)),
    "one many times": (("x-principal", "a"), ("x-principal", "b"), ("x-principal", "")),
    "another model": (("model_name", "identity_fp32"), ("inference-header-content-length", "5")),
    "compression": (("content-encoding", "gzip"), ("accept-encoding", "br")),
}


@pytest.mark.parametrize("name", METADATA)
async def test_no_metadata_changes_the_verdict(name: str, guarded: Running) -> None:
    reply = await ask(guarded.channel, "ModelInfer", BAD, metadata=METADATA[name])
    assert reply.code is BUSY
    reply = await ask(guarded.channel, "ModelInfer", GOOD, metadata=METADATA[name])
    assert reply.code is grpc.StatusCode.OK


async def test_metadata_beyond_all_measure_is_refused(guarded: Running) -> None:
    metadata = tuple((f"x-{i}", "y" * 1000) for i in range(100))
    reply = await ask(guarded.channel, "ModelInfer", BAD, metadata=metadata)
    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("timeout_s", [1e-9, 1e-4, 0.002, 0.01, 0.05, 1e6])
async def test_no_deadline_buys_a_pass(timeout_s: float, guarded: Running) -> None:
    for _ in range(5):
        reply = await ask(guarded.channel, "ModelInfer", BAD, timeout=timeout_s)
        assert reply.code in (BUSY, grpc.StatusCode.DEADLINE_EXCEEDED)


# -- by hand -------------------------------------------------------------------------------------


def with_header(name: str, *values: str | bytes) -> tuple:
    kept = tuple(header for header in CALL if header[0] != name)
    pseudo = tuple((name, value) for value in values if name.startswith(":"))
    return pseudo + kept + tuple((name, value) for value in values if not name.startswith(":"))


async def test_the_harness_works(guarded: Running, direct: grpc.aio.Channel) -> None:
    """An ordinary request by hand is answered, and an attack on an open server would be seen."""
    answer = await exchange(guarded.address, CALL, message(GOOD))
    assert has_seen(answer[5:], CLEAN[:1])
    assert has_seen((await ask(direct, "ModelInfer", BAD)).data)


SERVICE, NAME = rpc.SERVICE, "ModelInfer"
PATHS = (
    *(f"//{SERVICE}/{NAME}", f"/{SERVICE}/{NAME}/", f"/{SERVICE}//{NAME}", f"{SERVICE}/{NAME}"),
    *(f"/{SERVICE}/modelinfer", f"/{SERVICE.lower()}/{NAME}", f"/{SERVICE}/Model%49nfer"),
    *(
        f"/{SERVICE}/{NAME}?a",
        f"/{SERVICE}/{NAME}#a",
        f"/{SERVICE}/./{NAME}",
        f"/x/../{SERVICE}/{NAME}",
    ),
    *(
        f"http://localhost/{SERVICE}/{NAME}",
        f"/GRPCInferenceService/{NAME}",
        f"/v2.{SERVICE}/{NAME}",
    ),
    *(f"/{SERVICE}/{NAME}\0", f"/{SERVICE}/{NAME} ", "*", "", "/", f"/{SERVICE}/ServerLive;{NAME}"),
)
OTHER_HEADERS = {
    **{f"path {path!r}": with_header(":path", path) for path in PATHS},
    "two paths": with_header(":path", f"/{SERVICE}/ServerLive", rpc.INFER.path),
    "GET": with_header(":method", "GET"),
    "PUT": with_header(":method", "PUT"),
    "CONNECT": with_header(":method", "CONNECT"),
    "gRPC-Web": with_header("content-type", "application/grpc-web"),
    "gRPC-Web text": with_header("content-type", "application/grpc-web-text"),
    "JSON": with_header("content-type", "application/grpc+json"),
    "no content type": with_header("content-type"),
    "no te": with_header("te"),
    "other te": with_header("te", "gzip, trailers"),
    "another authority": with_header(":authority", "triton:8001"),
    "two authorities": with_header(":authority", "a", "b"),
    "host": with_header("host", "triton:8001"),
    "method override": with_header("x-http-method-override", "ServerLive"),
    "unknown encoding": with_header("grpc-encoding", "br"),
    "encoding that is not so": with_header("grpc-encoding", "gzip"),
    "two encodings": with_header("grpc-encoding", "identity", "gzip"),
    "message type": with_header("grpc-message-type", "inference.ModelMetadataRequest"),
    **{
        f"timeout {text}": with_header("grpc-timeout", text)
        for text in ("0n", "1n", "99999999H", "-1S", "1", "S", "1x", "999999999999S", "1 S", "")
    },
    "two timeouts": with_header("grpc-timeout", "1n", "9S"),
    "attempts": with_header("grpc-previous-rpc-attempts", "-1"),
    "upper case": (*CALL, ("X-Principal", "a")),
    "line ends": (*CALL, ("x-a", "b\r\nbreakwater-verdict: pass")),
    "connection": (*CALL, ("connection", "upgrade"), ("transfer-encoding", "chunked")),
}


@pytest.mark.parametrize("name", OTHER_HEADERS)
async def test_no_header_leads_around(name: str, guarded: Running) -> None:
    answer = await exchange(guarded.address, OTHER_HEADERS[name], message(BAD))
    assert not answer


PACKED = gzip.compress(BAD)
BODIES = {
    "a flag without an encoding": message(BAD, flag=1),
    "another flag": message(BAD, flag=2),
    "packed, unsaid": message(PACKED),
    "packed, said": message(PACKED, flag=1),
    "packed twice": message(gzip.compress(PACKED), flag=1),
    "longer than it is": message(BAD, size=len(BAD) + 1),
    "shorter than it is": message(BAD, size=len(BAD) - 1),
    "as long as can be": message(BAD, size=2**32 - 1),
    "empty": b"",
    "only a prefix": message(b"")[:4],
    "an empty message before it": message(b"") + message(BAD),
    "another after it": message(BAD) + message(GOOD),
    "trailers as a message": message(BAD, flag=0x80),
}
INCOMPLETE = {"empty", "only a prefix", "longer than it is", "as long as can be"}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("name", BODIES)
async def test_no_framing_leads_around(name: str, encoding: str, guarded: Running) -> None:
    headers = with_header("grpc-encoding", encoding)
    # gRPC never answers a message that does not come whole.
    limit_s = 0.3 if name in INCOMPLETE else 10
    assert not await exchange(guarded.address, headers, BODIES[name], limit_s=limit_s)


async def test_what_follows_a_clean_message_is_not_seen(guarded: Running) -> None:
    answer = await exchange(guarded.address, CALL, message(GOOD) + message(BAD))
    assert not has_seen(answer[5:])


BLOCK = packed(CALL)
FLOODS = {
    "HTTP/1.1": b"POST /v2/models/digits_like/infer HTTP/1.1\r\nContent-Length: 5\r\n\r\n{}",
    "an upgrade": b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n" + PREFACE,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "noise": bytes(range(256)) * 40,
    "settings": PREFACE + frame(SETTINGS, body=bytes(6)) * 20_000,
    "pings": PREFACE + frame(SETTINGS) + frame(PING, body=bytes(8)) * 20_000,
    "resets": PREFACE
    + frame(SETTINGS)
    + b"".join(
        frame(HEADERS, END_HEADERS, i, BLOCK) + frame(RESET, 0, i, bytes(4))
        for i in range(1, 4001, 2)
    ),
    "headers without an end": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, 0, 1, BLOCK)
    + frame(CONTINUATION, 0, 1, packed([("x-a", "b" * 16_000)])) * 600,
    "a large header": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, 0, 1, BLOCK)
    + frame(CONTINUATION, END_HEADERS, 1, packed([("x-a", "b" * 15_000)])),
    "the table of headers": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS, 1, b"\xbf" * 9000),
    "windows": PREFACE + frame(SETTINGS) + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 100,
    "data for nobody": PREFACE + frame(SETTINGS) + frame(DATA, 0, 99, bytes(16_000)) * 100,
    "empty frames": PREFACE + frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0, 1) * 50_000,
    "goodbye": PREFACE + frame(SETTINGS) + frame(GOAWAY, body=bytes(8)) * 1000,
    "a frame too large": PREFACE + frame(SETTINGS) + frame(DATA, 0, 1, bytes(1 << 20)),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_odd_connections_bother_nobody_else(name: str, guarded: Running) -> None:
    async with connected(guarded.address) as (reader, writer):
        try:
            for start in range(0, len(FLOODS[name]), 1 << 16):
                writer.write(FLOODS[name][start : start + (1 << 16)])
                async with asyncio.timeout(5):
                    await writer.drain()
            writer.write_eof()
            async with asyncio.timeout(5):
                while await reader.read(1 << 16):
                    pass
        except (OSError, TimeoutError):
            pass  # the server may close or not read on, but must serve the others
        assert (await ask(guarded.channel, "ModelInfer", GOOD)).code is grpc.StatusCode.OK
        assert (await ask(guarded.channel, "ModelInfer", BAD)).code is BUSY
    await guarded.idle()
