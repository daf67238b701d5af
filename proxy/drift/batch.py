"""Scored samples as columns: what requests leave behind, made into arrays off their path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from proxy.flow import SampleVerdict, Verdict

Floats = npt.NDArray[np.float64]


class Scored(NamedTuple):
    """One request as the population takes it in; holds on to nothing else of the request."""

    time_s: float
    """Unix time."""
    principal: str
    samples: tuple[SampleVerdict, ...]
    statistics: npt.NDArray[np.float32] | None
    classes: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """N samples in the order they came."""

    times_s: Floats
    """(N,) Unix times."""
    principals: Sequence[str]
    """(N,) who asked."""
    values: Mapping[str, Floats]
    """Signal -> (N,), NaN where there is none. Classes by number; verdicts 1 where suspicious."""

    def __len__(self) -> int:
        return len(self.times_s)

    def part(self, which: slice) -> Batch:
        """Some of them, as views."""
        values = {signal: each[which] for signal, each in self.values.items()}
        return Batch(self.times_s[which], self.principals[which], values)


def batch_of(
    requests: Sequence[Scored], signals: Collection[str], statistics: Sequence[str]
) -> Batch:
    """The samples of some requests.

    Args:
        signals: the columns wanted, as in `Reference.signals`.
        statistics: names of the input statistics, in the order of `Scored.statistics`.
    """
    samples = [sample for each in requests for sample in each.samples]
    values = {}
    for signal in signals:
        kind, _, name = signal.partition("/")
        if kind == "score":
            values[signal] = np.array([each.scores.get(name, np.nan) for each in samples], float)
        elif kind == "input":
            values[signal] = _statistic(requests, statistics, name)
        elif kind == "classes":
            values[signal] = _classes(requests)
        else:
            values[signal] = np.array([_suspicious(each.verdict) for each in samples], float)
    times = [each.time_s for each in requests for _ in each.samples]
    principals = [each.principal for each in requests for _ in each.samples]
    return Batch(np.array(times, float), principals, values)


def _suspicious(verdict: Verdict) -> float:
    return np.nan if verdict is Verdict.FAILED else float(verdict is Verdict.SUSPICIOUS)


def _statistic(requests: Sequence[Scored], names: Sequence[str], name: str) -> Floats:
    columns = [np.zeros(0)]
    for each in requests:
        table, shape = each.statistics, (len(each.samples), len(names))
        if table is not None and table.shape == shape and name in names:
            columns.append(table[:, names.index(name)].astype(float))
        else:
            columns.append(np.full(shape[0], np.nan))
    return np.concatenate(columns)


def _classes(requests: Sequence[Scored]) -> Floats:
    columns = [np.zeros(0)]
    for each in requests:
        known, count = each.classes, len(each.samples)
        fits = known is not None and len(known) == count
        columns.append(known.astype(float) if known is not None and fits else np.full(count, -1.0))
    classes = np.concatenate(columns)
    return np.where(classes < 0, np.nan, classes)
