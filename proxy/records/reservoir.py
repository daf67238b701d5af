"""A bounded sample of one model's scores: what a calibration from live traffic is made of.

Scores and facts only, never inputs. About 0.25 KB a sample, half of it in an array made at the
start.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from proxy.flow import Flow, Verdict
from proxy.records.kept import ACTION_CODE, FACTS, VERDICT_CODE, Kept, Subject
from proxy.records.record import Label, Record, is_marked, total_ms
from proxy.records.sketch import Keyed, most_per_principal, surplus

MAX_LABELLED = 1000
"""Labelled samples kept besides the others; the oldest label goes."""
SLACK = 512
"""Samples taken in before those that must go are looked for, all at once."""

Row = tuple[Any, ...]


class Reservoir:
    """The kept scores of one model.

    Args:
        subject: what they are of.
        capacity: most samples kept, but for the labelled ones.
        keyed: what they are hashed with.
        now_s: Unix time.
        max_age_s: how long after it was last seen a sample is kept.
        from_s: requests that arrived before this are of another defence, `time.monotonic()`.
    """

    def __init__(
        self,
        subject: Subject,
        capacity: int,
        keyed: Keyed,
        *,
        now_s: float,
        max_age_s: float,
        from_s: float = -math.inf,
    ) -> None:
        self.subject = subject
        self.seen = 0
        self._capacity = capacity
        self._keyed = keyed
        self._since_s = now_s
        self._max_age_s = max_age_s
        self._from_s = from_s
        self._share = most_per_principal(capacity)
        self._names = subject.detectors
        fields = [*FACTS, ("scores", "f8", (len(self._names),))]
        self._rows = np.zeros(capacity + SLACK, np.dtype(fields))
        # Views of two columns: setting a value in one is ten times as fast as in a row.
        self._times, self._chained = self._rows["time_s"], self._rows["chain"]
        self._free = list(range(capacity + SLACK))
        self._slots: dict[int, int] = {}
        self._held: Counter[int] = Counter()
        """Principal -> samples kept."""
        self._limit = math.inf
        """No larger hash can stay, but of a principal with room while another is over its share."""
        self._crowded = False
        """Some principal was over its share when `_limit` was found."""
        self._full: set[int] = set()
        """The principals that had their share by then, of hashes within the limit."""
        self._labelled: dict[int, tuple[Label, Any]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def continues(self, subject: Subject) -> bool:
        """Whether this goes on with `subject`: the same, or with a version that became known."""
        known = self.subject
        if not known.version:
            known = replace(known, version=subject.version)
        if not subject.version:
            subject = replace(subject, version=known.version)
        if subject != known:
            return False
        self.subject = known
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; the index of hashes comes to about as much again."""
        return self._rows.nbytes

    def add(self, flow: Flow, now_s: float) -> None:
        """Take in the samples of a finished request; those without a verdict are left out."""
        if flow.arrival_s < self._from_s:
            return  # scored by the defence before
        marked = is_marked(flow)
        for index, sample in enumerate(flow.samples):
            if sample.verdict is Verdict.FAILED or not sample.scores:
                continue
            scores = [sample.scores.get(name, math.nan) for name in self._names]
            self.seen += 1
            hash_ = self._keyed.scores(scores)
            slot = self._slots.get(hash_)
            if slot is not None:
                self._times[slot] = now_s
                if sample.alarm or marked:
                    self._chained[slot] = True
                continue
            if hash_ > self._limit and not self._crowded:
                continue
            principal = self._keyed.principal(flow.principal)
            if hash_ > self._limit and principal in self._full:
                continue
            facts = (f"{flow.request_id}:{index}", hash_, now_s, principal, sample.score)
            codes = (VERDICT_CODE[sample.verdict], ACTION_CODE[flow.action])
            chained = sample.alarm or marked
            self._put((*facts, *codes, chained, True, total_ms(flow.stage_s), scores))

    def label(self, id_: str, label: Label) -> bool:
        """Label a kept sample; False where it is not kept."""
        wanted = id_.encode()
        for row in (row for _, row in self._labelled.values() if row["id"] == wanted):
            self._relabel(row, label)
            return True
        slots = np.flatnonzero((self._rows["id"] == wanted) & self._rows["used"])
        if not len(slots):
            return False
        self._relabel(self._rows[slots[0]].copy(), label)
        return True

    def keep(self, record: Record, now_s: float) -> None:
        """Keep a labelled sample that is not among the others, if it has scores."""
        if record.verdict == Verdict.FAILED or not record.scores:
            return
        scores = [record.scores.get(name, math.nan) for name in self._names]
        stages = {stage: ms / 1000 for stage, ms in record.stage_ms.items()}
        row = np.zeros(1, self._rows.dtype)[0]
        row["id"], row["time_s"], row["fused"] = record.id.encode(), now_s, record.score
        row["hash"] = self._keyed.scores(scores)
        row["principal"] = self._keyed.principal(record.principal)
        row["verdict"] = VERDICT_CODE[record.verdict]
        row["action"] = ACTION_CODE[record.action]
        row["chain"] = bool(record.alarm or record.chain or record.quarantined)
        row["total_ms"], row["scores"] = total_ms(stages), scores
        self._relabel(row, record.label)

    def expire(self, now_s: float) -> None:
        """Drop what was last seen too long ago. Newer samples take its place."""
        least_s = now_s - self._max_age_s
        self._drop(np.flatnonzero(self._rows["used"] & (self._rows["time_s"] < least_s)))
        for hash_ in [h for h, (_, row) in self._labelled.items() if row["time_s"] < least_s]:
            del self._labelled[hash_]

    def copy(self, now_s: float) -> Kept:
        """What is kept now, at the cost of copying the arrays."""
        self.expire(now_s)
        self._settle()
        besides = [row for hash_, (_, row) in self._labelled.items() if hash_ not in self._slots]
        rows = self._rows[self._rows["used"]]
        if besides:
            rows = np.concatenate([rows, np.array(besides, rows.dtype)])
        labels = {hash_: label for hash_, (label, _) in self._labelled.items()}
        return Kept(self.subject, self._since_s, self.seen, self._capacity, rows, labels)

    def _put(self, row: Row) -> None:
        if not self._free:
            self._settle()
        slot = self._free.pop()
        self._rows[slot] = row
        self._slots[row[1]] = slot
        self._held[row[3]] += 1

    def _settle(self) -> None:
        """Let go of what is too much, and find what need not be taken in any more."""
        slots = np.flatnonzero(self._rows["used"])
        if len(slots) < self._capacity:
            return
        hashes, principals = self._rows["hash"][slots], self._rows["principal"][slots]
        gone = surplus(hashes, principals, self._capacity)
        self._drop(slots[gone])
        self._limit = int(np.delete(hashes, gone).max())
        self._crowded = max(self._held.values()) > self._share
        self._full = {name for name, count in self._held.items() if count >= self._share}

    def _drop(self, slots: npt.NDArray[np.intp]) -> None:
        if not len(slots):
            return
        # Whatever has room again takes in what comes.
        self._limit, self._crowded = math.inf, False
        rows = self._rows
        rows["used"][slots] = False
        for hash_, principal in zip(
            rows["hash"][slots].tolist(), rows["principal"][slots].tolist(), strict=True
        ):
            del self._slots[hash_]
            self._held[principal] -= 1
            if not self._held[principal]:
                del self._held[principal]
        self._free += slots.tolist()

    def _relabel(self, row: Any, label: Label) -> None:
        hash_ = int(row["hash"])
        self._labelled.pop(hash_, None)
        if label:
            self._labelled[hash_] = (label, row)
        if len(self._labelled) > MAX_LABELLED:
            del self._labelled[next(iter(self._labelled))]
