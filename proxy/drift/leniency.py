"""Which suspicious samples are flagged at most, since the traffic as a whole has changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.drift.state import Response
from proxy.flow import SampleVerdict


def spared(
    samples: Sequence[SampleVerdict], response: Response, wider: Callable[[float], float]
) -> frozenset[int]:
    """Indices of samples whose own look is no reason to act; never of those without a score.

    Args:
        samples: of one request.
        response: what is done about the drift.
        wider: what stands in for a threshold with the response widen.
    """
    if response == "none":
        return frozenset()
    return frozenset(
        i
        for i, each in enumerate(samples)
        if response == "suspend" or each.score <= wider(each.threshold)
    )
