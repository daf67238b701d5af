"""W3C Trace Context in gRPC metadata: who the caller is, and what the model server is told.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/ sections 3.2 to 3.4. Everything
else, `baggage` included, is left as it is.
"""

from __future__ import annotations

import re

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.upstream import Metadata

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

MOST_TRACESTATE = 512
"""Longest tracestate taken over, characters: what section 3.3.1.5 wants to be passed at least. A
longer one is dropped as a whole, which the section allows."""

_LONGEST_PARENT = 128
"""A traceparent has 55 characters; those of later versions may have more."""

_MEMBER = r"[ \t]*+(?:[a-z0-9][a-z0-9_*/@-]{0,255}+=[ -+\--<>-~]{0,256}+)?[ \t]*+"
_STATE = re.compile(rf"{_MEMBER}(?:,{_MEMBER}){{0,31}}+")
"""Section 3.3.1: at most 32 members. Taken over as it is: the SDK's own reading takes 40 us."""

_PROPAGATOR = TraceContextTextMapPropagator()
_NONE = Context()


def received(metadata: Metadata | None) -> tuple[Context, Metadata]:
    """The caller's span as a context, and what goes on of the metadata beside a traceparent.

    A traceparent that is malformed, or there more than once, counts as none: a new trace begins,
    without the caller's tracestate. A tracestate that is malformed does not go on.
    """
    if not metadata:
        return _NONE, ()
    parents: list[str | bytes] = []
    states: list[str] = []
    rest: list[tuple[str, str | bytes]] = []
    for key, value in metadata:
        if key == TRACEPARENT:
            parents.append(value)
        elif key == TRACESTATE:
            states.append(str(value))
        else:
            rest.append((key, value))
    if len(parents) != 1:
        return _NONE, rest
    parent = parents[0]
    if not isinstance(parent, str) or len(parent) > _LONGEST_PARENT:
        return _NONE, rest
    context = _PROPAGATOR.extract({TRACEPARENT: [parent]}, _NONE)
    state = ",".join(states)
    if state and context and len(state) <= MOST_TRACESTATE and _STATE.fullmatch(state):
        rest.append((TRACESTATE, state))
    return context, rest


def onward(rest: Metadata, span: SpanContext) -> Metadata:
    """Metadata with this span as the caller."""
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return (*rest, (TRACEPARENT, parent))
