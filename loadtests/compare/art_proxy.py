"""Peer (c): a plain grpc.aio proxy that parses every message and calls ART in process.

ART runs on as many threads as there are cores (SciPy and Pillow let go of the interpreter's lock);
every RPC but ModelInfer is passed on as bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import uvloop
from tritonclient.grpc import service_pb2 as messages

from loadtests.compare.art_defence import ArtDefence

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class ArtProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Scores, forwards and purifies."""

    def __init__(self, upstream: str, threshold: float) -> None:
        self._defence = ArtDefence(threshold)
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._channel = grpc.aio.insecure_channel(upstream, options=LIMITS)
        self._infer = self._channel.unary_unary(
            INFER,
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a method; gRPC calls this."""
        if call.method == INFER:
            return grpc.unary_unary_rpc_method_handler(
                self._answer,
                request_deserializer=messages.ModelInferRequest.FromString,
                response_serializer=messages.ModelInferResponse.SerializeToString,
            )
        passed = self._channel.unary_unary(call.method)

        async def relay(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            answer: bytes = await passed(request)
            return answer

        return grpc.unary_unary_rpc_method_handler(relay)

    async def _answer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The model's answer to the image, or to its purified copy."""
        loop = asyncio.get_running_loop()
        shape = tuple(request.inputs[0].shape)
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(shape)
        copies = await loop.run_in_executor(self._threads, self._defence.with_views, x)
        answer = await self._ask(request, copies)
        logits = np.frombuffer(answer.raw_output_contents[0], np.float32)
        logits = logits.reshape(len(copies), -1)
        flagged = self._defence.flagged(logits)
        logits = logits[: len(x)]
        if flagged.any():
            purified = await loop.run_in_executor(self._threads, self._defence.purified, x[flagged])
            second = await self._ask(request, purified)
            logits = logits.copy()
            logits[flagged] = np.frombuffer(second.raw_output_contents[0], np.float32).reshape(
                len(purified), -1
            )
        answer.outputs[0].shape[0] = len(x)
        answer.raw_output_contents[0] = logits.tobytes()
        return answer

    async def _ask(self, request: Any, x: np.ndarray[Any, Any]) -> Any:
        question = messages.ModelInferRequest(
            model_name=request.model_name,
            outputs=request.outputs,
            raw_input_contents=[x.tobytes()],
        )
        question.inputs.add(name="image", datatype="FP32", shape=x.shape)
        return await self._infer(question)


async def serve(listen: str, upstream: str, threshold: float) -> None:
    """Serve until the process ends."""
    server = grpc.aio.server(options=LIMITS)
    server.add_generic_rpc_handlers((ArtProxy(upstream, threshold),))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Run the proxy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--threshold", required=True, type=float)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(chosen.listen, chosen.upstream, chosen.threshold))


if __name__ == "__main__":
    main()
