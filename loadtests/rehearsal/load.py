"""Plain clients with one long-lived connection each; every answer is held against its request."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from loadtests.rehearsal.balancer import Balancer

_PAUSE_S = 0.01
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Asked:
    """One request."""

    client: int
    began_s: float
    ended_s: float
    failure: str
    """Empty where the answer was right."""
    pods: tuple[str, ...]
    """Where the client's last connections went, before and after."""


class Load:
    """Closed loops, one a client, until stopped."""

    def __init__(self, balancer: Balancer) -> None:
        self.asked: list[Asked] = []
        self._balancer = balancer
        self._going = True
        self._threads = [
            threading.Thread(target=self._run, args=(index, address), daemon=True)
            for index, address in enumerate(balancer.addresses)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, index: int, address: str) -> None:
        rng = np.random.default_rng(index)
        with triton.InferenceServerClient(address) as client:
            while self._going:
                before, began = self._balancer.pods_of(index), time.monotonic()
                failure = _ask(client, rng.random((1, 3, 8, 8), np.float32))
                pods = (*before, *self._balancer.pods_of(index))
                self.asked.append(Asked(index, began, time.monotonic(), failure, pods))
                time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """End the loops."""
        self._going = False
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 5)


def _ask(client: triton.InferenceServerClient, x: np.ndarray) -> str:
    given = triton.InferInput("image", x.shape, "FP32")
    given.set_data_from_numpy(x)
    try:
        answer = client.infer("identity_fp32", [given], client_timeout=_TIMEOUT_S)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"[:200]
    got = answer.as_numpy("echo")
    return "" if got is not None and np.array_equal(got, x) else "the answer to another request"
