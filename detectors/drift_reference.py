"""What a population of benign requests looks like: one binned distribution a signal and group.

Signals are named "score/DETECTOR", "input/NAME", "classes" and "verdict". Live traffic may be any
mixture of the benign groups, so that they are kept apart. No clocks and no files: `tensors` and
`meta` are what a caller saves, `from_tensors` restores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.calibration import Calibration
from detectors.drift_inputs import input_statistics
from detectors.rule import CalibrationError

BINS = 32
"""Bins of an ordered signal, at most."""
MOST_CLASSES = 63
"""Classes with a bin of their own, the most frequent; all others share one."""
CLASSES = "classes"
VERDICT = "verdict"
SCORE = "score/"
INPUT = "input/"

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Scale(StrEnum):
    """What the bins of a signal are."""

    ORDERED = "ordered"
    """Ranges of a number, ascending."""
    NOMINAL = "nominal"
    """Classes, and all others."""
    RATE = "rate"
    """Not suspicious, suspicious: only more of the second is a finding."""


@dataclass(frozen=True, slots=True)
class Signal:
    """The benign distribution of one number or class a sample."""

    scale: Scale
    edges: Floats
    """(K - 1,) ascending: for an ordered signal bin i is (edges[i - 1], edges[i]]; for a nominal
    one the classes of the bins but the last, ascending; for a rate [0]."""
    counts: Floats
    """(G, K) benign samples by group."""

    @property
    def bins(self) -> int:
        """K."""
        return int(self.counts.shape[1])

    @property
    def samples(self) -> float:
        """Samples of the smallest group."""
        return float(self.counts.sum(axis=1).min())

    @property
    def groups(self) -> Floats:
        """(G, K) shares, each row summing to 1.

        Half a sample is added and spread over the bins, so that a bin that no benign sample was in
        is unlikely, not impossible.

        Source: the additive smoothing of Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27, 1981,
        with 1 / (2 K) a bin.
        """
        added = 0.0 if self.scale is Scale.RATE else 0.5 / self.bins
        smooth: Floats = self.counts + added
        shares: Floats = smooth / smooth.sum(axis=1, keepdims=True)
        return shares

    def place(self, values: npt.ArrayLike) -> Integers:
        """The bin of each value, (B,) in 0..K-1; -1 where a value is not finite.

        Args:
            values: (B,) numbers; class numbers for a nominal signal; 0 and 1 for a rate.
        """
        given = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(given)
        known = np.where(finite, given, 0.0)
        at = np.searchsorted(self.edges, known, side="left")
        if self.scale is Scale.NOMINAL:
            found = self.edges[np.minimum(at, len(self.edges) - 1)] == known
            at = np.where(found, at, self.bins - 1)
        return np.where(finite, at, -1).astype(np.int64)


class Reference:
    """The benign distribution of every signal.

    Args:
        signals: by name.
    """

    def __init__(self, signals: Mapping[str, Signal]) -> None:
        self.signals = dict(signals)

    @classmethod
    def of_evidence(cls, groups: Mapping[str, tuple[Tensor, Tensor | None]]) -> Reference:
        """The signals "input/NAME", and "classes" where every group's answers are known.

        Args:
            groups: benign group -> inputs (n, ...) and the model's answers (n, K) or None; n >= 1.
        """
        found: dict[str, list[Floats]] = {}
        for x, _ in groups.values():
            parts = [input_statistics(piece) for piece in x.split(_CHUNK)]
            for name in parts[0]:
                joined = torch.cat([part[name] for part in parts])
                found.setdefault(INPUT + name, []).append(_floats(joined))
        signals = {
            name: ordered(values)
            for name, values in found.items()
            if all(np.isfinite(each).any() for each in values)
        }
        answers = [output for _, output in groups.values() if output is not None]
        if answers and len(answers) == len(groups):
            signals[CLASSES] = nominal([_floats(output.argmax(dim=1)) for output in answers])
        return cls(signals)

    @classmethod
    def of_calibration(
        cls, calibration: Calibration, fpr: float, stored: Reference | None = None
    ) -> Reference:
        """All that can be watched: scores and verdicts, and what was stored with the calibration.

        Args:
            calibration: whose benign scores are the reference of "score/DETECTOR".
            fpr: the false-positive rate that verdicts are given at, in (0, 1).
            stored: of inputs and classes, from `of_evidence`; None where a calibration has none.
        """
        signals = dict(stored.signals) if stored is not None else {}
        held, fitting = (
            part(calibration.names) for part in (calibration.held, calibration.fitting)
        )
        both = [_floats(torch.cat((held[group], fitting[group]))) for group in held]
        for column, name in enumerate(calibration.names):
            signals[SCORE + name] = ordered([scores[:, column] for scores in both])
        count = min(len(scores) for scores in held.values())
        counts = np.array([[count * (1 - fpr), count * fpr]])
        signals[VERDICT] = Signal(Scale.RATE, np.zeros(1), counts)
        return cls(signals)

    def tensors(self) -> dict[str, Tensor]:
        """Everything measured, flat, for safetensors; with `meta` the inverse of `from_tensors`."""
        found = {}
        for i, signal in enumerate(self.signals.values()):
            found[f"{i}.edges"] = torch.from_numpy(signal.edges.copy())
            found[f"{i}.counts"] = torch.from_numpy(signal.counts.copy())
        return found

    def meta(self) -> dict[str, Any]:
        """What `from_tensors` needs besides the tensors, fit for JSON: signal -> scale."""
        return {name: signal.scale.value for name, signal in self.signals.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Reference:
        """Restore a reference.

        Raises:
            CalibrationError: tensors and meta do not belong together.
        """
        try:
            signals = {
                str(name): Signal(
                    Scale(scale), _floats(tensors[f"{i}.edges"]), _floats(tensors[f"{i}.counts"])
                )
                for i, (name, scale) in enumerate(meta.items())
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"the drift reference is incomplete: {error!r}") from error
        for name, signal in signals.items():
            _check(name, signal)
        return cls(signals)


_CHUNK = 256


def ordered(groups: list[Floats]) -> Signal:
    """An ordered signal in `BINS` bins at most, about as many samples of all groups in each.

    Args:
        groups: (n_g,) values by group; those that are not finite are left out, but not all of one.
    """
    finite = [values[np.isfinite(values)] for values in groups]
    edges = np.unique(np.quantile(np.concatenate(finite), np.arange(1, BINS) / BINS))
    at = [np.searchsorted(edges, values, side="left") for values in finite]
    counts = [np.bincount(each, minlength=len(edges) + 1) for each in at]
    return Signal(Scale.ORDERED, edges, np.stack(counts).astype(np.float64))


def nominal(groups: list[Floats]) -> Signal:
    """A nominal signal: `MOST_CLASSES` most frequent classes, and all others.

    Args:
        groups: (n_g,) class numbers by group.
    """
    classes, times = np.unique(np.concatenate(groups), return_counts=True)
    edges = np.sort(classes[np.argsort(-times, kind="stable")[:MOST_CLASSES]])
    empty = Signal(Scale.NOMINAL, edges, np.zeros((1, len(edges) + 1)))
    counts = [np.bincount(empty.place(values), minlength=empty.bins) for values in groups]
    return Signal(Scale.NOMINAL, edges, np.stack(counts).astype(np.float64))


def _check(name: str, signal: Signal) -> None:
    counts, edges = signal.counts, signal.edges
    fits = (
        edges.ndim == 1
        and counts.ndim == 2
        and counts.shape[1] == len(edges) + 1 >= 2
        and counts.shape[1] <= max(BINS, MOST_CLASSES + 1)
        and np.isfinite(edges).all()
        and bool((np.diff(edges) > 0).all())
        and np.isfinite(counts).all()
        and bool((counts >= 0).all())
        and bool((counts.sum(axis=1) > 0).all())
    )
    if not fits:
        raise CalibrationError(f"the drift reference is damaged at {name}")


def _floats(x: Tensor) -> Floats:
    values: Floats = x.detach().cpu().double().numpy()
    return values
