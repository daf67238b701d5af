"""Which requests are recorded: the caller's wish or a share of them, and never more than so many.

The standard samplers decide; the bound is ours, since a caller's `sampled` flag would otherwise
let it fill the collector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class RateLimited(Sampler):
    """Another sampler's decision, until as many spans of kind SERVER were begun as may be.

    Spans of other kinds are begun for requests that are recorded already, and are recorded too.

    Args:
        inner: decides about the spans of kind SERVER.
        per_second: most of these; up to a second's worth at once.
        clock: seconds, monotonic.
    """

    def __init__(
        self, inner: Sampler, per_second: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._per_second = per_second
        self._most = max(1.0, per_second)
        self._left = self._most
        self._clock = clock
        self._at_s = clock()

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Whether to record a span about to begin (the SDK's hook)."""
        if kind is not SpanKind.SERVER:
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes)
        result = self._inner.should_sample(parent_context, trace_id, name, kind, attributes)
        if result.decision is Decision.RECORD_AND_SAMPLE and not self._take():
            return SamplingResult(Decision.DROP, trace_state=result.trace_state)
        return result

    def get_description(self) -> str:
        """In words (the SDK's hook)."""
        return f"RateLimited{{{self._inner.get_description()},{self._per_second:g}/s}}"

    def _take(self) -> bool:
        now = self._clock()
        self._left = min(self._most, self._left + self._per_second * (now - self._at_s))
        self._at_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def sampler(ratio: float, per_second: float, *, parent_based: bool) -> RateLimited:
    """The sampler a configuration asks for."""
    by_ratio = TraceIdRatioBased(ratio)
    return RateLimited(ParentBased(by_ratio) if parent_based else by_ratio, per_second)
