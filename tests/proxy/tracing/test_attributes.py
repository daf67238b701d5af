"""What spans say, and what they never say."""

from __future__ import annotations

import pytest

from proxy import rpc
from proxy.errors import GRPC_CODES
from proxy.flow import Action, Flow, SampleVerdict, Verdict
from proxy.tracing.attributes import code_of, is_server_error, lowest_p_value, of_flow, of_method


def sample(p: float | None = None, verdict: Verdict = Verdict.PASS) -> SampleVerdict:
    return SampleVerdict(verdict, 1.25, 1.0, {} if p is None else {"residual": p})


@pytest.mark.parametrize(
    ("p", "decade"),
    [
        *((1.0, "0.1..1"), (0.1, "0.1..1"), (0.099, "0.01..0.1"), (0.01, "0.01..0.1")),
        *((0.0099, "0.001..0.01"), (0.0005, "..0.001"), (0.0, "..0.001")),
        (float("nan"), "..0.001"),
    ],
)
def test_a_p_value_is_told_by_its_decade(p: float, decade: str) -> None:
    assert lowest_p_value((sample(p),)) == decade


def test_the_lowest_p_value_of_all_counts() -> None:
    assert lowest_p_value((sample(0.5), sample(0.004), sample())) == "0.001..0.01"
    assert lowest_p_value((sample(),)) == ""


def test_a_scored_request_shows_its_verdict_and_its_times() -> None:
    flow = Flow("r", 0.0, None, "alice", model="m", version="3", client_id="mine", outcome="ok")
    flow.samples = (sample(0.5), sample(0.005, Verdict.SUSPICIOUS))
    flow.action = Action.PURIFY
    flow.stage_s = {"score": 0.0021, "total": 0.005}
    found = of_flow(flow, client_id=False)
    assert found["breakwater.verdict"] == "suspicious"
    assert found["breakwater.action"] == "purify"
    assert found["breakwater.outcome"] == "ok"
    assert found["breakwater.samples"] == 2
    assert found["breakwater.score_ms"] == 2.1
    assert (found["breakwater.model"], found["breakwater.model_version"]) == ("m", "3")
    # Neither who asked, nor how near the threshold it was.
    assert not {"alice", "mine", 1.25, 1.0, 0.005} & set(found.values())


def test_the_clients_own_id_is_told_only_where_that_is_wanted() -> None:
    flow = Flow("r", 0.0, None, "alice", client_id="i" * 9000)
    found = of_flow(flow, client_id=True)
    assert found["breakwater.client_request_id"] == "i" * 128


def test_names_that_clients_choose_are_bounded() -> None:
    flow = Flow("r", 0.0, None, "p", model="m" * 100_000)
    assert len(str(of_flow(flow, client_id=False)["breakwater.model"])) == 128


def test_the_method_is_told_by_convention() -> None:
    assert of_method(rpc.INFER.path) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
    }


def test_codes_of_outcomes_without_an_error() -> None:
    names = {o: GRPC_CODES[code_of(o)] for o in ("ok", "observed", "cancelled", "internal")}
    assert names == {"ok": "OK", "observed": "OK", "cancelled": "CANCELLED", "internal": "INTERNAL"}
    assert GRPC_CODES[code_of("deadline_exceeded")] == "DEADLINE_EXCEEDED"


def test_what_callers_do_wrong_is_no_error_of_the_server() -> None:
    errors = {GRPC_CODES[code] for code in range(17) if is_server_error(code)}
    assert {"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"} <= errors
    assert not {"OK", "CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} & errors
