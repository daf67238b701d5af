"""Answers every request with an error of its own."""

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        error = pb.TritonError("the model says no: layer 7 of secret_model")
        return [pb.InferenceResponse(error=error) for _ in requests]
