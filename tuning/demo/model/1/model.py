"""The demo's model inside Triton: a TorchScript file beside this one, image -> logits."""

from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Triton's Python backend calls these methods."""

    def initialize(self, args):
        """Load the network once."""
        torch.set_num_threads(1)
        self.network = torch.jit.load(Path(__file__).parent / "network.pt").eval()

    def execute(self, requests):
        """Answer a batch of requests in one forward pass."""
        images = [pb.get_input_tensor_by_name(r, "image").as_numpy() for r in requests]
        with torch.inference_mode():
            batch = torch.cat([torch.from_numpy(image) for image in images])
            logits = self.network(batch).split([len(image) for image in images])
        return [
            pb.InferenceResponse([pb.Tensor("logits", rows.contiguous().numpy())])
            for rows in logits
        ]
