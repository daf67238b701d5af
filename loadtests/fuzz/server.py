"""A real Triton as the reference: what it computed on is what was inspected, byte for byte.

Its model gives every input back. Each message goes to Triton directly and through the proxy; what
Triton takes and Breakwater refuses is counted by reason.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from loadtests.fuzz.grammar import Grammar, Vocabulary, damaged
from loadtests.fuzz.reading import Difference, read_request, reason, same
from loadtests.fuzz.tally import Tally, measured
from loadtests.fuzz.values import TYPES
from loadtests.harness import CHECKOUT, Child, Report, accepts, free_port
from loadtests.sidecar import BREAKWATER
from proxy import rpc
from proxy.errors import ProxyError
from proxy.pb import open_inference_pb2 as pb
from proxy.wire import InferRequest
from tuning.triton import EmbeddedTriton

MODELS = CHECKOUT / "tests" / "models"
BATCH = 32
_TIMEOUT_S = 20.0
_HELD = [name for name in TYPES if name != "BF16"]
"""What the model takes; Triton's Python backend has no BF16."""
WORDS = Vocabulary(
    models=(b"all_types",),
    inputs=tuple((f"IN_{name}".encode(), name) for name in _HELD),
    outputs=(b"OUT_FP32", b"OUT_INT8", b"OUT_BYTES"),
    ranks=(1, 1, 1, 1, 1, 1, 1, 1, 2),
)


def messages(rng: random.Random) -> Iterator[bytes]:
    """Messages about the model, some damaged."""
    grammar = Grammar(rng, WORDS)
    while True:
        data = grammar.request()
        yield damaged(rng, data) if rng.random() < 0.15 else data


def infer(channel: grpc.Channel, data: bytes) -> grpc.Future:
    """Ask with bytes as they are; a future answer in bytes."""
    return channel.unary_unary(rpc.INFER.path).future(data, timeout=_TIMEOUT_S)


def answer(future: grpc.Future) -> bytes | None:
    """The answer, or None where there is an error instead."""
    return None if future.exception() is not None else future.result()


def inspected(data: bytes) -> InferRequest | str:
    """The request as it was inspected, or the reason of its refusal."""
    try:
        return read_request(data, "pass")
    except ProxyError as error:
        return reason(error)


def check_computed(request: InferRequest, answered: bytes) -> None:
    """Raise Difference unless the model gave back exactly the inputs that were inspected."""
    response = pb.ModelInferResponse.FromString(answered)
    same("model", response.model_name, request.common.model)
    same("id", response.id, request.request_id)
    if not request.head.outputs:
        same("outputs", len(response.outputs), len(request.tensors))
    given = {tensor.name[3:]: tensor for tensor in request.tensors}
    for item, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        tensor = given[item.name[4:]]
        if item.datatype == "BYTES" != tensor.datatype:
            continue  # a classification was asked for
        same("datatype", item.datatype, tensor.datatype)
        same("shape", tuple(item.shape), tensor.shape)
        same("values", raw, bytes(tensor.payload()))


def judge(data: bytes, direct: bytes | None, proxied: bytes | None, tally: Tally) -> str:
    """Compare one message's fate on both ways; returns what Triton alone took it for, if so."""
    tally.cases += 1
    request = inspected(data)
    try:
        if isinstance(request, str):
            tally.refused[request] += 1
            same("answered through the proxy although refused", proxied, None)
            return request if direct is not None else ""
        tally.accepted += 1
        same("answered", proxied is not None, direct is not None)
        if proxied is not None and direct is not None:
            check_computed(request, direct)
            check_computed(request, proxied)
    except (Difference, KeyError, ValueError) as error:
        tally.note("difference", error, data)
    return ""


@contextmanager
def sidecar(upstream: str, folder: Path, memory: str) -> Iterator[str]:
    """A pass-through in front of Triton; yields its address.

    Args:
        memory: `off`, or `system` to hand every tensor over in shared memory.
    """
    ports = [free_port(), free_port()]
    listen, admin = (f"127.0.0.1:{port}" for port in ports)
    settings = {"listen": listen, "admin": admin, "upstream": upstream}
    handed = {"upstream_shared_memory": memory, "upstream_shared_memory_from_kb": 0}
    config = folder / f"{memory}.yaml"
    config.write_text(json.dumps({**settings, **handed}))
    child = Child(
        "breakwater",
        [BREAKWATER, "serve", "--config", str(config)],
        log=folder / f"{memory}.log",
        is_ready=lambda: all(accepts(port) for port in ports),
    )
    try:
        yield listen
    finally:
        child.stop()


def fuzz(seed: int, cases: int, report: Report) -> dict[str, Tally]:
    """So many messages both ways; the table of what Breakwater alone refuses goes to the report."""
    tallies = {"triton": Tally(), "triton, by shared memory": Tally()}
    stricter = Counter[str]()
    source = messages(random.Random(f"triton {seed}"))
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedTriton(MODELS, log=Path(name) / "triton.log") as triton,
    ):
        for (title, tally), memory in zip(tallies.items(), ("off", "system"), strict=True):
            with sidecar(triton.grpc_address, Path(name), memory) as address, measured(tally):
                compared = _compare(triton, address, source, cases // 2, tally, stricter)
            report.add(target=title, answered_both_ways_and_compared=compared)
    del stricter[""]
    for text, count in stricter.most_common():
        report.add(taken_by_triton_refused_here=text, count=count)
    return tallies


def _compare(
    triton: EmbeddedTriton,
    address: str,
    source: Iterator[bytes],
    cases: int,
    tally: Tally,
    stricter: Counter[str],
) -> int:
    """Send each message both ways; how many were answered."""
    answered = 0
    with (
        grpc.insecure_channel(triton.grpc_address) as straight,
        grpc.insecure_channel(address) as through,
    ):
        while tally.cases < cases:
            batch = [next(source) for _ in range(BATCH)]
            asked = [(infer(straight, data), infer(through, data)) for data in batch]
            for data, (direct, proxied) in zip(batch, asked, strict=True):
                first, second = answer(direct), answer(proxied)
                answered += first is not None and second is not None
                stricter[judge(data, first, second, tally)] += 1
            if triton.has_crashed:
                tally.note("crash", RuntimeError(triton.log_tail()), b"".join(batch))
                triton.restart()
    return answered
