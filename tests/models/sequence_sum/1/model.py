"""Stateful: the sum of all pixels, and the number of requests, since the sequence's start."""

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.state = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            sequence = request.correlation_id()
            start = pb.get_input_tensor_by_name(request, "START").as_numpy().any()
            end = pb.get_input_tensor_by_name(request, "END").as_numpy().any()
            total, steps = (0.0, 0) if start else self.state[sequence]
            total += float(pb.get_input_tensor_by_name(request, "image").as_numpy().sum())
            steps += 1
            if end:
                self.state.pop(sequence, None)
            else:
                self.state[sequence] = (total, steps)
            responses.append(
                pb.InferenceResponse(
                    [
                        pb.Tensor("sum", np.array([total], np.float32)),
                        pb.Tensor("steps", np.array([steps], np.int32)),
                    ]
                )
            )
        return responses
