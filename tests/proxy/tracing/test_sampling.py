"""Who is recorded: the caller's wish, a share, and never more than so many a second."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, set_span_in_context

from proxy.tracing.context import received
from proxy.tracing.sampling import RateLimited, sampler

TRACES = 2000


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def recorded(chosen: Sampler, parent: Context | None = None, count: int = 1) -> int:
    tracer = TracerProvider(sampler=chosen, shutdown_on_exit=False).get_tracer("t")
    spans = [tracer.start_span("s", parent or Context(), SpanKind.SERVER) for _ in range(count)]
    return sum(span.is_recording() for span in spans)


def caller(flag: str, trace_id: int = 1) -> Context:
    return received([("traceparent", f"00-{trace_id:032x}-{1:016x}-{flag}")])[0]


def test_the_share_is_what_was_asked_for() -> None:
    assert recorded(sampler(0.0, 1e4, parent_based=True), count=100) == 0
    assert recorded(sampler(1.0, 1e4, parent_based=True), count=100) == 100
    # 4 standard deviations of a binomial around 500
    assert abs(recorded(sampler(0.25, 1e4, parent_based=True), count=TRACES) - 500) < 78


def test_the_caller_decides_where_it_is_asked() -> None:
    never, always = (sampler(ratio, 1e4, parent_based=True) for ratio in (0.0, 1.0))
    assert recorded(never, caller("01")) == 1
    assert recorded(always, caller("00")) == 0


def test_the_caller_decides_nothing_where_it_is_not() -> None:
    assert recorded(sampler(0.0, 1e4, parent_based=False), caller("01")) == 0
    assert recorded(sampler(1.0, 1e4, parent_based=False), caller("00")) == 1


def test_callers_cannot_record_more_than_the_bound() -> None:
    clock = Clock()
    limited = RateLimited(sampler(0.0, 1e4, parent_based=True), 5, clock=clock)
    assert recorded(limited, caller("01"), 100) == 5
    clock.now_s = 0.4
    assert recorded(limited, caller("01"), 100) == 2
    clock.now_s = 1e6  # no more than a second's worth is saved up
    assert recorded(limited, caller("01"), 100) == 5


def test_nor_by_choosing_trace_ids_that_the_ratio_takes() -> None:
    clock = Clock()
    limited = RateLimited(sampler(0.01, 1e4, parent_based=False), 3, clock=clock)
    assert recorded(limited, caller("01", trace_id=1), 100) == 3


def test_less_than_one_a_second_is_possible() -> None:
    clock = Clock()
    limited = RateLimited(ALWAYS_ON, 0.1, clock=clock)
    assert recorded(limited, count=3) == 1
    clock.now_s = 9.0
    assert recorded(limited) == 0
    clock.now_s = 10.1
    assert recorded(limited) == 1


def test_what_is_refused_keeps_the_callers_trace_and_loses_its_flag() -> None:
    limited = RateLimited(ALWAYS_ON, 1, clock=Clock())
    tracer = TracerProvider(sampler=limited, shutdown_on_exit=False).get_tracer("t")
    parent = received([("traceparent", f"00-{7:032x}-{1:016x}-01")])[0]
    _, refused = (tracer.start_span("s", parent, SpanKind.SERVER) for _ in range(2))
    span = refused.get_span_context()
    assert (span.trace_id, span.trace_flags.sampled) == (7, False)


def test_parts_of_what_is_recorded_cost_nothing_of_the_bound() -> None:
    limited = RateLimited(ALWAYS_ON, 1, clock=Clock())
    tracer = TracerProvider(sampler=limited, shutdown_on_exit=False).get_tracer("t")
    parent = set_span_in_context(tracer.start_span("s", Context(), SpanKind.SERVER))
    children = [tracer.start_span("c", parent) for _ in range(10)]
    assert all(child.is_recording() for child in children)


def test_it_says_what_it_is() -> None:
    assert "5/s" in sampler(0.5, 5, parent_based=True).get_description()
