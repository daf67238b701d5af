"""Mode observe: everything is seen and nothing is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proxy.flow import Action
from proxy.observer import CAPACITY
from tests.defended import Opener, eventually
from tests.images import CLEAN, MIXED, output_of, request
from tests.moody import marked

pytestmark = pytest.mark.triton


async def test_observe_changes_nothing_and_sees_everything(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe", "action": "block"}}) as d:
        d.upstream.held = {"own"}
        message = request("digits_like", MIXED).SerializeToString()
        answer = await d.infer(message)  # while the copies are still held
        assert len(output_of(answer)) == 40
        assert d.upstream.sent["client"] == [message]
        assert (d.flow.action, d.flow.samples) == (Action.NONE, ())
        d.upstream.release()
        await d.observed(4)
        assert d.metric("samples_total", verdict="suspicious") == 1
        assert d.metric("requests_total", action="none", outcome="ok") == 1
        (line,) = d.audit()
        assert (line["outcome"], line["action"]) == ("observed", "none")
        assert line["request_id"] == d.flow.request_id


async def test_observe_never_refuses(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe", "on_failure": "closed"}}) as d:
        await d.infer(request("digits_like", MIXED * 255))
        await eventually(lambda: d.metric("unscored_total", reason="invalid_tensor") == 1)


@pytest.mark.parametrize(("x", "reason"), [(marked(1), "error"), (marked(0), "non_finite")])
async def test_failures_are_counted_but_nothing_fails_open_in_observe(
    opened: Opener, moody: dict[str, Any], x: np.ndarray, reason: str
) -> None:
    async with opened({"digits_like": {**moody, "mode": "observe"}}) as d:
        await d.infer(request("digits_like", x))
        await d.observed()
        assert d.metric("detector_failures_total", reason=reason) == 1
        assert d.metric("fail_open_total") == 0
        assert d.audit()[0]["failure"] == reason


async def test_observe_skips_what_it_cannot_keep_up_with(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe"}}) as d:
        d.upstream.held = {"own"}
        for _ in range(CAPACITY + 2):
            await d.infer(request("digits_like", CLEAN[:1]))
        assert d.metric("observe_skipped_total") == 2
        d.upstream.release()
        await d.observed(CAPACITY)


async def test_closing_drops_what_is_still_observed(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe"}}) as d:
        d.upstream.held = {"own"}
        await d.infer(request("digits_like", CLEAN))
        await d.upstream.expect("own")
        await d.pipeline.close()
        assert d.upstream.cancelled == ["own"]
