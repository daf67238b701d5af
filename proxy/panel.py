"""The detectors of one model, run level by level on those samples that are in doubt."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor

from detectors.base import Detector, Evidence, Need, peer_key
from proxy.breaker import Circuits
from proxy.cascade import Stand
from proxy.memory_ladder import is_out_of_memory

_PHOTOGRAPH = 3 * 224 * 224
"""Values of an input that may take its detector the whole budget. Clients choose how large their
requests are, and must not make a detector look broken to everybody by that."""


class Panel:
    """Runs detectors on the device; what they found comes back to the CPU at once.

    Args:
        detectors: of one model, in configured order.
        on_detector: told each detector's name and seconds per pass.
        limit_s: a pass of one detector over one photograph that takes longer has overrun,
            seconds; larger passes may take as much longer as they are larger.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        on_detector: Callable[[str, float], None],
        limit_s: float,
    ) -> None:
        self._detectors = tuple(detectors)
        self._on_detector = on_detector
        self._limit_s = limit_s
        self.circuits = Circuits(detector.name for detector in detectors)
        """Told of every pass, good or bad."""

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
            try:
                scores[detector.name] = detector.score(evidence)
            except Exception as error:
                if not is_out_of_memory(error):  # the batch was too large, that is all
                    self.circuits.failed(detector.name)
                raise
            seconds = time.perf_counter() - started
            self._on_detector(detector.name, seconds)
            allowed_s = self._limit_s * max(1.0, evidence.x.numel() / _PHOTOGRAPH)
            note = self.circuits.failed if seconds > allowed_s else self.circuits.succeeded
            note(detector.name)
        if scores and evidence.x.device.type != "cpu":
            together = torch.stack(list(scores.values())).cpu()
            scores = dict(zip(scores, together.unbind(), strict=True))
        return scores

    def asks_more(self, stand: Stand) -> bool:
        """Whether samples in doubt are next looked at in copies, or by other models."""
        return bool(stand.rows) and any(
            d.needs is Need.VIEWS for d in stand.missing(self._detectors)
        )

    def questions(self, stand: Stand) -> set[str]:
        """Keys of the answers to queries that the rule's detectors look at."""
        names = stand.rule.names
        return {key for d in self._detectors if d.name in names for key in answers_of(d)}

    def unanswered(self, keys: Collection[str]) -> None:
        """Hold answers that did not come against the detectors that wanted them."""
        for detector in self._detectors:
            if any(key in keys for key in answers_of(detector)):
                self.circuits.failed(detector.name)

    def available(
        self,
        *,
        output: bool,
        chain: bool,
        views: Collection[str] | None,
        left_out: Collection[str] = (),
    ) -> list[str]:
        """The detectors whose evidence is there or to be had.

        Args:
            views: keys of the answers; None: all can be had.
            left_out: names of those to do without.
        """
        return [
            d.name
            for d in self._detectors
            if d.name not in left_out
            and (output or not d.asks)
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
