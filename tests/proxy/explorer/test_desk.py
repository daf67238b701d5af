"""Questions to a running proxy: answered one at a time, beside the traffic."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.errors import ConfigError
from proxy.explorer.desk import MOST_WAITING, Desk
from proxy.records.kept import Kept, Subject
from proxy.records.snapshot import Snapshot
from tests.defended import ALL_FOUR, Defended, Opener
from tests.images import MIXED, request

pytestmark = pytest.mark.triton


def desk(d: Defended) -> Desk:
    """A desk, and records that keep scores from now on."""
    names = tuple(part.name for part in d.defences.config.models["digits_like"].detectors)
    d.records.follow([Subject("digits_like", names, d.defences.digest("digits_like"), "1")])
    return Desk(d.defences)


async def test_what_the_proxy_flagged_is_what_the_explorer_finds(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        subject = desk(d)
        await d.infer(request("digits_like", MIXED))
        found = await subject.explore("digits_like", {"detectors": ["residual"]}, d.records)
        live = found["live"]
        assert sorted(live["ids"]) == [f"r0:{row}" for row in range(4)]
        assert set(found["current"]["detectors"]) == ALL_FOUR
        by_id = dict(zip(live["ids"], live["fused"], strict=True))
        assert by_id == {
            f"r0:{row}": pytest.approx(sample.score, rel=1e-4)
            for row, sample in enumerate(d.flow.samples)
        }
        assert found["current"]["threshold"] == d.flow.samples[0].threshold
        flagged = [id_ for id_, fused in by_id.items() if fused > found["current"]["threshold"]]
        assert flagged == ["r0:1"]
        assert found["purify_ms"]["p50"] > 0
        assert None not in found["candidate"]["live"]["fused"]


async def test_a_cascade_leaves_scores_out(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "flag", "cascade": {"clean": 0.9}}}) as d:
        subject = desk(d)
        await d.infer(request("digits_like", MIXED))
        found = await subject.explore("digits_like", {"cascade": None}, d.records)
        assert found["live"]["unknown"] == 0
        partial = d.records.scores("digits_like").partial
        assert found["candidate"]["live"]["unknown"] == partial > 0


async def test_the_columns_are_made_beside_the_event_loop(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by = []
    snapshot = Kept.snapshot

    def noted(kept: Kept) -> Snapshot:
        made_by.append(threading.get_ident())
        return snapshot(kept)

    monkeypatch.setattr(Kept, "snapshot", noted)
    async with opened({"digits_like": {}}) as d:
        await desk(d).explore("digits_like", None, d.records)
    assert len(made_by) == 1
    assert made_by != [threading.get_ident()]


async def test_questions_are_bounded(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        subject = desk(d)
        asks = [subject.explore("digits_like", None, d.records) for _ in range(MOST_WAITING + 1)]
        found = await asyncio.gather(*asks, return_exceptions=True)
        (refused,) = [each for each in found if isinstance(each, BaseException)]
        assert isinstance(refused, ConfigError)
        assert "ask again" in str(refused)
        with pytest.raises(ConfigError, match="nothing to explore"):
            await subject.explore("nonesuch", None, d.records)
        assert await subject.explore("digits_like", None, d.records)
