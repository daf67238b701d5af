"""What was predicted of a policy, held against what it does on images nobody had seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
import numpy as np
import torch
from torch import Tensor

from detectors.benign import variations
from proxy import wire
from proxy.adapt import ModelSpec
from proxy.errors import ConfigError, InvalidTensor
from proxy.kinds import codec_of
from tuning.search.measure import TIMEOUT_S, Running, samples_seen
from tuning.search.outcome import Count, Outcome

Row = dict[str, str | int | float | bool | None]

OFF = 0.2
"""By which share the measured p99 may be off what was predicted."""
MOST_IMAGES = 1200
"""Fresh images at most; each is sent in every benign variation."""
_BATCH = 32
_DRAWS = 100_000


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a share is expected."""

    low: float
    high: float

    def holds(self, share: float) -> bool:
        """Whether a share is in it."""
        return self.low <= share <= self.high


def expected(seen: Count, samples: int, *, seed: int = 0) -> Interval:
    """Where 95 % of the shares lie that so many further samples may show.

    Of what was seen follows a Beta law of the rate (Jeffreys' prior), of that one of the count.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed. 2013, section 2.3 (posterior prediction).
    """
    rng = np.random.default_rng(seed)
    rates = rng.beta(seen.count + 0.5, seen.total - seen.count + 0.5, _DRAWS)
    counts = rng.binomial(samples, rates) / samples
    low, high = np.quantile(counts, (0.025, 0.975))
    return Interval(float(low), float(high))


def send_benign(
    running: Running,
    spec: ModelSpec,
    fresh: Tensor,
    *,
    seed: int = 0,
    on_batch: Callable[[int], None] = lambda count: None,
) -> dict[str, Count]:
    """Send fresh images in every benign variation; how many of each are flagged.

    Raises:
        ConfigError: the sidecar answers with errors.
    """
    groups = variations(fresh[:MOST_IMAGES], torch.Generator().manual_seed(seed))
    found = {}
    for group, x in groups.items():
        before = samples_seen(running.sidecar.metrics())
        for part in x.split(min(_BATCH, spec.batch_limit)):
            _send(running, spec, part)
            on_batch(len(part))
        after = samples_seen(running.sidecar.metrics())
        counts = {verdict: after[verdict] - before.get(verdict, 0.0) for verdict in after}
        found[group] = Count(int(counts.get("suspicious", 0)), int(sum(counts.values())))
    return found


def message(spec: ModelSpec, x: Tensor) -> bytes:
    """One request about some samples.

    Raises:
        ConfigError: they do not fit the model.
    """
    codec = codec_of(spec)
    try:
        tensor = (spec.input, spec.datatype, codec.wire_shape(x), codec.encode(x))
        return wire.build_infer_request(spec.model, "", [tensor], [spec.output or ""])
    except (InvalidTensor, ValueError) as error:
        raise ConfigError(f"the {spec.kind}s do not fit model {spec.model}: {error}") from error


def _send(running: Running, spec: ModelSpec, x: Tensor) -> None:
    try:
        running.call(message(spec, x), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        raise ConfigError(f"the recommended policy: {error.details()}") from error


def rate_rows(outcome: Outcome, flagged: Mapping[str, Count], samples: str) -> list[Row]:
    """The false-positive rate that was predicted of the worst group, and of all, and what came."""
    worst = outcome.worst_group
    rows = []
    for group, measured in flagged.items():
        if group not in outcome.alarms or not measured.total:
            continue
        seen = outcome.expected(group)
        interval = expected(seen, measured.total)
        row: Row = {
            "figure": f"false-positive rate, {samples}",
            "group": group,
            "value": round(measured.share, 5),
            "predicted": round(seen.share, 5),
            "predicted_low": round(interval.low, 5),
            "predicted_high": round(interval.high, 5),
            "samples": measured.total,
        }
        if group == worst:
            row |= {
                "to_reach": f"{interval.low:.4f} to {interval.high:.4f}",
                "met": interval.holds(measured.share),
            }
        rows.append(row)
    return rows


def latency_row(predicted_ms: float, measured_ms: float, requests: int, figure: str) -> Row:
    """The p99 that was predicted and the one that came."""
    ratio = measured_ms / predicted_ms
    return {
        "figure": figure,
        "value": round(ratio, 3),
        "predicted_ms": round(predicted_ms, 3),
        "measured_ms": round(measured_ms, 3),
        "samples": requests,
        "to_reach": f"{1 - OFF:g} to {1 + OFF:g}",
        "met": 1 - OFF <= ratio <= 1 + OFF,
    }
