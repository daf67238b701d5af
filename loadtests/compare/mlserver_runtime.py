"""Peer (a): a KServe-style transformer, an MLServer runtime with ART that forwards to Triton.

Runs in MLServer's own environment. It speaks to Triton through MLServer's stubs: tritonclient
would register the same protobuf names a second time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
from art_defence import ArtDefence
from mlserver import MLModel, types
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2 as messages
from mlserver.grpc import dataplane_pb2_grpc as stubs

LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Transformer(MLModel):  # type: ignore[misc]
    """Scores, forwards and purifies; `parameters.extra` has the upstream and the threshold."""

    async def load(self) -> bool:
        """Connect to Triton."""
        extra = self.settings.parameters.extra
        self._defence = ArtDefence(extra["threshold"])
        channel = grpc.aio.insecure_channel(extra["upstream"], options=LIMITS)
        self._triton = stubs.GRPCInferenceServiceStub(channel)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """The model's answer to the image, or to its purified copy."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        copies = await asyncio.to_thread(self._defence.with_views, x)
        answers = await self._ask(copies)
        flagged = self._defence.flagged(answers)
        logits = answers[: len(x)]
        if flagged.any():
            purified = await asyncio.to_thread(self._defence.purified, x[flagged])
            logits = logits.copy()
            logits[flagged] = await self._ask(purified)
        return types.InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)]
        )

    async def _ask(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        request = messages.ModelInferRequest(
            model_name=self.name,
            inputs=[{"name": "image", "datatype": "FP32", "shape": x.shape}],
            raw_input_contents=[x.tobytes()],
        )
        answer = await self._triton.ModelInfer(request)
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(len(x), -1)
