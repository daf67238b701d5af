"""Which recorded requests another policy would treat otherwise, before it is put in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from proxy import artifacts, configfile, policy
from proxy.artifacts import Artifact
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.explorer.sweep import Sweep
from proxy.flow import SampleVerdict, Verdict
from proxy.records.snapshot import Snapshot

MOST = 1_000_000
"""Samples of a snapshot, at most; a reservoir holds a fiftieth of that."""

Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Policy:
    """A model's policy with its calibration."""

    file: Path
    model: Model
    artifact: Artifact
    sweep: Sweep

    @classmethod
    def load(cls, file: Path, name: str) -> Policy:
        """Read the policy of a model from a configuration file.

        Raises:
            ConfigError: the file or its calibration cannot be used, or it does not score the model.
        """
        model = configfile.load(file).models.get(name)
        if model is None or not model.detectors or model.calibration is None:
            raise ConfigError(
                f"{file}: models.{name} has no detectors: there is nothing to compare"
            )
        try:
            artifact = artifacts.load(model.calibration, name, model, torch.device("cpu"))
            return cls(file, model, artifact, Sweep(name, model, artifact.calibration))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded samples of one model, a row each, newest first."""

    model: str
    defence: str
    """Digest of the calibration in force when they were recorded."""
    seen: int
    ids: Texts
    labels: Texts
    chained: Flags
    """Part of a series of queries, or of a principal in quarantine."""
    scores: Mapping[str, npt.NDArray[np.float32]]
    """Detector -> (N,), NaN where it did not look."""

    @classmethod
    def read(cls, value: Any, name: str) -> Recorded:
        """Check a snapshot that comes from elsewhere.

        Raises:
            ConfigError: it is none, or of another model.
        """
        try:
            snapshot = Snapshot.from_json(value)
            if snapshot.kept > MOST:
                raise ValueError(f"{snapshot.kept} samples, more than {MOST}")
            columns = snapshot.columns
            newest = np.argsort(-np.array(columns["time_s"], np.float64), kind="stable")
            texts = {each: np.array(columns[each], object)[newest] for each in ("id", "label")}
            if not all(isinstance(text, str) for each in texts.values() for text in each):
                raise ValueError("ids and labels are text")
            found = cls(
                *(str(snapshot.model), str(snapshot.defence), int(snapshot.seen)),
                texts["id"].astype(np.str_),
                texts["label"].astype(np.str_),
                np.array(columns["chain"], np.bool_)[newest],
                {
                    each: np.array(scores, np.float32)[newest]
                    for each, scores in snapshot.scores.items()
                },
            )
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ConfigError(f"the recorded scores cannot be used: {error}") from error
        if found.model != name:
            raise ConfigError(f"the recorded scores are of model {found.model!r}, not {name!r}")
        return found


@dataclass(frozen=True, slots=True)
class Judged:
    """What a policy says of recorded samples."""

    known: Flags
    """Whether it can be told."""
    suspicious: Flags
    actions: Texts
    """What it would do with a request of that sample alone, in enforce."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Recorded samples under two policies."""

    recorded: Recorded
    current: Judged
    new: Judged
    untold: tuple[str, ...]
    """Detectors of the new policy whose scores were not recorded, or are not comparable."""

    @property
    def known(self) -> Flags:
        """The samples that both can be told of."""
        return self.current.known & self.new.known

    @property
    def affected(self) -> Flags:
        """Those with another verdict or action."""
        other = (self.current.suspicious != self.new.suspicious) | (
            self.current.actions != self.new.actions
        )
        found: Flags = self.known & other
        return found

    @property
    def delayed(self) -> Flags:
        """Those that would wait for being purified, and do not now."""
        purified = [np.isin(each.actions, ("purify", "decoy")) for each in (self.new, self.current)]
        found: Flags = self.known & purified[0] & ~purified[1]
        return found


def compare(recorded: Recorded, current: Policy, new: Policy) -> Difference:
    """Judge recorded samples by both policies.

    Raises:
        ConfigError: the samples were recorded under another calibration than the current policy's.
    """
    if recorded.defence and recorded.defence != current.artifact.digest:
        raise ConfigError(
            f"the scores were recorded under another calibration than that of {current.file}: give "
            "the file in force with --config, and let it record for a while after a calibration"
        )
    scores = dict(recorded.scores)
    alike = {name for name in scores if is_alike(name, current.artifact, new.artifact)}
    blank = np.full(len(recorded.ids), np.nan, np.float32)
    seen = {name: scores.get(name, blank) for name in current.sweep.detectors}
    foreseen = {name: scores[name] if name in alike else blank for name in new.sweep.detectors}
    untold = tuple(name for name in new.sweep.detectors if name not in alike)
    now, then = _judged(recorded, current, seen), _judged(recorded, new, foreseen)
    return Difference(recorded, now, then, untold)


def is_alike(name: str, one: Artifact, other: Artifact) -> bool:
    """Whether a detector gives the same score under two calibrations.

    It does where it has the same parameters and has learned the same, from inputs read alike.
    """
    defences = [each.provenance.defence for each in (one, other)]
    if any(defences[0].get(part) != defences[1].get(part) for part in ("inputs", "output")):
        return False
    if any(name not in each["detectors"] for each in defences):
        return False
    if defences[0]["detectors"][name] != defences[1]["detectors"][name]:
        return False
    if one.provenance.weights != other.provenance.weights:
        return False
    states = [each.states.get(name, {}) for each in (one, other)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][key]) for key, tensor in states[0].items()
    )


def _judged(
    recorded: Recorded, given: Policy, scores: Mapping[str, npt.NDArray[np.float32]]
) -> Judged:
    fused, threshold = given.sweep.fused(scores), given.sweep.threshold.value
    known: Flags = np.isfinite(fused)
    suspicious: Flags = known & (fused > threshold)
    actions = np.empty(len(fused), object)
    for is_suspicious in (False, True):
        for is_chained in (False, True):
            rows = (suspicious == is_suspicious) & (recorded.chained == is_chained)
            actions[rows] = _action(given.model, is_suspicious, is_chained)
    return Judged(known, suspicious, actions.astype(np.str_))


def _action(model: Model, is_suspicious: bool, is_chained: bool) -> str:
    verdict = Verdict.SUSPICIOUS if is_suspicious else Verdict.PASS
    sample = SampleVerdict(verdict, 0.0, 0.0, {})
    quarantined = is_chained and model.remembers
    return policy.decide([sample], model, in_sequence=False, quarantined=quarantined).value
