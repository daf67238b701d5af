"""The device side of a defence: pixels to scores, scores to verdicts.

Everything here runs on the device thread, on lists of items that the batcher put together; the
event loop sees only plain Python and numpy in `Glance` and `SampleVerdict`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need, peer_key
from detectors.drift_inputs import input_statistics
from detectors.query_history import QueryHistory
from detectors.rule import Rule
from proxy import weights
from proxy.adapt import ModelSpec
from proxy.artifacts import Artifact, Provenance
from proxy.breaker import Circuits
from proxy.cascade import Stand, join, split
from proxy.case import Case, Glance, Pixels
from proxy.config import Model
from proxy.drift.thrift import ROWS, Thrift
from proxy.errors import ConfigError, DetectorFailed, InvalidTensor
from proxy.flow import SampleVerdict
from proxy.history.fingerprints import Fingerprinter, Prints
from proxy.history.salts import Salts
from proxy.kinds import codec_of
from proxy.panel import Panel
from proxy.parts import build_detectors, build_purifiers
from proxy.purification import Purification, Purifying
from proxy.quick import is_light, is_quick, row_scores
from proxy.rules import NoRule, Rules

Rows = TypeVar("Rows", Tensor, npt.NDArray[np.float32])
Outcome = TypeVar("Outcome", bound="tuple[SampleVerdict, ...] | Glance | Exception")


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
        self.purification: Purifying = Purification(spec, self._codec, model, chain, device)
        """What is done to suspicious samples."""
        self._views = {view.key: view for d in self._detectors for view in d.views}
        self._peers = {peer_key(peer): peer for d in self._detectors for peer in d.peers}
        self._fingerprint = None
        if salts is not None and self.remembers:
            self._fingerprint = Fingerprinter(
                salts.steady(spec.model), lambda: salts.of(spec.model)
            )
        self._watches = model.drift.enabled
        self._thrift = Thrift()
        self._light = {d.name: d for d in self._detectors if is_light(d)}
        self._panel = Panel(self._detectors, on_detector, model.budget_ms / 1000)
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

    def wider(self, threshold: float) -> float:
        """See `Rules.wider`."""
        return self._rules.wider(threshold)

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
    def asks_queries(self) -> bool:
        """Whether some detector looks at answers to copies or of other models."""
        return bool(self._views or self._peers)

    @property
    def circuits(self) -> Circuits:
        """Which detectors are to be done without for now."""
        return self._panel.circuits

    def unanswered(self, keys: Collection[str]) -> None:
        """See `Panel.unanswered`."""
        self._panel.unanswered(keys)

    def can_do_without(self, left_out: Collection[str]) -> bool:
        """Whether there are rules for the other detectors alone; `prepare` makes them."""
        return all(map(self._rules.has, self._rules.sets_without(left_out)))

    def prepare(self, left_out: Collection[str]) -> bool:
        """Make the rules for the other detectors, in tenths of a second; on a thread of its own."""
        made = [self._rules.prepare(names) for names in self._rules.sets_without(left_out)]
        return all(made)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors, in configured order."""
        return self._detectors

    def look(self, items: Sequence[Pixels]) -> list[Glance | Exception]:
        """First pass: decode, score as far as the input alone leads, make the copies.

        Items must have equal sample shapes; an item that cannot be decoded fails alone.
        """
        decoded = [self._decode(item) for item in items]
        good = [x for x in decoded if isinstance(x, Tensor)]
        if not good:
            return [each for each in decoded if isinstance(each, Exception)]
        x = (torch.cat(good) if len(good) > 1 else good[0]).to(self._device)
        left_out = items[0].left_out
        try:
            rule = self._rule(left_out)
        except NoRule:
            return [DetectorFailed("circuit_open") for _ in items]
        with torch.inference_mode():
            stand, prints = self._first(x, rule)
            statistics = self._statistics(x)
        sizes = [len(own) for own in good]
        parts = zip(x.split(sizes), split(stand, sizes), strict=True)
        glances: list[Glance | Exception] = []
        at = 0
        for item, own in zip(items, decoded, strict=True):
            if isinstance(own, Exception):
                glances.append(own)
                continue
            rows = slice(at, at + len(own))
            of_item = None if prints is None else prints[rows]
            figures = None if statistics is None else statistics[rows]
            at += len(own)
            glance = self._glance(*next(parts), of_item, copies=item.copies)
            glances.append(replace(glance, left_out=left_out, statistics=figures))
        return self._with_copies(glances)

    def judge(self, cases: Sequence[Case]) -> list[tuple[SampleVerdict, ...] | Glance | Exception]:
        """A further pass: score what needs answers, fuse, compare with the threshold.

        Cases must have equal sample shapes, the same kinds of evidence, and glances of one level.

        Returns:
            For each case the verdicts; or a glance with what is to be asked next, where samples
            stay in doubt and there can be more.
        """
        with torch.inference_mode():
            stands = [self._resumed(case) for case in cases]
            known = [stand for stand in stands if stand is not None]
            if len(known) < len(cases):
                return [DetectorFailed("no_evidence") for _ in cases]
            stand = join(known)
            if cases[0].chain is not None:
                stand = self._remembered(stand, cases)
            if stand.rows:
                stand = self._panel.advance(stand, self._evidence(cases, known))
        results: list[tuple[SampleVerdict, ...] | Glance | Exception] = []
        for case, own in zip(cases, split(stand, [len(c.glance.x) for c in cases]), strict=True):
            if not own.rows:
                results.append(tuple(self._rules.verdicts(own)))
            elif case.more:
                glance = self._glance(case.glance.x, own, case.glance.prints, copies=True)
                results.append(replace(glance, left_out=case.glance.left_out))
            else:
                results.append(DetectorFailed("no_evidence"))
        if any(isinstance(each, Glance) for each in results):
            return self._with_copies(results)
        return results

    def is_quick(self, case: Case) -> bool:
        """Whether `judge_here` will do; see `proxy.quick`."""
        return self._device.type == "cpu" and is_quick(case, self._light)

    def judge_here(self, case: Case) -> tuple[SampleVerdict, ...] | Glance:
        """As `judge`, for one quick case, on any thread; raises what that would return.

        Light detectors keep nothing between passes, the rules are replaced in one assignment, and
        the circuits have a lock. It takes too little memory for the engine's ladder.
        """
        stand = self._resumed(case)
        if stand is not None:
            scores = row_scores(case, stand, self._light, self._scored)
            verdict = None if scores is None else self._rules.verdict(stand.rule, scores)
            if verdict is not None:
                return (verdict,)
        (found,) = Scorer.judge(self, [case])
        if isinstance(found, Exception):
            raise found
        return found

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

    def _rule(self, left_out: Collection[str]) -> Rule:
        if not left_out:
            return self._rules.whole
        return self._rules.rule(d.name for d in self._detectors if d.name not in left_out)

    def _first(self, x: Tensor, rule: Rule) -> tuple[Stand, Prints | None]:
        """How far the input alone leads, and fingerprints where queries are remembered."""
        stand = Stand.start(rule, len(x))
        prints = None
        evidence = Evidence(x)
        if self._fingerprint is not None:
            # A chain is judged by what all of them say, whoever is in doubt.
            known = rule.names
            looking = [d for d in self._detectors if d.needs is Need.INPUT and d.name in known]
            stand = stand.found(self._panel.score(looking, evidence))
            started = time.perf_counter()
            anomaly = self._rules.anomaly(stand.scores)
            none = torch.zeros(len(x))
            prints = self._fingerprint(x, none if anomaly is None else anomaly)
            self._on_detector("history", time.perf_counter() - started)
        return self._panel.advance(stand, evidence), prints

    def _statistics(self, x: Tensor) -> npt.NDArray[np.float32] | None:
        """What drift is seen by, (B, S) on the CPU, one transfer for all; NaN for some samples.

        None where drift is not watched, or the inputs are not measured this time.
        """
        if not (self._watches and len(x) and self._thrift.begin()):
            return None
        measured = torch.stack(list(input_statistics(x[:ROWS]).values()), dim=1).cpu().numpy()
        self._thrift.end()
        rest = np.full((len(x) - len(measured), measured.shape[1]), np.nan, np.float32)
        return np.concatenate([measured, rest]) if len(rest) else measured

    def _glance(self, x: Tensor, stand: Stand, prints: Prints | None, *, copies: bool) -> Glance:
        settled = None if stand.rows else tuple(self._rules.verdicts(stand))
        queries = copies and self._panel.asks_more(stand)
        peers = self._peers
        if queries:
            wanted = self._panel.questions(stand)
            peers = {key: peer for key, peer in peers.items() if key in wanted}
        known = {}
        if len(stand.reached) == 1:
            known = {name: each.item() for name, each in stand.scores.items()}
        return Glance(
            x,
            settled=settled,
            prints=prints,
            stand=stand,
            known=known,
            queries=queries,
            peers=peers,
        )

    def _scored(self, name: str, seconds: float) -> None:
        self._on_detector(name, seconds)
        self.circuits.succeeded(name)

    def _resumed(self, case: Case) -> Stand | None:
        """Where to go on with a case: from the start, where other detectors are there by now."""
        stand = case.glance.stand
        if stand is None or not stand.rows:
            return stand
        there = self._panel.available(
            output=case.output is not None,
            chain=case.chain is not None,
            views=None if case.more else case.views.keys(),
            left_out=case.glance.left_out,
        )
        if len(there) == len(stand.rule.names) or not there:
            return stand if there else None
        try:
            rule = self._rules.rule(there)
        except NoRule:
            # Answers to some copies only: there is always a rule for none.
            less = self._panel.available(
                output=case.output is not None,
                chain=case.chain is not None,
                views=(),
                left_out=case.glance.left_out,
            )
            try:
                rule = self._rules.rule(less)
            except NoRule:
                return None
        return stand.again(rule)

    def _remembered(self, stand: Stand, cases: Sequence[Case]) -> Stand:
        """With what the history says of all samples: one settled may be part of a series."""
        left_out = cases[0].glance.left_out
        history = [d for d in self._detectors if d.needs is Need.HISTORY and d.name not in left_out]
        if all(d.name in stand.scores for d in history):
            return stand
        x = torch.cat([case.glance.x for case in cases])
        chain = self._answers([case.chain for case in cases if case.chain is not None])
        scores = self._panel.score(history, Evidence(x, chain=chain))
        return replace(stand, scores={**stand.scores, **scores})

    def _decode(self, item: Pixels) -> Tensor | Exception:
        try:
            return self._codec.decode(item.data, item.shape)
        except InvalidTensor as error:
            return error

    def _with_copies(self, found: Sequence[Outcome]) -> list[Outcome]:
        """The same, with copies of the samples in doubt for the glances that go on with queries."""
        done = list(found)
        wanting = [
            (i, each) for i, each in enumerate(done) if isinstance(each, Glance) and each.queries
        ]
        if not (wanting and self._views):
            return done
        parts = [_rows(glance.x, glance.rows) for _, glance in wanting]
        x = torch.cat(parts)
        stand = wanting[0][1].stand
        asked = set() if stand is None else self._panel.questions(stand)
        views = {key: view for key, view in self._views.items() if key in asked}
        copies = {key: view.purify(x).cpu() for key, view in views.items()}
        at = 0
        for (i, glance), part in zip(wanting, parts, strict=True):
            rows = slice(at, at + len(part))
            at += len(part)
            encoded = {key: self._codec.encode(copy[rows]) for key, copy in copies.items()}
            done[i] = replace(glance, copies=encoded)
        return done

    def _evidence(self, cases: Sequence[Case], stands: Sequence[Stand]) -> Evidence:
        """What there is on the samples in doubt."""
        each = list(zip(cases, stands, strict=True))
        outputs = [_rows(c.output, s.rows) for c, s in each if c.output is not None]
        links = [_rows(c.chain, s.rows) for c, s in each if c.chain is not None]
        keys = cases[0].views.keys()
        return Evidence(
            torch.cat([_rows(c.glance.x, s.rows) for c, s in each]),
            self._answers(outputs) if outputs else None,
            {key: self._answers([_view(c, s, key) for c, s in each]) for key in keys},
            self._answers(links) if links else None,
        )

    def _answers(self, outputs: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """(B, K) on the device; the copy that concatenating makes is ours to write."""
        return torch.from_numpy(np.concatenate(outputs)).to(self._device)


def _rows(whole: Rows, chosen: Sequence[int]) -> Rows:
    """Some of the samples, ascending; the very same where it is all of them."""
    return whole if len(chosen) == len(whole) else whole[list(chosen)]


def _view(case: Case, stand: Stand, key: str) -> npt.NDArray[np.float32]:
    """One view's answers for the samples in doubt; NaN for those not asked about."""
    view = case.views[key]
    if stand.rows == case.glance.rows:
        return view
    whole = np.full((len(case.glance.x), view.shape[1]), np.nan, np.float32)
    whole[list(case.glance.rows)] = view
    return _rows(whole, stand.rows)


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
