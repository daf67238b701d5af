"""The defended model: a small convolutional network, the same for every system compared."""

from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Found by Triton's Python backend under this name."""

    def initialize(self, args):
        """Load the network that lies beside this file."""
        torch.set_num_threads(1)
        file = Path(args["model_repository"]) / args["model_version"] / "network.pt"
        self.network = torch.jit.load(str(file), map_location="cpu")

    def execute(self, requests):
        """Return one response a request."""
        responses = []
        with torch.inference_mode():
            for request in requests:
                x = torch.from_numpy(pb.get_input_tensor_by_name(request, "image").as_numpy())
                responses.append(
                    pb.InferenceResponse([pb.Tensor("logits", self.network(x).numpy())])
                )
        return responses
