"""Scores recorded of live traffic: read from snapshots, checked, those of several replicas merged.

A snapshot comes over the network or from a file: nothing in it is believed before it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxy.errors import ConfigError

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.str_]
Scores = npt.NDArray[np.float64]

BENIGN, ADVERSARIAL = "benign", "adversarial"
MOST = 1_000_000
"""Samples of one snapshot, at most; a reservoir holds a fiftieth of that."""
_LONGEST = 300
"""Characters of an id: a request id of 32, or another proxy's, and the sample's number."""
_COLUMNS = ("id", "principal", "label", "verdict", "chain")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Recorded samples of one model, a row each, ordered by id: no order of arrival shows."""

    detectors: tuple[str, ...]
    """Of the columns of `scores`."""
    ids: Texts
    """(N,), each once."""
    principals: Texts
    """(N,), keyed digests; equal where the principal was, within one replica."""
    labels: Texts
    """(N,), "benign", "adversarial" or ""."""
    failed: Flags
    """(N,), no verdict was reached."""
    chained: Flags
    """(N,), part of a series of queries, or of a principal in quarantine."""
    scores: Scores
    """(N, D), NaN where a detector did not look."""

    def __len__(self) -> int:
        return len(self.ids)


def read(snapshots: Sequence[Mapping[str, Any]], detectors: Sequence[str]) -> Traffic:
    """The samples of all snapshots of one model.

    Args:
        snapshots: as `Records.scores` gives them, one of each replica.
        detectors: those that were calibrated: every snapshot must have exactly these.

    Returns:
        Samples by id; one that several snapshots have counts once, and is adversarial where one of
        them has it labelled so, otherwise benign where one has.

    Raises:
        ConfigError: a snapshot is damaged, or of other detectors.
    """
    parts = [_one(snapshot, tuple(detectors)) for snapshot in snapshots]
    every = Traffic(
        tuple(detectors),
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("ids", "principals", "labels", "failed", "chained", "scores")
        ),
    )
    # Of samples with one id the labelled one comes first, adversarial before benign.
    rank = np.select([every.labels == ADVERSARIAL, every.labels == BENIGN], [0, 1], 2)
    order = np.lexsort((rank, every.ids))
    first = np.ones(len(order), bool)
    first[1:] = every.ids[order][1:] != every.ids[order][:-1]
    return rows_of(every, order[first])


def rows_of(traffic: Traffic, rows: Rows) -> Traffic:
    """Some of the samples, in the order given."""
    return Traffic(
        traffic.detectors,
        *(traffic.ids[rows], traffic.principals[rows], traffic.labels[rows]),
        *(traffic.failed[rows], traffic.chained[rows], traffic.scores[rows]),
    )


def _one(snapshot: Mapping[str, Any], detectors: tuple[str, ...]) -> Traffic:
    try:
        columns, listed = snapshot["columns"], snapshot["detectors"]
        found = {name: columns[name] for name in _COLUMNS}
        scores = dict(columns["scores"])
        named = ({str(name) for name in listed}, {str(name) for name in scores})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the recorded scores are incomplete: {error!r}") from error
    if named != (set(detectors), set(detectors)):
        raise ConfigError(
            "the recorded scores are of other detectors than those of the "
            f"calibration ({', '.join(detectors)}): give the configuration that is being served"
        )
    every = [*found.values(), *(scores[name] for name in detectors)]
    if not all(isinstance(column, list) for column in every):
        raise ConfigError("the recorded scores are damaged: a column is no list")
    sizes = {len(column) for column in every}
    if len(sizes) != 1 or max(sizes) > MOST:
        raise ConfigError(f"the recorded scores are damaged: columns of {sorted(sizes)} samples")
    return Traffic(
        detectors,
        _texts(found["id"], "id"),
        _texts(found["principal"], "principal"),
        _texts(found["label"], "label"),
        np.array([verdict not in ("pass", "suspicious") for verdict in found["verdict"]], bool),
        _flags(found["chain"]),
        np.stack([_numbers(scores[name], name) for name in detectors], axis=1),
    )


def _texts(column: Sequence[object], name: str) -> Texts:
    if not all(isinstance(value, str) and len(value) <= _LONGEST for value in column):
        raise ConfigError(f"the recorded scores are damaged: `{name}` is to be short texts")
    if name == "label" and not {*column} <= {"", BENIGN, ADVERSARIAL}:
        raise ConfigError("the recorded scores are damaged: there is an unknown label")
    return np.array(column, dtype=np.str_)


def _flags(column: Sequence[object]) -> Flags:
    if not all(isinstance(value, bool) for value in column):
        raise ConfigError("the recorded scores are damaged: `chain` is to be true or false")
    return np.array(column, dtype=bool)


def _numbers(column: Sequence[object], name: str) -> Scores:
    """Scores, NaN where there is none; what is not finite in float32 is no score either."""
    if not all(value is None or type(value) in (int, float) for value in column):
        raise ConfigError(f"the recorded scores are damaged: one of {name} is no number")
    try:
        found = np.array([np.nan if value is None else value for value in column], np.float64)
    except OverflowError as error:
        raise ConfigError(f"the recorded scores are damaged: one of {name} is huge") from error
    with np.errstate(over="ignore"):
        usable = np.isfinite(found.astype(np.float32))
    return np.where(usable, found, np.nan)
