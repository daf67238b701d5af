"""The classifier of digits_like as another training would have it: nearly the same weights."""

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        weights = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10))
        other = np.random.default_rng(1).normal(0, 0.02, (3 * 32 * 32, 10))
        self.weights = (weights + other).astype("f4")

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "image").as_numpy()
            logits = (x.reshape(len(x), -1) - 0.5) @ self.weights
            responses.append(pb.InferenceResponse([pb.Tensor("logits", logits)]))
        return responses
