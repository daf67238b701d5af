"""W3C Trace Context: what is understood, what is not, and what goes on from here."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span

from proxy.tracing.context import MOST_TRACESTATE, onward, received
from proxy.upstream import Metadata

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def caller(metadata: Metadata | None) -> SpanContext:
    return get_current_span(received(metadata)[0]).get_span_context()


def state(metadata: Metadata) -> list[str | bytes]:
    return [value for key, value in received(metadata)[1] if key == "tracestate"]


def test_a_caller_is_recognised() -> None:
    span = caller([("a", "b"), ("traceparent", PARENT), ("tracestate", "x=1,y=2")])
    assert (f"{span.trace_id:032x}", f"{span.span_id:016x}") == (TRACE, SPAN)
    assert span.trace_flags.sampled


def test_everything_else_stays_as_it_is_and_in_order() -> None:
    others = [("baggage", "a=1;p"), ("x-bin", b"\0\xff"), ("baggage", "b=2"), ("x", "y")]
    _, rest = received([others[0], ("traceparent", PARENT), *others[1:], ("tracestate", "q=1")])
    assert list(rest) == [*others, ("tracestate", "q=1")]
    assert received(None)[1] == ()


@pytest.mark.parametrize(
    "parent",
    [
        *("", "x", PARENT[:-1], PARENT.upper(), PARENT + "-x", PARENT[3:]),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
        *(f"00-{TRACE}-{SPAN}-zz", f"cc-{TRACE}-{SPAN}-01-{'a' * 9000}", "\n" + PARENT),
    ],
)
def test_a_malformed_traceparent_is_none_at_all(parent: str) -> None:
    metadata = [("traceparent", parent), ("tracestate", "x=1"), ("a", "b")]
    assert not caller(metadata).is_valid
    assert list(received(metadata)[1]) == [("a", "b")]


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert caller([("traceparent", f"cc-{TRACE}-{SPAN}-01-more")]).is_valid


def test_two_traceparents_are_none() -> None:
    assert not caller([("traceparent", PARENT), ("traceparent", PARENT)]).is_valid


def test_a_tracestate_in_several_pieces_is_one() -> None:
    metadata = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
    assert state(metadata) == ["a=1,b=2"]


@pytest.mark.parametrize("value", ["a=1", "a=1, b@v=x y ,", "a/-_*1=" + "~" * 256, "a="])
def test_a_tracestate_goes_on_as_it_is(value: str) -> None:
    assert state([("traceparent", PARENT), ("tracestate", value)]) == [value]


@pytest.mark.parametrize(
    "hostile",
    [
        "a=" + "x" * MOST_TRACESTATE,
        ",".join(f"k{i}=1" for i in range(1000)),
        "no equals sign",
        "=,=,=",
        "a=\x01",
        "A=1",
        "a=1=2",
        "a=" + "x" * 257,
        "a=" + " " * 400 + "=",
        "," * 40,
    ],
)
def test_a_hostile_tracestate_is_dropped_and_the_caller_kept(hostile: str) -> None:
    metadata = [("traceparent", PARENT), ("tracestate", hostile)]
    assert caller(metadata).is_valid
    assert state(metadata) == []


def test_what_goes_on_names_the_span_and_keeps_the_rest() -> None:
    span = SpanContext(int(TRACE, 16), 1, False, TraceFlags(0))
    assert onward((("x", "y"),), span) == (
        ("x", "y"),
        ("traceparent", f"00-{TRACE}-{1:016x}-00"),
    )
