"""What detectors share when they compare the model's answers to an input and to its views."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from detectors.answers import floored
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.tails import Tails
from purifiers import Purifier, PurifierError, build

TEMPERATURE = 10.0
"""Of the divergence, where nothing else is asked for."""
MEASURES = ("divergence", "loss")
"""The measures combined where nothing else is asked for. Chosen by measurement (CIFAR-10, JPEG-50
as the view, worst of 11 benign groups at 1 %, PGD-2 / PGD-4 / smooth PGD-4): these two 0.75 / 0.98
/ 0.19, the divergence alone 0.60 / 0.99 / 0.00, all three 0.64 / 0.52 / 0.17."""
_LEAST_CHANGE = 1e-4
"""Change of the softmax below which answers are alike."""
_LEAST_DIVERGENCE = 1e-8
"""Divergence below which answers agree to the precision of float32."""


def softmax_change(output: Tensor, others: Tensor) -> Tensor:
    """Log of the L1 distance between the softmaxes.

    Args:
        output: the model's own answer, (B, K) logits or log-probabilities.
        others: the answers it is compared with, (V, B, K).

    Returns:
        (V, B), log 1e-4 to about log 2.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.3.
    """
    shares = _together(output, others).softmax(2)
    distance = (shares[1:] - shares[:1]).abs().sum(2)
    return (distance + _LEAST_CHANGE).log()


def tempered_divergence(output: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Log of the Jensen-Shannon divergence, in nats, of the softmaxes at a temperature.

    At a high temperature it sees over-confident attacks, whose softmax at 1 hardly moves.
    Arguments as `softmax_change`; returns (V, B), log 1e-8 to about log log 2.

    Source: Lin, IEEE Trans. Inf. Theory 1991, for the divergence; Meng and Chen, CCS 2017 (arXiv
    1705.09064), 3.3, for temperatures above 1.
    """
    logs = (_together(output, others) / temperature).log_softmax(2)
    p, q = logs[:1], logs[1:]
    middle = torch.logaddexp(p, q) - math.log(2)
    divergence = ((p.exp() * (p - middle)).sum(2) + (q.exp() * (q - middle)).sum(2)) / 2
    return (divergence.clamp_min(0) + _LEAST_DIVERGENCE).log()


def choice_log_probability(output: Tensor, others: Tensor) -> Tensor:
    """Log-probability that each other answer gives the model's own choice.

    Arguments as `softmax_change`; returns (V, B), <= 0.
    """
    chosen = floored(output).argmax(1)[None, :, None].expand(len(others), -1, 1)
    return _floored(others).log_softmax(2).gather(2, chosen).squeeze(2)


class ViewDisagreement(Detector):
    """Change of the model's answer between an input and views of it, on the scale of benign tails.

    For each view: `divergence`, the tempered Jensen-Shannon divergence, which sees over-confident
    attacks; `loss`, the log-probability that the model's own choice loses, which sees boundary
    attacks; `softmax`, the L1 distance of the softmaxes. Each measure is mapped to -log of the
    benign share above it, and they are added.

    Args:
        views: what to compare with; one upstream query each.
        temperature: of the divergence, > 0.
        measures: which of the three to use.
    """

    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 2

    def __init__(
        self,
        views: Sequence[Purifier],
        temperature: float = TEMPERATURE,
        measures: Sequence[str] = MEASURES,
    ) -> None:
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise DetectorError(f"{self.name}: temperature must be > 0, not {temperature!r}")
        if not measures or len(set(measures)) != len(measures) or set(measures) - set(_MEASURED):
            raise DetectorError(
                f"{self.name}: measures are some of {', '.join(_MEASURED)}, not {measures!r}"
            )
        if len({view.key for view in views}) != len(views) or not views:
            raise DetectorError(f"{self.name}: needs at least one view, and each only once")
        self._temperature = float(temperature)
        self._measures_used = tuple(measures)
        self._views = tuple(views)
        self._tails: Tails | None = None

    @property
    def views(self) -> tuple[Purifier, ...]:
        """See `Detector.views`."""
        return self._views

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the benign tails of every measure, over all groups together."""
        with torch.inference_mode():
            measures = torch.cat([self._measures(evidence) for evidence in benign.values()])
        if len(measures) < 20 or not torch.isfinite(measures).all():
            raise DetectorError(f"{self.name}: needs at least 20 benign samples, all finite")
        self._tails = Tails.fit(measures)

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return self._tails.state() if self._tails else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        tails = Tails.from_state(state, device)
        if tails.knots.shape[0] != len(self._measures_used) * len(self._views):
            raise DetectorError(f"{self.name}: the state is of other views or measures")
        self._tails = tails

    def _score(self, evidence: Evidence) -> Tensor:
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._tails(self._measures(evidence)).sum(dim=1)

    def _measures(self, evidence: Evidence) -> Tensor:
        """Every measure of every view, (B, M * V)."""
        if evidence.output is None or any(v.key not in evidence.views for v in self._views):
            raise DetectorError(f"{self.name} needs the model's output and all its views")
        views = torch.stack([evidence.views[view.key] for view in self._views])  # (V, B, K)
        measured = [
            _MEASURED[name](evidence.output, views, self._temperature)
            for name in self._measures_used
        ]
        return torch.cat(measured).T


def view_of(owner: str, part: Mapping[str, Any]) -> Purifier:
    """The purifier that a configuration names, as a view of the detector `owner`.

    Raises:
        DetectorError: the part is not {name, params}, or there is no such purifier.
    """
    if not isinstance(part, Mapping) or "name" not in part or set(part) - {"name", "params"}:
        raise DetectorError(f"{owner}: a view is {{name, params}}, not {part!r}")
    try:
        return build(part["name"], part.get("params"))
    except PurifierError as error:
        raise DetectorError(f"{owner}: view {error}") from error


def _choice_lost(output: Tensor, others: Tensor) -> Tensor:
    """How much less probable the model's own choice is in the other answers, log, (V, B)."""
    found = choice_log_probability(output, torch.cat((output[None], others)))
    return found[:1] - found[1:]


def _together(output: Tensor, others: Tensor) -> Tensor:
    """The model's own answer and then the others, floored, (1 + V, B, K)."""
    return _floored(torch.cat((output[None], others)))


def _floored(answers: Tensor) -> Tensor:
    """`floored` for the answers to several views, (V, B, K)."""
    return floored(answers.flatten(0, 1)).view(answers.shape)


_MEASURED: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "divergence": tempered_divergence,
    "loss": lambda output, others, _: _choice_lost(output, others),
    "softmax": lambda output, others, _: softmax_change(output, others),
}
