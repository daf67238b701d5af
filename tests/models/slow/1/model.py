"""Ten equal logits after a delay: request parameter or input `delay_ms`, 200 ms without either."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb


def delay_ms(request):
    tensor = pb.get_input_tensor_by_name(request, "delay_ms")
    if tensor is not None:
        return int(tensor.as_numpy().max())
    return int(json.loads(request.parameters() or "{}").get("delay_ms", 200))


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(max(delay_ms(r) for r in requests) / 1000)
        responses = []
        for request in requests:
            batch = len(pb.get_input_tensor_by_name(request, "image").as_numpy())
            responses.append(
                pb.InferenceResponse([pb.Tensor("logits", np.zeros((batch, 10), np.float32))])
            )
        return responses
