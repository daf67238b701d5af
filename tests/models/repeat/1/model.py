"""Decoupled: answers with the indices 0..count-1, one response each, then the final flag alone."""

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb.get_input_tensor_by_name(request, "count").as_numpy()[0])
            for index in range(count):
                tensor = pb.Tensor("index", np.array([index], np.int32))
                sender.send(pb.InferenceResponse([tensor]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
