"""Black-box attacks of the Adversarial Robustness Toolbox and Foolbox, behind an `Attempt`."""

from __future__ import annotations

import contextlib
import importlib
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.evaluate.attempt import Attempt, Bound
from tuning.evaluate.oracle import Image

LINF = Bound("linf", 8 / 255)
L2 = Bound("l2", 1.0)
NOISE_TRIES = 10
"""Random images tried as a start before one of another class is taken."""
SEARCH_STEPS = 8
"""Halvings between the start and the attacked image: a 256th of the way."""


class Run(Protocol):
    """An attack; it ends by itself or by `Over`, and is judged by the attempt's log."""

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Attack `attempt.target`."""
        ...


def _seed_libraries(seed: int) -> None:
    """Both libraries draw from the process's global generators."""
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    torch.manual_seed(seed)


class Astray(Exception):
    """The attack asks about what is no image: it will not find back, but may start again.

    HopSkipJump divides by its distance from the attacked image, which is 0 where a decoy gives that
    very image another class.
    """


def _estimator(
    attempt: Attempt, heard: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> Any:
    from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(images).all():
            raise Astray
        return heard(np.stack([attempt.look(image) for image in images]))

    shape = attempt.target.clean.shape
    return BlackBoxClassifierNeuralNetwork(predict, shape, attempt.classes, clip_values=(0.0, 1.0))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    share: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return share


@dataclass(frozen=True)
class Scored:
    """An attack of the toolbox that reads the scores of all classes."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    probabilities: bool = False
    """Whether it wants probabilities instead of logits."""

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run it; what it returns is of no interest."""
        from art.attacks import evasion

        _seed_libraries(seed)
        heard = _softmax if self.probabilities else np.asarray
        estimator = _estimator(attempt, heard)
        attack = getattr(evasion, self.name)(estimator, verbose=False, **self.params)
        onehot = np.eye(attempt.classes, dtype=np.float32)[[attempt.target.label]]
        attack.generate(attempt.target.clean[None].copy(), onehot)


@dataclass(frozen=True)
class Decided:
    """An attack of the toolbox that reads only the class, from a misclassified start in L2."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    start: Literal["noise", "image"] = "noise"
    search: bool = False
    """Go from the start to the boundary first: not every attack does so itself."""

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run it; what it returns is of no interest."""
        from art.attacks import evasion

        _seed_libraries(seed)
        start = self._start(attempt, np.random.default_rng(seed))
        estimator = _estimator(attempt, np.asarray)
        attack = getattr(evasion, self.name)(
            estimator, targeted=False, verbose=False, **self.params
        )
        onehot = np.eye(attempt.classes, dtype=np.float32)[[attempt.target.label]]
        clean = attempt.target.clean[None].copy()
        with contextlib.suppress(Astray), np.errstate(invalid="ignore", divide="ignore"):
            attack.generate(clean, onehot, x_adv_init=start[None].copy())

    def _start(self, attempt: Attempt, rng: np.random.Generator) -> Image:
        target = attempt.target
        tries = NOISE_TRIES if self.start == "noise" else 0
        noise = (rng.random(target.clean.shape, np.float32) for _ in range(tries))
        for start in (*noise, *rng.permutation(target.others)):
            if attempt.look(start).argmax() != target.label:
                return _near(attempt, start) if self.search else start
        return target.clean


def _near(attempt: Attempt, start: Image) -> Image:
    """The misclassified image nearest to the attacked one on the line from `start`."""
    clean, good, bad = attempt.target.clean, 1.0, 0.0
    for _ in range(SEARCH_STEPS):
        middle = (good + bad) / 2
        point = (clean + middle * (start - clean)).astype(np.float32)
        wrong = attempt.look(point).argmax() != attempt.target.label
        good, bad = (middle, bad) if wrong else (good, middle)
    return (clean + good * (start - clean)).astype(np.float32)


@dataclass(frozen=True)
class Nes:
    """Sign steps along a gradient estimated from antithetic Gaussian samples.

    Source: Ilyas, Engstrom, Athalye, Lin, ICML 2018 (arXiv 1804.08598), section 2.1; estimator and
    steps are Foolbox's.
    """

    sigma: float
    samples: int = 20
    step: float = 2 / 255
    steps: int = 1000

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run it; what it returns is of no interest."""
        with warnings.catch_warnings():
            # Its import uses names that SciPy calls old.
            warnings.simplefilter("ignore", DeprecationWarning)
            foolbox: Any = importlib.import_module("foolbox")
        _seed_libraries(seed)
        model = foolbox.PyTorchModel(_Asked(attempt).eval(), bounds=(0, 1), device="cpu")
        estimated = foolbox.gradient_estimators.es_gradient_estimator(
            foolbox.attacks.LinfBasicIterativeAttack,
            samples=self.samples,
            sigma=self.sigma,
            bounds=(0, 1),
            clip=True,
        )
        estimated(abs_stepsize=self.step, steps=self.steps).run(
            model,
            torch.from_numpy(attempt.target.clean[None].copy()),
            torch.tensor([attempt.target.label]),
            epsilon=LINF.size,
        )


class _Asked(nn.Module):
    """The oracle as a network of PyTorch's."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self._attempt = attempt

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([self._attempt.look(x) for x in images.numpy()]))
