"""The detectors of one model, run level by level on those samples that are in doubt."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor

from detectors.base import Detector, Evidence, Need, peer_key
from proxy.cascade import Stand


class Panel:
    """Runs detectors on the device; what they found comes back to the CPU at once.

    Args:
        detectors: of one model, in configured order.
        on_detector: told each detector's name and seconds per pass.
    """

    def __init__(
        self, detectors: Sequence[Detector], on_detector: Callable[[str, float], None]
    ) -> None:
        self._detectors = tuple(detectors)
        self._on_detector = on_detector

    def advance(self, stand: Stand, evidence: Evidence) -> Stand:
        """Go on until no sample is in doubt, or the next level takes evidence that is not there.

        Detectors of that level that have theirs are run already.

        Args:
            evidence: on the samples in doubt alone, in order.
        """
        while stand.rows:
            missing = stand.missing(self._detectors)
            ready = [d for d in missing if is_there(d, evidence)]
            if ready:
                stand = stand.found(self.score(ready, evidence))
            if len(ready) < len(missing):
                break
            stand, stay = stand.settled()
            if stand.rows and len(stay) < len(evidence.x):
                evidence = _of(evidence, stay)
        return stand

    def score(self, chosen: Iterable[Detector], evidence: Evidence) -> dict[str, Tensor]:
        """Detector -> (B,) float32 on the CPU; one transfer for all."""
        scores = {}
        for detector in chosen:
            started = time.perf_counter()
            scores[detector.name] = detector.score(evidence)
            self._on_detector(detector.name, time.perf_counter() - started)
        if scores and evidence.x.device.type != "cpu":
            together = torch.stack(list(scores.values())).cpu()
            scores = dict(zip(scores, together.unbind(), strict=True))
        return scores

    def asks_more(self, stand: Stand) -> bool:
        """Whether samples in doubt are next looked at in copies, or by other models."""
        return bool(stand.rows) and any(
            d.needs is Need.VIEWS for d in stand.missing(self._detectors)
        )

    def available(self, *, output: bool, chain: bool, views: Collection[str] | None) -> list[str]:
        """The detectors whose evidence is there or to be had.

        Args:
            views: keys of the answers; None: all can be had.
        """
        return [
            d.name
            for d in self._detectors
            if (output or not d.asks)
            and (chain or d.needs is not Need.HISTORY)
            and (views is None or all(key in views for key in answers_of(d)))
        ]


def answers_of(detector: Detector) -> list[str]:
    """The keys in `Evidence.views` a detector needs."""
    return [*(view.key for view in detector.views), *(peer_key(peer) for peer in detector.peers)]


def is_there(detector: Detector, evidence: Evidence) -> bool:
    """Whether the evidence holds all the detector looks at."""
    return (
        (evidence.output is not None or not detector.asks)
        and (evidence.chain is not None or detector.needs is not Need.HISTORY)
        and all(key in evidence.views for key in answers_of(detector))
    )


def _of(evidence: Evidence, rows: Sequence[int]) -> Evidence:
    """The evidence on some of the samples."""
    chosen = torch.tensor(rows, device=evidence.x.device)
    return Evidence(
        evidence.x[chosen],
        None if evidence.output is None else evidence.output[chosen],
        {key: view[chosen] for key, view in evidence.views.items()},
        None if evidence.chain is None else evidence.chain[chosen],
    )
