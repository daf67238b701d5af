"""Finished requests as the pipeline hands them over."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proxy.flow import Flow, SampleVerdict, Verdict
from proxy.records.kept import Subject

NAMES = ("residual", "margin")
SUBJECT = Subject("cnn", NAMES, "a digest")
KEY = bytes(range(16))


def sample(
    scores: Sequence[float] = (1.0, 2.0), verdict: Verdict = Verdict.PASS, **fields: Any
) -> SampleVerdict:
    raw = dict(zip(NAMES, scores, strict=False))
    p_values = dict.fromkeys(raw, 0.5)
    facts: dict[str, Any] = {"reason": "residual", "scores": raw, **fields}
    return SampleVerdict(verdict, sum(scores), 10.0, p_values, **facts)


def flow(*samples: SampleVerdict, id_: str = "r0", **fields: Any) -> Flow:
    facts: dict[str, Any] = {
        **{"principal": "alice", "model": "cnn", "outcome": "ok"},
        **{"stage_s": {"score": 0.002, "total": 0.005}, **fields},
    }
    return Flow(id_, 0.0, None, samples=samples or (sample(),), **facts)


def stream(count: int, *, seed: int = 0, **fields: Any) -> list[Flow]:
    """Requests of one sample each, all with other scores."""
    scores = np.random.default_rng(seed).normal(size=(count, len(NAMES))).tolist()
    return [flow(sample(each), id_=f"s{seed}-{i}", **fields) for i, each in enumerate(scores)]


def shuffled(flows: Sequence[Flow], seed: int = 0) -> list[Flow]:
    return random.Random(seed).sample(list(flows), len(flows))


def suspicious(**fields: Any) -> Flow:
    return flow(sample((8.0, 9.0), Verdict.SUSPICIOUS), **fields)


def pick(columns: Mapping[str, Sequence[Any]], *names: str) -> set[tuple[Any, ...]]:
    """The rows of some columns."""
    return set(zip(*(columns[name] for name in names), strict=True))
