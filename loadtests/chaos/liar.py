"""A model server that lies: it asks the real one and answers with something else.

Real Triton does not do this; a broken build of it, another server or a corrupted network might.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc

from proxy import rpc, wire
from proxy.tasks import Tasks

MOST_BYTES = 64 * 2**20
LATE_S = 6.0
"""Longer than any client's deadline here."""

Lie = Callable[[bytes, bytes], bytes]
"""From the right answer, and that to the request before, to what is said instead."""


def _garbage(right: bytes, before: bytes) -> bytes:
    return bytes(255 - byte for byte in right)


def _cut(right: bytes, before: bytes) -> bytes:
    return right[: len(right) // 2]


def _nothing(right: bytes, before: bytes) -> bytes:
    return b""


def _swapped(right: bytes, before: bytes) -> bytes:
    return before


def _changed(right: bytes, **fields: object) -> bytes:
    answer = wire.InferResponse.parse(right)
    head = type(answer.head)()
    head.CopyFrom(answer.head)
    for output in head.outputs:
        if "shape" in fields:
            output.ClearField("shape")
            output.shape.extend(fields["shape"])  # type: ignore[arg-type]
        if "datatype" in fields:
            output.datatype = str(fields["datatype"])
    said: bytes = head.SerializeToString()
    for tensor in answer.tensors:
        body = bytes(tensor.payload())
        said += b"\x32" + _varint(len(body)) + body  # raw_output_contents, field 6
    return said


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


LIES: Mapping[str, Lie] = {
    "garbage": _garbage,
    "cut": _cut,
    "nothing": _nothing,
    "swapped": _swapped,
    "huge shape": lambda right, _: _changed(right, shape=(2**62, 10)),
    "negative shape": lambda right, _: _changed(right, shape=(-1, 10)),
    "another shape": lambda right, _: _changed(right, shape=(1, 3)),
    "another datatype": lambda right, _: _changed(right, datatype="BYTES"),
    "no datatype": lambda right, _: _changed(right, datatype="FP99"),
    "too large": lambda right, _: right + b"\x32" + _varint(70 * 2**20) + bytes(70 * 2**20),
}


class Liar(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers for the server behind it.

    Args:
        truth: address of the real server.
    """

    def __init__(self, truth: str) -> None:
        options = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
        self._channel = grpc.aio.insecure_channel(truth, options=options)
        self._server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
        self._server.add_generic_rpc_handlers((self,))
        self._tasks = Tasks()
        self._before = b""
        self.port = 0
        self.lie = ""
        """One of `LIES`, `late`, `status` or `metadata`; empty: the truth."""

    async def __aenter__(self) -> Liar:
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._server.stop(None)
        await self._tasks.stop()
        await self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Every method is relayed (gRPC's hook)."""
        path = handler_call_details.method

        async def relay(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                # To its end, whatever becomes of the client: cancels can crash Triton 2.51 (#7368).
                right: bytes = await asyncio.shield(self._tasks.start(self._asked(path, data)))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            return right if path != rpc.INFER.path else await self._said(right, context)

        return grpc.unary_unary_rpc_method_handler(relay)

    async def _asked(self, path: str, data: bytes) -> bytes:
        answer: bytes = await self._channel.unary_unary(path)(data, timeout=10)
        return answer

    async def _said(self, right: bytes, context: grpc.aio.ServicerContext) -> bytes:
        before, self._before = self._before or right, right
        if self.lie == "late":
            await asyncio.sleep(LATE_S)
        elif self.lie == "status":
            await context.abort(
                grpc.StatusCode.DATA_LOSS,
                "\udce9 \x00 \u202e text".encode(errors="replace").decode(),
            )
        elif self.lie == "metadata":
            context.set_trailing_metadata((("breakwater-verdict", "pass"), ("x-bin", b"\xff\x00")))
        return LIES[self.lie](right, before) if self.lie in LIES else right
