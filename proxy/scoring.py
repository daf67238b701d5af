"""The device side of a defence: pixels to scores, scores to verdicts.

Everything here runs on the device thread, on lists of items that the batcher put together; the
event loop sees only plain Python and numpy in `Glance` and `SampleVerdict`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need, peer_key
from detectors.query_history import QueryHistory
from proxy import weights
from proxy.adapt import ModelSpec
from proxy.artifacts import Artifact, Provenance
from proxy.case import Case, Glance, Pixels
from proxy.config import Model
from proxy.errors import ConfigError, DetectorFailed, InvalidTensor
from proxy.flow import SampleVerdict
from proxy.history.fingerprints import Fingerprinter, Prints
from proxy.history.salts import Salts
from proxy.kinds import codec_of
from proxy.parts import build_detectors, build_purifiers
from proxy.purification import Purification
from proxy.rules import LEVELS, Rules


class Scorer:
    """The detectors, calibration and purifiers of one model.

    Args:
        spec: the model's tensors.
        model: its configuration.
        artifact: its calibration, loaded on `device`.
        device: where to compute.
        on_detector: told each detector's name and seconds per pass.
        salts: what the history's fingerprints are salted with; without them none are made.

    Raises:
        ConfigError: a part's name or parameters are wrong, or the calibration lacks the wanted
            false-positive rate.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Model,
        artifact: Artifact,
        device: torch.device,
        on_detector: Callable[[str, float], None],
        salts: Salts | None = None,
    ) -> None:
        self._codec = codec_of(spec)
        self._spec = spec
        self._device = device
        self._on_detector = on_detector
        self._detectors = build_detectors(model)
        check_evidence(spec, self._detectors)
        self.provenance: Provenance = artifact.provenance
        """Where the calibration came from."""
        chain = build_purifiers(model)
        weights.give([*self._detectors, *chain], artifact.networks)
        self._restore(artifact)
        self.purification = Purification(spec, self._codec, model, chain, device)
        """What is done to suspicious samples."""
        self._views = {view.key: view for d in self._detectors for view in d.views}
        self._peers = {peer_key(peer): peer for d in self._detectors for peer in d.peers}
        self._fingerprint = None
        if salts is not None and self.remembers:
            self._fingerprint = Fingerprinter(
                salts.steady(spec.model), lambda: salts.of(spec.model)
            )
        fpr = model.query_attacks.fpr
        alarms = (d.alarm_level(fpr) for d in self._detectors if isinstance(d, QueryHistory))
        self._rules = Rules(
            spec.model,
            model,
            artifact.calibration,
            self._detectors,
            alarm=next(alarms, math.inf),
        )

    @property
    def threshold_bounds(self) -> dict[str, tuple[float, float]]:
        """Evidence level -> (threshold, upper bound of its false-positive rate)."""
        thresholds = self._rules.thresholds.items()
        return {level: (each.value, each.fpr_upper) for level, each in thresholds}

    def rotate(self) -> bool:
        """See `Rules.rotate`; on any thread but the device's."""
        return self._rules.rotate()

    @property
    def needs_output(self) -> bool:
        """Whether some detector looks at the model's answer."""
        return any(d.asks for d in self._detectors)

    @property
    def remembers(self) -> bool:
        """Whether some detector looks at the queries before."""
        return any(d.needs is Need.HISTORY for d in self._detectors)

    @property
    def view_keys(self) -> tuple[str, ...]:
        """The transformed copies wanted, in the order of `Glance.copies`."""
        return tuple(self._views)

    @property
    def peers(self) -> dict[str, str]:
        """The other models to ask about the unchanged input, by the key of the answer."""
        return self._peers

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors, in configured order."""
        return self._detectors

    def look(self, items: Sequence[Pixels]) -> list[Glance | Exception]:
        """First pass: decode, score what needs the input only, make the copies.

        Items must have equal sample shapes; an item that cannot be decoded fails alone.
        """
        decoded = [self._decode(item) for item in items]
        good = [x for x in decoded if isinstance(x, Tensor)]
        if not good:
            return [x if isinstance(x, Exception) else Glance(x, {}) for x in decoded]
        x = (torch.cat(good) if len(good) > 1 else good[0]).to(self._device)
        scores = self._score(Evidence(x), [d for d in self._detectors if d.needs is Need.INPUT])
        prints = None if self._fingerprint is None else self._prints(self._fingerprint, x, scores)
        # Only instead of copies: answers that come by themselves cost nothing.
        copies = any(item.copies for item in items)
        settled = iter(self._rules.settle(scores if copies else {}, [len(own) for own in good]))
        glances: list[Glance | Exception] = []
        at = 0
        for item, own in zip(items, decoded, strict=True):
            if isinstance(own, Exception):
                glances.append(own)
                continue
            rows = slice(at, at + len(own))
            at += len(own)
            of_item = {name: s[rows] for name, s in scores.items()}
            verdicts = next(settled)
            glances.append(
                Glance(
                    x[rows],
                    of_item,
                    settled=verdicts if item.copies else None,
                    prints=None if prints is None else prints[rows],
                )
            )
        return self._with_copies(items, glances)

    def judge(self, cases: Sequence[Case]) -> list[tuple[SampleVerdict, ...] | Exception]:
        """Second pass: score what needs answers, fuse, compare with the threshold.

        Cases must have equal sample shapes and the same kinds of evidence.
        """
        level = self._level(cases[0])
        chosen = [d for d in self._detectors if LEVELS.index(d.needs) <= level]
        if not chosen:
            return [DetectorFailed("no_evidence") for _ in cases]
        evidence = self._evidence(cases)
        scores = {
            name: torch.cat([case.glance.scores[name] for case in cases])
            for name in cases[0].glance.scores
        }
        scores |= self._score(evidence, [d for d in chosen if d.needs is not Need.INPUT])
        samples = self._rules.judge(scores)
        return _split(samples, [len(case.glance.x) for case in cases])

    def samples(self, shape: Sequence[int]) -> int:
        """How many samples a tensor of this wire shape holds (raises InvalidTensor)."""
        return self._codec.samples(shape)

    # -- parts -----------------------------------------------------------------------------------

    def _restore(self, artifact: Artifact) -> None:
        for detector in self._detectors:
            try:
                detector.load_state(artifact.states.get(detector.name, {}), self._device)
            except DetectorError as error:
                raise ConfigError(
                    f"models.{self._spec.model}: the calibration does not fit: {error}; "
                    "calibrate again"
                ) from error

    def _prints(
        self, fingerprint: Fingerprinter, x: Tensor, scores: Mapping[str, Tensor]
    ) -> Prints:
        started = time.perf_counter()
        anomaly = self._rules.anomaly(scores)
        prints = fingerprint(x, x.new_zeros(len(x)) if anomaly is None else anomaly)
        self._on_detector("history", time.perf_counter() - started)
        return prints

    def _decode(self, item: Pixels) -> Tensor | Exception:
        try:
            return self._codec.decode(item.data, item.shape)
        except InvalidTensor as error:
            return error

    def _with_copies(
        self, items: Sequence[Pixels], glances: Sequence[Glance | Exception]
    ) -> list[Glance | Exception]:
        """The glances, with copies for those that want some and are not settled."""
        wanting = [
            i
            for i, (item, glance) in enumerate(zip(items, glances, strict=True))
            if isinstance(glance, Glance) and item.copies and glance.settled is None
        ]
        done = list(glances)
        if not (wanting and self._views):
            return done
        x = torch.cat([glance.x for i in wanting if isinstance(glance := done[i], Glance)])
        copies = {key: view.purify(x).cpu() for key, view in self._views.items()}
        at = 0
        for i in wanting:
            glance = done[i]
            assert isinstance(glance, Glance)  # noqa: S101 (chosen so)
            rows = slice(at, at + len(glance.x))
            at += len(glance.x)
            encoded = {key: self._codec.encode(copy[rows]) for key, copy in copies.items()}
            done[i] = replace(glance, copies=encoded)
        return done

    def _score(self, evidence: Evidence, chosen: Iterable[Detector]) -> dict[str, Tensor]:
        scores = {}
        for detector in chosen:
            started = time.perf_counter()
            scores[detector.name] = detector.score(evidence)
            self._on_detector(detector.name, time.perf_counter() - started)
        return scores

    def _level(self, case: Case) -> int:
        """Index into `LEVELS` of the dearest evidence this case has in full."""
        if case.output is None:
            need = Need.INPUT if case.chain is None else Need.HISTORY
        else:
            whole = all(key in case.views for key in (*self._views, *self._peers))
            need = Need.VIEWS if whole else Need.OUTPUT
        return LEVELS.index(need)

    def _evidence(self, cases: Sequence[Case]) -> Evidence:
        outputs = [case.output for case in cases if case.output is not None]
        keys = cases[0].views.keys()
        links = [case.chain for case in cases if case.chain is not None]
        return Evidence(
            torch.cat([case.glance.x for case in cases]),
            self._answers(outputs) if outputs else None,
            {key: self._answers([case.views[key] for case in cases]) for key in keys},
            self._answers(links) if links else None,
        )

    def _answers(self, outputs: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """(B, K) on the device; the copy that concatenating makes is ours to write."""
        return torch.from_numpy(np.concatenate(outputs)).to(self._device)


def check_evidence(spec: ModelSpec, parts: Sequence[Detector]) -> None:
    """Raise ConfigError if detectors can never have the evidence they need from this model."""
    asking = [d.name for d in parts if d.asks]
    if asking and spec.output is None:
        raise ConfigError(
            f"models.{spec.model}.output: kind is none, but {', '.join(asking)} need the model's "
            "answer"
        )
    if asking and not spec.can_query:
        raise ConfigError(
            f"models.{spec.model}.detectors: a stateful or decoupled model cannot be asked about "
            f"copies, and {', '.join(asking)} need its answers; use detectors that look at the "
            "input only"
        )


def use_device(wanted: str) -> torch.device:
    """Set torch up for `auto`, `cpu` or `cuda`, and return the device.

    Batches this small are done before a second thread has woken up, and the event loop needs that
    core: with two threads on two cores enforce was 1.7 to 10 times slower (`python -m
    loadtests.overhead`, with OMP_NUM_THREADS=1 and without, at the state before this line).

    Raises:
        ConfigError: CUDA is wanted in vain.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("device: cuda, but PyTorch sees no CUDA device; use auto or cpu")
    torch.set_num_threads(1)
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def _split(
    samples: Sequence[SampleVerdict], sizes: Sequence[int]
) -> list[tuple[SampleVerdict, ...] | Exception]:
    parts: list[tuple[SampleVerdict, ...] | Exception] = []
    at = 0
    for size in sizes:
        parts.append(tuple(samples[at : at + size]))
        at += size
    return parts
