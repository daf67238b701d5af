"""Peer (b): the defence as a Triton model that calls the classifier (business logic scripting).

Requests that Triton's dynamic batcher puts together are scored as one batch, and the classifier is
asked about all originals and views in one call, all flagged and purified images in another. The
maths is Breakwater's own parts.
"""

import json

import torch
import triton_python_backend_utils as pb

from purifiers import BitDepth, Jpeg, Median


class TritonPythonModel:
    """Found by Triton's Python backend under this name."""

    def initialize(self, args):
        """Build the parts; the configuration names the classifier and the threshold."""
        torch.set_num_threads(1)
        parameters = json.loads(args["model_config"])["parameters"]
        self.classifier = parameters["classifier"]["string_value"]
        self.threshold = float(parameters["threshold"]["string_value"])
        self.views = (BitDepth(bits=5), Median(size=3))
        self.purifier = Jpeg(quality=75)

    def execute(self, requests):
        """Score the requests together and return one response each."""
        with torch.inference_mode():
            tensors = [
                torch.from_numpy(pb.get_input_tensor_by_name(request, "image").as_numpy())
                for request in requests
            ]
            logits = self.defended(tensors[0] if len(tensors) == 1 else torch.cat(tensors))
            parts = logits.split([len(x) for x in tensors])
        return [pb.InferenceResponse([pb.Tensor("logits", part.numpy())]) for part in parts]

    def defended(self, x):
        """The answers to be given to a batch, (B, K)."""
        answers = self.ask(torch.cat([x, *(view.purify(x) for view in self.views)]))
        first, *others = answers.view(len(self.views) + 1, len(x), -1)
        p = first.softmax(1)
        score = torch.stack([(p - other.softmax(1)).abs().sum(1) for other in others]).amax(0)
        flagged = ~(score <= self.threshold)
        if flagged.any():
            first = first.clone()
            first[flagged] = self.ask(self.purifier.purify(x[flagged]))
        return first

    def ask(self, x):
        """The classifier's answers to a batch, (B, K)."""
        answer = pb.InferenceRequest(
            model_name=self.classifier,
            requested_output_names=["logits"],
            inputs=[pb.Tensor("image", x.contiguous().numpy())],
        ).exec()
        if answer.has_error():
            raise pb.TritonModelException(answer.error().message())
        return torch.from_numpy(pb.get_output_tensor_by_name(answer, "logits").as_numpy())
