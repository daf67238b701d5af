"""The kept scores of one model as columns, as they go over the wire and into a calibration."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from proxy.records.sketch import surplus

_PIECE = 1000
"""Values put into text at a time, half a millisecond: others want the interpreter, too."""

COLUMNS = (
    *("id", "hash", "time_s", "principal", "fused", "verdict", "action", "chain", "label"),
    "total_ms",
)
_FACTS = ("model", "version", "defence", "since_s", "seen", "capacity")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is kept of one model's scores at one moment."""

    model: str
    version: str
    """Versions that the model server offered, comma-separated; empty while not known."""
    detectors: tuple[str, ...]
    defence: str
    """Digest of the detectors and their calibration; another one starts anew."""
    since_s: float
    """When it started, Unix time."""
    seen: int
    """Samples scored since then, copies included."""
    capacity: int
    columns: Mapping[str, Sequence[Any]]
    """Name -> values, one a sample, of `COLUMNS`; `principal` stands for one in 8 hexadecimal
    digits, `chain` says that the sample or its sender was part of a series of queries."""
    scores: Mapping[str, Sequence[float | None]]
    """Detector -> raw scores; None where it did not look."""

    @property
    def kept(self) -> int:
        """How many samples there are."""
        return len(self.columns["id"])

    @property
    def partial(self) -> int:
        """How many of them lack some detector's score."""
        each = zip(*self.scores.values(), strict=True)
        return sum(None in row for row in each)

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "model": self.model,
            "version": self.version,
            "detectors": list(self.detectors),
            "defence": self.defence,
            "since_s": self.since_s,
            "seen": self.seen,
            "kept": self.kept,
            "capacity": self.capacity,
            "partial": self.partial,
            "columns": {
                **{name: list(self.columns[name]) for name in COLUMNS},
                "scores": {name: list(self.scores[name]) for name in self.detectors},
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none, or its columns do not fit together.
        """
        try:
            columns = {name: value["columns"][name] for name in COLUMNS}
            scores = {name: value["columns"]["scores"][name] for name in value["detectors"]}
            facts = {name: value[name] for name in _FACTS}
            found = cls(**facts, detectors=tuple(scores), columns=columns, scores=scores)
            lengths = {len(column) for column in (*columns.values(), *scores.values())}
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a snapshot of scores: {error}") from None
        if len(lengths) != 1:
            raise ValueError("not a snapshot of scores: columns of different lengths")
        return found


def empty(model: str) -> Snapshot:
    """The snapshot of a model of which nothing is kept."""
    none: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    return Snapshot(model, "", (), "", 0.0, 0, 0, none, {})


def merged(snapshots: Iterable[Snapshot], model: str) -> Snapshot:
    """What one process would have kept of what several saw, given that they share a key.

    Those of another defence than the latest are left out: their worker is about to follow.
    """
    each = [snapshot for snapshot in snapshots if snapshot.defence]
    if not each:
        return empty(model)
    latest = max(each, key=lambda snapshot: snapshot.since_s)
    each = [s for s in each if (s.defence, s.detectors) == (latest.defence, latest.detectors)]
    columns = {name: [value for s in each for value in s.columns[name]] for name in COLUMNS}
    scores = {name: [v for s in each for v in s.scores[name]] for name in latest.detectors}
    chosen = _chosen(columns, latest.capacity)
    return Snapshot(
        model,
        latest.version,
        latest.detectors,
        latest.defence,
        min(s.since_s for s in each),
        sum(s.seen for s in each),
        latest.capacity,
        {name: [column[row] for row in chosen] for name, column in columns.items()},
        {name: [column[row] for row in chosen] for name, column in scores.items()},
    )


def _chosen(columns: dict[str, list[Any]], capacity: int) -> list[int]:
    """The rows to keep, each distinct one once; what is labelled stays besides."""
    rows: dict[int, int] = {}
    for row, hash_ in enumerate(columns["hash"]):
        first = rows.setdefault(hash_, row)
        if first == row:
            continue
        keep, drop = (row, first) if columns["label"][row] else (first, row)
        for name in ("time_s", "chain"):  # seen last, and part of a series wherever that was seen
            columns[name][keep] = max(columns[name][keep], columns[name][drop])
        rows[hash_] = keep
    found = list(rows.values())
    plain = [row for row in found if not columns["label"][row]]
    hashes = np.array([columns["hash"][row] for row in plain], np.uint64)
    principals = np.array([int(columns["principal"][row], 16) for row in plain], np.uint32)
    gone = {plain[i] for i in surplus(hashes, principals, capacity).tolist()}
    return [row for row in found if row not in gone]


def rounded(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Seven significant digits of each, what single precision holds; None for NaN and infinity."""
    finite = np.isfinite(values)
    safe = np.where(finite, values, 0.0)
    exponent = np.floor(np.log10(np.abs(safe), where=safe != 0, out=np.zeros_like(safe)))
    scale = 10.0 ** np.clip(6 - exponent, -290, 290)
    found: list[float | None] = (np.round(safe * scale) / scale).tolist()
    for row in np.flatnonzero(~finite).tolist():
        found[row] = None
    return found


def encoded(value: Mapping[str, Any]) -> bytes:
    """`Snapshot.to_json` as text; for a thread of its own, where it makes room for others."""
    return "".join(_pieces(value)).encode() + b"\n"


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for count, (key, each) in enumerate(value.items()):
            yield f"{', ' if count else '{'}{json.dumps(key)}: "
            yield from _pieces(each)
        yield "}" if value else "{}"
    elif isinstance(value, list) and len(value) > _PIECE:
        for start in range(0, len(value), _PIECE):
            yield ("[" if start == 0 else ", ") + json.dumps(value[start : start + _PIECE])[1:-1]
            time.sleep(0)  # lets go of the interpreter
        yield "]"
    else:
        yield json.dumps(None if isinstance(value, float) and not math.isfinite(value) else value)
