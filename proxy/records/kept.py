"""What is kept of one model's scores, as arrays: one row a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from proxy.flow import Action, Verdict
from proxy.records.record import Label
from proxy.records.snapshot import Snapshot, rounded

_VERDICTS = tuple(str(verdict) for verdict in Verdict)
_ACTIONS = tuple(str(action) for action in Action)
VERDICT_CODE = {name: code for code, name in enumerate(_VERDICTS)}
ACTION_CODE = {name: code for code, name in enumerate(_ACTIONS)}
FACTS = [
    *(("id", "S48"), ("hash", "u8"), ("time_s", "f8"), ("principal", "u4"), ("fused", "f8")),
    *(("verdict", "u1"), ("action", "u1"), ("chain", "?"), ("used", "?"), ("total_ms", "f4")),
]
"""The columns of a row, but for `scores`; verdicts and actions by their place among all of them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the scores are of; with another one, those before mean nothing any more."""

    model: str
    detectors: tuple[str, ...]
    defence: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy of what is kept, for a thread that has the time to make columns of it."""

    subject: Subject
    since_s: float
    seen: int
    capacity: int
    rows: npt.NDArray[np.void]
    labels: Mapping[int, Label]
    """By hash."""

    def snapshot(self) -> Snapshot:
        """The same as columns; some tens of milliseconds for 20,000 samples."""
        rows, of = self.rows, self.subject
        hashes: list[int] = rows["hash"].tolist()
        columns = {
            "id": [each.decode() for each in rows["id"].tolist()],
            "hash": hashes,
            "time_s": rows["time_s"].round(3).tolist(),
            "principal": [f"{each:08x}" for each in rows["principal"].tolist()],
            "fused": rounded(rows["fused"]),
            "verdict": [_VERDICTS[code] for code in rows["verdict"].tolist()],
            "action": [_ACTIONS[code] for code in rows["action"].tolist()],
            "chain": rows["chain"].tolist(),
            "label": [self.labels.get(each, "") for each in hashes],
            "total_ms": rounded(rows["total_ms"].astype(np.float64)),
        }
        scores = {name: rounded(rows["scores"][:, i]) for i, name in enumerate(of.detectors)}
        facts = (of.model, of.version, of.detectors, of.defence)
        return Snapshot(*facts, self.since_s, self.seen, self.capacity, columns, scores)
