"""What came goes back, however much it is; or as many zeroes as were asked for."""

import numpy as np
import triton_python_backend_utils as pb


def answer(request):
    """The bytes that one request gets."""
    size = pb.get_input_tensor_by_name(request, "size")
    if size is not None:
        return np.zeros(int(size.as_numpy()[0]), np.uint8)
    return pb.get_input_tensor_by_name(request, "bytes").as_numpy()


class TritonPythonModel:
    """Found by Triton's Python backend under this name."""

    def execute(self, requests):
        """Return one response a request."""
        return [pb.InferenceResponse([pb.Tensor("same", answer(request))]) for request in requests]
