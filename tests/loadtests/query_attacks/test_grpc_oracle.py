"""The oracle over real gRPC: a recorded server, and a real Triton behind a real sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest

from loadtests.query_attacks.grpc_oracle import GrpcOracle, Identities, sybils
from proxy.pb import open_inference_pb2 as pb
from proxy.rpc import INFER, SERVICE
from proxy.status import BUSY
from tests.defended import settings_of
from tests.images import benign, tampered
from tests.proxy.running import running
from tuning.evaluate.oracle import Answer
from tuning.triton import EmbeddedTriton

IMAGE = np.linspace(0, 1, 3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
LOGITS = np.array([[0.5, 2.0, -1.0]], "<f4")


class Server:
    """Answers every inference alike, or refuses, and notes the callers and what they sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, pb.ModelInferRequest]] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._infer,
            request_deserializer=pb.ModelInferRequest.FromString,
            response_serializer=pb.ModelInferResponse.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(SERVICE, {INFER.name: handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _infer(
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        caller = dict(context.invocation_metadata())["x-principal"]
        self.calls.append((caller, context.peer(), request))
        context.set_trailing_metadata((("breakwater-verdict", "pass"), ("bits-bin", b"\0")))
        if self.refusal is not None:
            context.abort(*self.refusal)
        outputs = [
            pb.ModelInferResponse.InferOutputTensor(name=name) for name in ("other", "logits")
        ]
        raw = [b"", LOGITS.tobytes()]
        return pb.ModelInferResponse(outputs=outputs, raw_output_contents=raw)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started = [Server() for _ in range(3)]
    yield started
    for server in started:
        server.stop()


def test_one_query_on_the_wire(servers: list[Server]) -> None:
    with GrpcOracle([servers[0].address], model="net") as oracle:
        answer = oracle.ask(IMAGE)
    assert answer.logits is not None
    np.testing.assert_array_equal(answer.logits, LOGITS[0])
    assert answer.label == 1
    assert answer.metadata == (("breakwater-verdict", "pass"),)
    ((caller, _, request),) = servers[0].calls
    assert caller == "attacker-0"
    assert request.model_name == "net"
    assert list(request.inputs[0].shape) == [1, 3, 4, 4]
    assert (request.inputs[0].name, request.inputs[0].datatype) == ("image", "FP32")
    assert request.raw_input_contents[0] == IMAGE.tobytes()


def test_queries_go_round_the_replicas_on_kept_connections(servers: list[Server]) -> None:
    with GrpcOracle([server.address for server in servers], model="net") as oracle:
        for _ in range(7):
            oracle.ask(IMAGE)
        assert oracle.queries == 7
    assert [len(server.calls) for server in servers] == [3, 2, 2]
    assert all(len({peer for _, peer, _ in server.calls}) == 1 for server in servers)


def test_principals_are_chosen_for_each_query(servers: list[Server]) -> None:
    who = Identities("eve")
    with (
        GrpcOracle([servers[0].address], model="net", principal=sybils()) as many,
        GrpcOracle([servers[1].address], model="net", principal=who) as one,
    ):
        for _ in range(3):
            many.ask(IMAGE)
            one.ask(IMAGE)
        who.renew()
        one.ask(IMAGE)
    assert [caller for caller, _, _ in servers[0].calls] == ["sybil-1", "sybil-2", "sybil-3"]
    assert [caller for caller, _, _ in servers[1].calls] == ["eve-0"] * 3 + ["eve-1"]


def test_a_block_is_a_refusal_and_keeps_its_metadata(servers: list[Server]) -> None:
    servers[0].refusal = (grpc.StatusCode.UNAVAILABLE, BUSY)
    with GrpcOracle([servers[0].address], model="net") as oracle:
        answer = oracle.ask(IMAGE)
    assert answer == Answer(None, (("breakwater-verdict", "pass"),))


@pytest.mark.parametrize(
    "status",
    [
        (grpc.StatusCode.UNAVAILABLE, "upstream is gone"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, BUSY),
        (grpc.StatusCode.INVALID_ARGUMENT, "unknown model"),
    ],
)
def test_any_other_error_breaks_the_measurement(
    servers: list[Server], status: tuple[grpc.StatusCode, str]
) -> None:
    servers[0].refusal = status
    told = f"query 1: {status[0].name}: {status[1]}"
    with (
        GrpcOracle([servers[0].address], model="net") as oracle,
        pytest.raises(RuntimeError, match=told),
    ):
        oracle.ask(IMAGE)


def test_nobody_listening_breaks_the_measurement(servers: list[Server]) -> None:
    servers[0].stop()
    with (
        GrpcOracle([servers[0].address], model="net") as oracle,
        pytest.raises(RuntimeError, match="UNAVAILABLE"),
    ):
        oracle.ask(IMAGE)


@pytest.mark.triton
async def test_through_a_sidecar_to_triton(triton: EmbeddedTriton, calibrations: Path) -> None:
    models = settings_of(calibrations, {"digits_like": {"annotate": True, "action": "block"}})
    clean = benign(1, 50)
    weights = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")
    async with running(triton.grpc_address, models=models) as front:
        with GrpcOracle([front.address], model="digits_like") as oracle:
            passed = await asyncio.to_thread(oracle.ask, clean[0])
            blocked = await asyncio.to_thread(oracle.ask, tampered(clean)[0])
    assert passed.logits is not None
    np.testing.assert_allclose(passed.logits, (clean[0].ravel() - 0.5) @ weights, atol=1e-4)
    assert dict(passed.metadata)["breakwater-verdict"] == "pass"
    assert blocked.is_refused
    assert dict(blocked.metadata)["breakwater-verdict"] == "suspicious"
