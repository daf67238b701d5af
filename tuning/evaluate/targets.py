"""Defended systems as the adaptive attacker sees them: images to responses, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from detectors.base import Detector, Evidence, peer_key
from detectors.chains import FEATURES
from purifiers import Chain, Purifier
from tuning.evaluate.adaptive import Response

Model = Callable[[Tensor], Tensor]
"""Images in [0, 1] (B, C, H, W) -> logits (B, K), each sample by itself."""


class Through:
    """A purifier an attacker can look through: its own gradient, or the identity's.

    The identity stands in where the purifier's own gradient is zero, as behind a rounding (BPDA,
    Athalye et al., ICML 2018, arXiv 1802.00420). For JPEG without subsampling that is the gradient
    of the transform with a straight-through rounding. Each member of a chain has its own.

    Args:
        purifier: what to look through.
        generator: source of its random choices.
        identity: use the identity in any case.
    """

    def __init__(
        self, purifier: Purifier, generator: torch.Generator, *, identity: bool = False
    ) -> None:
        self._generator = generator
        self._steps = purifier.purifiers if isinstance(purifier, Chain) else (purifier,)
        self._identity = {step.key: True for step in self._steps} if identity else {}
        self.is_random = purifier.is_random

    def __call__(self, x: Tensor) -> Tensor:
        """The purified copies; differentiable with respect to `x`."""
        for step in self._steps:
            y = step.purify(x, self._generator, gradients=torch.is_grad_enabled())
            if x.requires_grad:
                if step.key not in self._identity:
                    self._identity[step.key] = _has_no_gradient(y, x)
                y = x + (y - x).detach() if self._identity[step.key] else y
            x = y
        return x


def _has_no_gradient(y: Tensor, x: Tensor) -> bool:
    if not y.requires_grad:
        return True
    # Unequal weights: a purifier that keeps the mean has no gradient of the plain sum.
    weights = torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y)
    (gradient,) = torch.autograd.grad(
        (y * weights).sum(), x, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return not bool(gradient.any())


class Watch:
    """The model's own answer, and the fused score of all detectors minus its threshold.

    Every sample counts as the first query of its kind: a single adversarial image needs no others.

    Args:
        model: the model behind the proxy.
        parts: fitted detectors.
        fuse: detector -> (B,) scores, to the fused score (B,); `Rule.score`.
        threshold: above it a sample is suspicious; `Rule.threshold.value`.
        peers: other models the detectors ask, by name.
        seed: of random views; the attacker does not get to choose it.
    """

    def __init__(
        self,
        model: Model,
        parts: Sequence[Detector],
        fuse: Callable[[Mapping[str, Tensor]], Tensor],
        threshold: float,
        *,
        peers: Mapping[str, Model] | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self._parts, self._fuse, self._threshold = model, parts, fuse, threshold
        generator = torch.Generator().manual_seed(seed)
        views = {view.key: view for part in parts for view in part.views}
        self._views = {key: Through(view, generator) for key, view in views.items()}
        self._peers = dict(peers or {})
        self.is_random = any(view.is_random for view in self._views.values())

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Answers (B, K) and suspicion (B,)."""
        copies = [view(x) for view in self._views.values()]
        output, *seen = self.model(torch.cat([x, *copies])).split(len(x))
        views = dict(zip(self._views, seen, strict=True))
        views |= {peer_key(name): peer(x) for name, peer in self._peers.items()}
        evidence = Evidence(x, output, views, x.new_zeros(len(x), len(FEATURES)))
        gradients = torch.is_grad_enabled()
        scores = {part.name: part.score(evidence, gradients=gradients) for part in self._parts}
        return output, self._fuse(scores) - self._threshold


class Undefended:
    """The model alone; with a purifier, purification without detection."""

    def __init__(self, model: Model, purify: Through | None = None) -> None:
        self._model, self._purify = model, purify
        self.is_random: bool = purify is not None and purify.is_random

    def __call__(self, x: Tensor) -> Response:
        """See `Target`."""
        answers = self._model(x if self._purify is None else self._purify(x))
        return Response(answers, answers.new_full((len(x),), -1.0))


class Guarded:
    """A model whose suspicious samples are refused.

    Args:
        watch: model and detectors.
        purify: what every accepted sample goes through before it is answered; None serves the
            model's own answer.
    """

    def __init__(self, watch: Watch, purify: Through | None = None) -> None:
        self._watch, self._purify = watch, purify
        self.is_random = watch.is_random or (purify is not None and purify.is_random)

    def __call__(self, x: Tensor) -> Response:
        """See `Target`."""
        answers, suspicion = self._watch(x)
        if self._purify is not None:
            answers = self._watch.model(self._purify(x))
        return Response(answers, suspicion)


class Provoked:
    """The other way through a system that purifies when in doubt, and refuses nothing.

    An attacker wins against it either unseen with a wrong answer of the model itself (`Guarded`
    without a purifier), or by being flagged on purpose with an image whose purified copy is
    misclassified: this target, whose suspicion is the distance below the threshold. `attack` both;
    the system is as weak as the weaker.
    """

    def __init__(self, watch: Watch, purify: Through) -> None:
        self._watch, self._purify = watch, purify
        self.is_random = watch.is_random or purify.is_random

    def __call__(self, x: Tensor) -> Response:
        """See `Target`."""
        _, suspicion = self._watch(x)
        # A score that is not finite is a failure, and purified too.
        return Response(self._watch.model(self._purify(x)), -suspicion)


class Either:
    """A model whose answer may be to the image or to its purified copy, the attacker cannot tell.

    What one attacks who knows the purifiers and not the detectors: the mean of both answers.
    """

    def __init__(self, model: Model, purify: Through) -> None:
        self._model, self._purify = model, purify
        self.is_random = purify.is_random

    def __call__(self, x: Tensor) -> Response:
        """See `Target`."""
        own, purified = self._model(torch.cat([x, self._purify(x)])).split(len(x))
        both = torch.stack((own.log_softmax(1), purified.log_softmax(1)))
        return Response(both.logsumexp(0), x.new_full((len(x),), -1.0))
