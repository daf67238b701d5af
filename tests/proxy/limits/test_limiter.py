"""Principals are held to their limits, and to nobody else's."""

import asyncio

import grpc
import pytest

from proxy import rpc
from proxy.errors import Limited
from proxy.limits.limiter import Limiter
from proxy.limits.settings import Limits
from proxy.pb import open_inference_pb2 as pb
from tests.proxy.running import ask, open_stream, recording, running

INFER = pb.ModelInferRequest(model_name="model")
HEADER = "x-user"


def limiter(now: list[float], reasons: list[str], capacity: int = 4, **default: object) -> Limiter:
    limits = Limits.model_validate({"default": default})
    return Limiter(lambda: limits, reasons.append, clock=lambda: now[0], capacity=capacity)


def taken(subject: Limiter, principal: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            subject.take(principal, 1)
        except Limited:
            continue
        count += 1
    return count


def test_a_clock_that_jumps_grants_no_more_than_a_burst() -> None:
    now, reasons = [1000.0], list[str]()
    subject = limiter(now, reasons, requests_per_second=1, burst=3)
    assert taken(subject, "a", 10) == 3
    now[0] = 0.0
    assert taken(subject, "a", 10) == 0
    now[0] = 2.0
    assert taken(subject, "a", 10) == 2
    now[0] = 1e9
    assert taken(subject, "a", 10) == 3
    assert set(reasons) == {"rate"}


def test_many_names_forget_no_debt_and_share_one_burst() -> None:
    now, reasons = [0.0], list[str]()
    subject = limiter(now, reasons, requests_per_second=0.001, burst=2)
    assert taken(subject, "debtor", 5) == 2
    crowd = sum(taken(subject, f"n{i}", 2) for i in range(10_000))
    assert crowd == 3 * 2 + 2, "three entries of their own, then one for all"
    assert taken(subject, "debtor", 5) == 0
    now[0] = 1e6
    assert taken(subject, "late", 5) == 2, "who owes nothing makes room"


async def test_a_flood_hurts_only_who_floods() -> None:
    limits = {"default": {"requests_per_second": 0.001, "burst": 3}}
    async with (
        recording() as (_, upstream),
        running(upstream, limits=limits, principal_header=HEADER) as proxy,
    ):
        flood = [await ask(proxy.channel, "ModelInfer", INFER, metadata=[(HEADER, "bad")])
                 for _ in range(8)]  # fmt: skip
        good = await ask(proxy.channel, "ModelInfer", INFER, metadata=[(HEADER, "good")])
        live = await ask(proxy.channel, "ServerLive", pb.ServerLiveRequest(),
                         metadata=[(HEADER, "bad")])  # fmt: skip
        codes = [reply.code for reply in flood]
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 5
        assert {good.code, live.code} == {grpc.StatusCode.OK}
        assert "bad" not in flood[-1].details
        assert await proxy.metric("limited_total", reason="rate") == 5


async def test_cancelled_calls_and_streams_leave_nothing_in_flight() -> None:
    limits = {"default": {"max_in_flight": 1}}
    async with recording() as (recorder, upstream), running(upstream, limits=limits) as proxy:

        async def hang(*_: object) -> bytes:
            await asyncio.Event().wait()
            return b""

        recorder.answers["ModelInfer"] = hang
        call = proxy.channel.unary_unary(rpc.INFER.path)(INFER.SerializeToString())
        await recorder.expect("ModelInfer")
        refused = await ask(proxy.channel, "ModelInfer", INFER)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
        await proxy.idle()
        stream = open_stream(proxy.channel)
        await recorder.expect("ModelStreamInfer")
        stream.cancel()
        await proxy.idle()
        del recorder.answers["ModelInfer"]
        assert (await ask(proxy.channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK


async def test_a_principal_has_its_models_sizes_and_groups() -> None:
    limits = {"principals": {"a": {"models": ["m*"], "rpc_allow": [], "max_message_bytes": 100}}}
    options = {"principal_header": HEADER, "limits": limits, "rpc": {"allow": ["statistics"]}}
    async with recording() as (_, upstream), running(upstream, **options) as proxy:

        async def code(name: str, request: object, who: str) -> grpc.StatusCode:
            reply = await ask(proxy.channel, name, request, metadata=[(HEADER, who)])
            return reply.code

        other = pb.ModelInferRequest(model_name="other")
        large = pb.ModelInferRequest(model_name="m", id="x" * 100)
        statistics = pb.ModelStatisticsRequest()
        assert await code("ModelInfer", INFER, "a") is grpc.StatusCode.OK
        assert await code("ModelInfer", other, "a") is grpc.StatusCode.PERMISSION_DENIED
        assert await code("ModelInfer", large, "a") is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await code("ModelStatistics", statistics, "a") is grpc.StatusCode.PERMISSION_DENIED
        assert await code("ModelInfer", other, "b") is grpc.StatusCode.OK
        assert await code("ModelStatistics", statistics, "b") is grpc.StatusCode.OK


@pytest.mark.parametrize("method", rpc.RPCS.values(), ids=lambda method: method.name)
def test_only_groups_that_can_be_refused_are(method: rpc.Rpc) -> None:
    reasons: list[str] = []
    subject = limiter([0.0], reasons, rpc_allow=())
    assert subject.may_call("a", method) is (method.group in rpc.ALWAYS_ON)
    assert reasons == ([] if method.group in rpc.ALWAYS_ON else ["rpc"])
