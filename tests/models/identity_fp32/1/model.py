"""Returns its input."""

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse(
                [pb.Tensor("echo", pb.get_input_tensor_by_name(r, "image").as_numpy())]
            )
            for r in requests
        ]
