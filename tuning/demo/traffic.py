"""The demo's traffic: benign and adversarial images, sent by a real tritonclient and counted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt
import torch
import tritonclient.grpc as tritonclient
from art.attacks.evasion import DeepFool, FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from proxy import rpc, wire
from tuning.demo.digits import MODEL

Images = npt.NDArray[np.float32]

ATTACKS = 4
"""How many kinds of attack `kinds` makes."""

_NOISE = 3 / 255

_SUSPICIOUS = re.compile(
    rf'^breakwater_samples_total{{model="{MODEL}",verdict="suspicious"}} (\S+)', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of traffic."""

    name: str
    x: Images
    y: npt.NDArray[np.int64]
    is_benign: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back for one kind of traffic, one image a request."""

    correct: int
    flagged: int
    latency_s: npt.NDArray[np.float64]


def kinds(net: nn.Module, x: Tensor, y: Tensor, on_done: Callable[[], None]) -> list[Kind]:
    """Clean, noisy but benign, and adversarial versions of the same images.

    The attacks are white-box on a copy of the model and know nothing of the defence.
    """
    clean, labels = x.numpy(), y.numpy()
    victim = PyTorchClassifier(
        model=net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(clean.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
    )
    rng = np.random.default_rng(7)
    noisy = np.clip(clean + rng.normal(0, _NOISE, clean.shape), 0, 1).astype(np.float32)
    made = [
        Kind("clean", clean, labels, True),
        Kind("noisy but benign", noisy, labels, True),
    ]
    attacks = {
        "FGSM 0.1": FastGradientMethod(victim, eps=0.1),
        "DeepFool": DeepFool(victim, max_iter=20, nb_grads=5, batch_size=50, verbose=False),
        "PGD 0.05": _pgd(victim, 0.05),
        "PGD 0.1": _pgd(victim, 0.1),
    }
    for name, attack in attacks.items():
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 (what the attack library draws from)
        made.append(Kind(name, attack.generate(clean).astype(np.float32), labels, False))
        on_done()
    return made


def _pgd(victim: PyTorchClassifier, eps: float) -> ProjectedGradientDescent:
    return ProjectedGradientDescent(
        victim, eps=eps, eps_step=eps / 6, max_iter=20, batch_size=50, verbose=False
    )


class Client:
    """A tritonclient that sends one image a request.

    Args:
        address: Triton or Breakwater; the client cannot tell.
        scrape: the proxy's metrics, for counting flags; None for Triton itself.
    """

    def __init__(self, address: str, scrape: Callable[[], str] | None) -> None:
        self._client = tritonclient.InferenceServerClient(address)
        self._scrape = scrape

    def send(self, kind: Kind, on_done: Callable[[], None]) -> Outcome:
        """Send all images of a kind, one after the other."""
        before = self._flagged()
        answers, seconds = [], []
        for image in kind.x:
            started = time.perf_counter()
            answers.append(self.classify(image))
            seconds.append(time.perf_counter() - started)
            on_done()
        return Outcome(
            int((np.array(answers) == kind.y).sum()),
            self._flagged() - before,
            np.array(seconds),
        )

    def classify(self, image: Images) -> int:
        """The model's class for one image (1, H, W)."""
        tensor = tritonclient.InferInput("image", [1, *image.shape], "FP32")
        tensor.set_data_from_numpy(image[None])
        return int(self._client.infer(MODEL, [tensor]).as_numpy("logits").argmax())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _flagged(self) -> int:
        if self._scrape is None:
            return 0
        found = _SUSPICIOUS.search(self._scrape())
        return int(float(found.group(1))) if found else 0


def verdicts(address: str, images: Sequence[Images]) -> list[tuple[str, int]]:
    """The verdict (from the trailing metadata that `annotate` adds) and class for each image."""
    told = []
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(rpc.INFER.path)
        for image in images:
            data = wire.build_infer_request(
                MODEL, "", [("image", "FP32", (1, *image.shape), image.tobytes())]
            )
            answer, call = infer.with_call(data)
            logits = wire.InferResponse.parse(answer).tensor("logits")
            verdict = dict(call.trailing_metadata()).get("breakwater-verdict", "?")
            digit = -1 if logits is None else int(wire.as_numpy(logits).argmax())
            told.append((str(verdict), digit))
    return told
