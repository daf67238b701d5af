"""Ten logits at the cost of an identity: sums over the first 320 values, the rest is not read."""

import triton_python_backend_utils as pb


class TritonPythonModel:
    """Found by Triton's Python backend under this name."""

    def execute(self, requests):
        """Return one response a request."""
        responses = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "image").as_numpy()
            logits = x.reshape(len(x), -1)[:, :320].reshape(len(x), 10, 32).sum(axis=2)
            responses.append(pb.InferenceResponse([pb.Tensor("logits", logits)]))
        return responses
