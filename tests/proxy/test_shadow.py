"""A second policy beside the traffic: compared, counted, listed, and never felt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import proxy.shadow
from proxy import rpc
from proxy.errors import Blocked, UpstreamError
from proxy.flow import Action, Flow
from tests.defended import ALL, Defended, Opener, each, eventually, stream_message
from tests.images import CLEAN, MIXED, request
from tests.proxy.running import ask, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

LITTLE_PASSES = 0.9
"""A rate at which the shadow suspects most of what is benign."""


class Second:
    """Configuration files of a second policy for digits_like."""

    def __init__(self, folder: Path, calibrations: Path) -> None:
        self.path = folder / "second.yaml"
        self._calibrations = calibrations

    def write(self, **fields: Any) -> Path:
        model = {"calibration": str(self._calibrations / "digits_like"), "fpr": LITTLE_PASSES}
        model |= {"detectors": list(ALL), **fields}
        # What is JSON is YAML too.
        self.path.write_text(json.dumps({"models": {"digits_like": model}}))
        return self.path


@pytest.fixture
def second(tmp_path: Path, calibrations: Path) -> Second:
    return Second(tmp_path, calibrations)


def fields(
    second: Second, *, share: float = 1.0, policy: dict[str, Any] | None = None, **others: Any
) -> dict:
    shadow = {"policy": second.write(**(policy or {})), "share": share}
    return {"digits_like": {"action": "flag", "shadow": shadow, **others}}


def compared(d: Defended) -> float:
    return d.metric("shadow_samples_total")


@pytest.mark.parametrize("mode", ["enforce", "observe"])
async def test_disagreements_are_counted_and_listed(
    opened: Opener, second: Second, mode: str
) -> None:
    async with opened(fields(second, mode=mode)) as d:
        message = request("digits_like", MIXED).SerializeToString()
        await d.infer(message)
        await eventually(lambda: compared(d) == 4)
        assert d.metric("shadow_samples_total", verdict="suspicious", shadow="suspicious") == 1
        more = d.metric("shadow_samples_total", verdict="pass", shadow="suspicious")
        assert more >= 1
        assert d.metric("shadow_disagreements_total", action="none", shadow="flag") == more
        assert d.metric("shadow_disagreements_total") == more
        differing = d.records.recent("digits_like", differing=True)
        assert {(each.verdict, each.shadow) for each in differing} == {("pass", "suspicious")}
        assert all(record.scores for record in differing)
        assert all(record.outcome for record in differing)
        assert [each.id for each in d.records.recent() if not each.shadow] == ["r0:1"]
        assert len(d.records.recent()) == 1
        assert len(differing) == more
        # Nothing of it passes for the traffic's.
        assert d.metric("samples_total") == 4
        assert d.metric("samples_total", verdict="suspicious") == 1
        assert d.metric("detector_p_value_count", detector="residual") == 4
        assert d.metric("shadow_failures_total") == d.metric("shadow_skipped_total") == 0
        assert d.upstream.sent["client"] == [message]
        assert len(d.audit()) == 1


async def test_the_same_policy_never_disagrees(opened: Opener, second: Second) -> None:
    async with opened(fields(second, policy={"fpr": 0.05})) as d:
        await d.infer(request("digits_like", MIXED))
        await eventually(lambda: compared(d) == 4)
        assert d.metric("shadow_disagreements_total") == 0
        assert {record.shadow for record in d.records.recent()} == {""}
        assert d.records.recent(differing=True) == []


async def test_another_action_is_a_disagreement(opened: Opener, second: Second) -> None:
    policy = {"fpr": 0.05, "action": "block"}
    async with opened(fields(second, policy=policy)) as d:
        await d.infer(request("digits_like", MIXED))
        await eventually(lambda: compared(d) == 4)
        assert d.metric("shadow_disagreements_total", action="flag", shadow="block") == 1
        assert d.metric("shadow_disagreements_total") == 1
        assert [(r.id, r.shadow) for r in d.records.recent()] == [("r0:1", "suspicious")]
        assert d.records.recent(differing=True) == d.records.recent()


async def test_a_shadow_that_is_quicker_than_the_end(opened: Opener, second: Second) -> None:
    async with opened(fields(second, policy={"fpr": 0.05, "action": "block"})) as d:
        flow = Flow("quick", 0.0, None, "tester")
        data = request("digits_like", MIXED).SerializeToString()
        d.pipeline.admit()
        await d.pipeline.infer(flow, data, None)
        await eventually(lambda: compared(d) == 4)
        assert d.records.recent() == d.records.recent(differing=True) == []
        d.pipeline.release()
        d.pipeline.finish(flow, "ok")
        (found,) = d.records.recent()
        assert (found.shadow, found.action, found.outcome) == ("suspicious", "flag", "ok")
        assert "total" in found.stage_ms
        assert d.records.recent(differing=True) == [found]


async def test_the_answer_waits_for_no_shadow(opened: Opener, second: Second) -> None:
    async with opened(fields(second)) as d:
        gate = asyncio.Event()
        scoring = d.pipeline._shadow._gatherer
        gather = scoring.gather

        async def late(*args: Any) -> Any:
            await gate.wait()
            return await gather(*args)

        scoring.gather = late  # type: ignore[method-assign]
        answer = await d.infer(request("digits_like", CLEAN))
        assert answer.data
        assert compared(d) == 0
        gate.set()
        await eventually(lambda: compared(d) == len(CLEAN))


async def test_what_is_one_too_many_is_skipped_and_counted(
    opened: Opener, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.shadow, "CAPACITY", 1)
    async with opened(fields(second)) as d:
        gate = asyncio.Event()
        scoring = d.pipeline._shadow._gatherer
        gather = scoring.gather

        async def late(*args: Any) -> Any:
            await gate.wait()
            return await gather(*args)

        scoring.gather = late  # type: ignore[method-assign]
        for _ in range(3):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("shadow_skipped_total", reason="full") == 2
        gate.set()
        await eventually(lambda: compared(d) == len(CLEAN))


async def test_a_purified_request_is_asked_about_again(opened: Opener, second: Second) -> None:
    async with opened(fields(second, action="purify", policy={"fpr": 0.05})) as d:
        await d.infer(request("digits_like", MIXED))
        assert d.flow.action is Action.PURIFY
        await eventually(lambda: compared(d) == 4)
        # The answer to the purified copy is no evidence on the original.
        assert d.metric("shadow_samples_total", verdict="suspicious", shadow="suspicious") == 1


@pytest.mark.parametrize("dispatch", ["sequential", "speculative"])
async def test_a_model_that_must_not_see_what_is_blocked_is_not_asked(
    opened: Opener, second: Second, dispatch: str
) -> None:
    async with opened(fields(second, action="block", dispatch=dispatch)) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        if dispatch == "sequential":
            assert d.metric("shadow_skipped_total", reason="no_answer") == 1
        else:
            await eventually(lambda: compared(d) == 4)


async def test_what_failed_upstream_is_not_compared(opened: Opener, second: Second) -> None:
    async with opened(fields(second)) as d:
        d.upstream.failing["client"] = UpstreamError(13, "broken")
        with pytest.raises(UpstreamError):
            await d.infer(request("digits_like", CLEAN))
        assert not len(d.pipeline._shadow)
        assert compared(d) == 0


async def test_messages_of_streams_are_compared(opened: Opener, second: Second) -> None:
    async with opened(fields(second)) as d:
        message = request("digits_like", MIXED)
        assert await stream_message(d, message) == message.SerializeToString()
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        await eventually(lambda: compared(d) == 4)


async def test_a_share_of_the_requests(
    opened: Opener, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([0.3, 0.29, 0.9])
    monkeypatch.setattr(proxy.shadow.random, "random", lambda: next(drawn))
    async with opened(fields(second, share=0.3)) as d:
        for _ in range(3):
            await d.infer(request("digits_like", CLEAN))
        await eventually(lambda: compared(d) == len(CLEAN))


async def test_a_shadow_without_a_verdict_is_a_failure_of_its_own(
    opened: Opener, second: Second
) -> None:
    async with opened(fields(second)) as d:
        shadow = d.defences.find("digits_like").shadow
        assert shadow is not None
        shadow.defence.scorer = None  # as while Triton does not describe what it needs
        await d.infer(request("digits_like", CLEAN))
        await eventually(lambda: d.metric("shadow_failures_total") == 1)
        assert d.metric("detector_failures_total") == d.metric("fail_open_total") == 0
        assert compared(d) == 0


async def test_queries_are_remembered_once(
    opened: Opener, tmp_path: Path, calibrations: Path
) -> None:
    model = {"calibration": str(calibrations / "digits_like_again"), "fpr": 0.05}
    model |= {"detectors": [{"name": "residual"}, {"name": "history"}]}
    path = tmp_path / "second.yaml"
    path.write_text(json.dumps({"models": {"digits_like_again": model}}))
    async with opened({"digits_like_again": {"action": "flag", "shadow": {"policy": path}}}) as d:
        await d.infer(request("digits_like_again", MIXED))
        await eventually(lambda: compared(d) == 4)
        assert d.history.standings()["remembered"] == 4
        shadow = d.defences.find("digits_like_again").shadow
        assert shadow is not None
        assert shadow.defence.scorer is not None
        assert [each.name for each in shadow.defence.scorer.detectors] == ["residual"]


async def test_a_reload_brings_and_takes_the_shadow(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, second: Second
) -> None:
    main = tmp_path / "main.yaml"

    def write(shadow: dict[str, str] | None) -> None:
        model = {"calibration": str(calibrations / "digits_like"), "fpr": 0.05, "mode": "enforce"}
        model |= {"budget_ms": 10_000, "detectors": list(ALL)}
        model |= {} if shadow is None else {"shadow": shadow}
        main.write_text(json.dumps({"models": {"digits_like": model}}))

    write(None)
    second.write()
    message = request("digits_like", CLEAN)
    async with running(triton.grpc_address, path=main) as sidecar:

        async def answered() -> bytes:
            reply = await ask(sidecar.channel, rpc.INFER.name, message)
            assert reply.data
            return reply.data

        async def count() -> float:
            return await sidecar.metric("shadow_samples_total")

        plain = await answered()
        write({"policy": "second.yaml"})
        assert await sidecar.server.reload()
        assert await answered() == plain
        await eventually_is(count, len(CLEAN))
        second.path.write_text("models: {digits_like: {nonsense: 1}}")
        assert not await sidecar.server.reload()  # and the old one stays in force
        await answered()
        await eventually_is(count, 2 * len(CLEAN))
        write(None)
        assert await sidecar.server.reload()
        await answered()
        assert not len(sidecar.server._pipeline._shadow)
        assert await count() == 2 * len(CLEAN)


async def eventually_is(count: Any, wanted: float) -> None:
    async with asyncio.timeout(10):
        while await count() != wanted:  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0.005)
