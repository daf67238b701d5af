"""Class scores, and a digest that names the image they are for: both of every image asked about."""

import zlib

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Found by Triton's Python backend under this name."""

    def initialize(self, args):
        """Fixed random weights, of a size that puts logits a few units apart."""
        self.weights = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")

    def execute(self, requests):
        """Return one response a request."""
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "image").as_numpy()
            outputs = [pb.Tensor("logits", (x.reshape(len(x), -1) - 0.5) @ self.weights)]
            if "digest" in request.requested_output_names():
                bodies = [image.tobytes() for image in x]
                digests = [[zlib.crc32(body), zlib.adler32(body)] for body in bodies]
                outputs.append(pb.Tensor("digest", np.array(digests, "u4").reshape(len(x), 2)))
            responses.append(pb.InferenceResponse(outputs))
        return responses
