"""What a span says of a request: closed sets, counts and durations; no tensors, no principals.

The names under `rpc.` are OpenTelemetry's semantic conventions for RPC spans; the others are ours.
"""

from __future__ import annotations

from proxy import rpc
from proxy.flow import Flow, SampleVerdict

Value = str | int | float | bool

_LONGEST = 128
"""Kept of a name that the client chose, characters."""

_DECADES = ((0.1, "0.1..1"), (0.01, "0.01..0.1"), (0.001, "0.001..0.01"))
_LEAST = "..0.001"

_CODES = {"ok": 0, "observed": 0, "cancelled": 1, "deadline_exceeded": 4}
"""gRPC's status by outcome, where there is no error to ask."""

INTERNAL = 13

_SERVER_ERRORS = {2, 4, 12, INTERNAL, 14, 15}
"""Codes that make a server's span an error: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
UNAVAILABLE and DATA_LOSS; the others are the caller's doing (semantic conventions for gRPC)."""


def of_method(path: str) -> dict[str, Value]:
    """Which RPC it is, by its full path."""
    service, _, method = path.strip("/").rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def of_flow(flow: Flow, *, client_id: bool) -> dict[str, Value]:
    """What became of a request.

    Args:
        client_id: tell the id that the client gave the request, too.
    """
    found: dict[str, Value] = {
        "breakwater.request_id": flow.request_id,
        "breakwater.outcome": flow.outcome,
        "breakwater.action": flow.action.value,
        "breakwater.bytes_in": flow.bytes_in,
        "breakwater.bytes_out": flow.bytes_out,
    }
    names = {
        "breakwater.model": flow.model,
        "breakwater.model_version": flow.version,
        "breakwater.failure": flow.failure,
        "breakwater.unscored": flow.unscored,
        "breakwater.client_request_id": flow.client_id if client_id else "",
    }
    found |= {key: value[:_LONGEST] for key, value in names.items() if value}
    if flow.verdict is not None:
        found["breakwater.verdict"] = flow.verdict.value
        found["breakwater.samples"] = len(flow.samples)
        found["breakwater.quarantined"] = flow.quarantined
    if lowest := lowest_p_value(flow.samples):
        found["breakwater.p_value"] = lowest
    for stage, seconds in flow.stage_s.items():
        found[f"breakwater.{stage}_ms"] = round(1000 * seconds, 3)
    return found


def lowest_p_value(samples: tuple[SampleVerdict, ...]) -> str:
    """The decade of the lowest p-value of all samples and detectors; empty where there is none.

    Not the score itself: that is what an attacker's search would follow.
    """
    p_values = [p for sample in samples for p in sample.p_values.values()]
    if not p_values:
        return ""
    lowest = min(p_values)
    return next((name for edge, name in _DECADES if lowest >= edge), _LEAST)


def code_of(outcome: str) -> int:
    """The status number in gRPC of an outcome that came without an error."""
    return _CODES.get(outcome, INTERNAL)


def is_server_error(code: int) -> bool:
    """Whether a server's span with this status is an error."""
    return code in _SERVER_ERRORS


INFER = of_method(rpc.INFER.path)
