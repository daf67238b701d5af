"""Tones to logits, by the small network beside this file."""

import triton_python_backend_utils as pb
from network import Network


class TritonPythonModel:
    def initialize(self, args):
        self.network = Network()

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "wave").as_numpy()
            tensor = pb.Tensor("logits", self.network.logits(x))
            responses.append(pb.InferenceResponse([tensor]))
        return responses
