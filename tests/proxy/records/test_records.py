"""What comes in and what is shown: at once or with the next count, labels, another defence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import torch

from proxy.config import Records as Settings
from proxy.flow import Verdict
from proxy.records.records import Records
from tests.proxy.records.flows import KEY, SUBJECT, flow, sample, stream, suspicious


def records(**settings: Any) -> Records:
    found = Records(Settings(**settings), key=KEY, on_drop=lambda _: None, now=lambda: 100.0)
    found.follow([SUBJECT])
    return found


async def test_a_notable_request_is_told_at_once_and_the_others_when_they_are_counted() -> None:
    subject = records()
    notable, everything = subject.watch(), subject.watch(everything=True)
    subject.note(flow(id_="quiet"))
    subject.note(suspicious(id_="bad"))
    assert (await anext(notable)).id == (await anext(everything)).id == "bad:0"
    subject.flush()
    assert (await anext(everything)).id == "quiet:0"
    assert [each.id for each in subject.recent()] == ["bad:0"]
    await subject.close()
    assert [each async for each in notable] == []
    assert subject.scores("cnn").seen == 2
    assert subject.watching == 0


async def test_one_by_one_nothing_waits() -> None:
    subject = records()
    everything = subject.watch("cnn", everything=True)
    subject.add(flow(id_="quiet"))
    subject.add(suspicious(id_="bad"), {0: "a picture"})
    assert (await anext(everything)).id == "quiet:0"
    assert (await anext(everything)).thumbnail == "a picture"


def test_a_label_reaches_the_list_and_the_scores() -> None:
    subject = records()
    subject.note(suspicious(id_="bad"))
    subject.note(flow(id_="good"))
    subject.flush()
    assert subject.label("bad:0", "adversarial")
    assert subject.label("good:0", "benign")
    assert not subject.label("nobody:0", "benign")
    assert subject.recent()[0].label == "adversarial"
    found = subject.scores("cnn").columns
    assert sorted(zip(found["id"], found["label"], strict=True)) == [
        ("bad:0", "adversarial"),
        ("good:0", "benign"),
    ]
    assert subject.label("bad:0", "")
    assert "adversarial" not in subject.scores("cnn").columns["label"]


def test_a_label_brings_scores_back_that_were_not_kept() -> None:
    subject = records(capacity=1)
    for each in stream(20):
        subject.note(each)
    bad = [flow(sample((float(i), 0.5)), id_=f"bad{i}", chain=2) for i in range(5)]
    for each in bad:
        subject.note(each)
    for i in range(5):
        assert subject.label(f"bad{i}:0", "benign")
    found = subject.scores("cnn")
    assert found.columns["label"].count("benign") == 5
    assert 5 <= found.kept <= 6


def test_another_defence_starts_anew_and_the_same_goes_on() -> None:
    subject = records()
    subject.note(flow())
    subject.follow([replace(SUBJECT, version="1")])
    assert (subject.scores("cnn").kept, subject.scores("cnn").version) == (1, "1")
    subject.follow([replace(SUBJECT, defence="another")])
    assert subject.scores("cnn").kept == 0
    assert subject.scores("cnn").defence == "another"
    subject.follow([])
    assert subject.scores("cnn").defence == ""
    assert subject.kept == {}


def test_models_nobody_asked_for_and_no_capacity() -> None:
    subject = records(capacity=0)
    subject.note(flow(model="anything"))
    subject.note(suspicious())
    subject.flush()
    assert subject.kept == {}
    assert subject.label("r0:0", "benign")
    assert subject.recent()[0].label == "benign"


async def test_a_shadow_that_disagrees_is_shown_before_and_after_the_end() -> None:
    for comes_first in (True, False):
        subject = records()
        everything = subject.watch(everything=True)
        passed = flow(sample(), sample())
        passed.outcome = "" if comes_first else "ok"
        if comes_first:
            subject.disagree(passed, {1: "suspicious"})
            assert subject.recent(differing=True) == []  # it has not finished
            passed.outcome = "ok"
            subject.note(passed)
        else:
            subject.note(passed)
            subject.disagree(passed, {1: "suspicious"})
        (found,) = subject.recent(differing=True)
        assert (found.id, found.shadow, found.verdict) == ("r0:1", "suspicious", "pass")
        assert found.outcome == "ok"
        assert subject.recent() == []
        subject.flush()
        await subject.close()
        assert "suspicious" in {each.shadow async for each in everything}


async def test_a_shadow_on_a_suspicious_sample_is_shown_in_both_lists() -> None:
    for comes_first in (True, False):
        subject = records()
        watch = subject.watch()
        bad = suspicious(outcome="" if comes_first else "ok")
        if comes_first:
            subject.disagree(bad, {0: "pass"})
            bad.outcome = "blocked"
            subject.note(bad)
        else:
            subject.note(bad)
            subject.disagree(bad, {0: "pass"})
        assert subject.recent() == subject.recent(differing=True)
        assert [each.shadow for each in subject.recent()] == ["pass"]
        await subject.close()
        assert [each.shadow async for each in watch][-1] == "pass"


async def test_who_follows_the_notable_ones_is_not_told_of_every_disagreement() -> None:
    subject = records()
    watch = subject.watch()
    for i in range(5):
        passed = flow(id_=f"r{i}")
        subject.note(passed)
        subject.disagree(passed, {0: "suspicious"})
    await subject.close()
    assert [each async for each in watch] == []


def test_disagreements_push_no_attack_out_of_the_list() -> None:
    subject = records(recent=4)
    subject.note(suspicious(id_="bad"))
    for i in range(20):
        passed = flow(id_=f"r{i}")
        subject.note(passed)
        subject.disagree(passed, {0: "suspicious"})
    assert [each.id for each in subject.recent()] == ["bad:0"]
    newest = [f"r{i}:0" for i in (19, 18, 17, 16)]
    assert [each.id for each in subject.recent(differing=True)] == newest
    assert subject.recent("vit", differing=True) == []


def test_one_verdict_for_several_samples() -> None:
    subject = records()
    failed = flow(sample(verdict=Verdict.FAILED))  # it stands for the whole request
    subject.note(failed)
    subject.disagree(failed, {0: "pass", 1: "pass", 2: "suspicious"})
    assert [each.id for each in subject.recent(differing=True)] == ["r0:0"]


def test_a_label_reaches_what_only_a_shadow_suspects() -> None:
    subject = records()
    passed = flow()
    subject.note(passed)
    subject.disagree(passed, {0: "suspicious"})
    assert subject.label("r0:0", "adversarial")
    assert subject.recent(differing=True)[0].label == "adversarial"
    assert subject.scores("cnn").columns["label"] == ["adversarial"]


async def test_a_picture_that_comes_late_is_shown_in_both_lists() -> None:
    subject = records(thumbnails=True)
    watch = subject.watch()
    bad = suspicious()
    bad.pixels = torch.full((1, 3, 8, 8), 0.5)
    subject.note(bad)
    subject.disagree(bad, {0: "pass"})
    async with asyncio.timeout(10):
        while not (await anext(watch)).thumbnail:
            pass
    (found,) = subject.recent()
    assert (found.shadow, bool(found.thumbnail)) == ("pass", True)
    assert subject.recent(differing=True) == [found]
    await subject.close()


async def test_thumbnails_come_with_the_record_and_pixels_are_let_go() -> None:
    subject = records(thumbnails=True)
    watch = subject.watch()
    bad, good = suspicious(), flow()
    bad.pixels = good.pixels = torch.full((1, 3, 8, 8), 0.5)
    subject.note(good)
    subject.note(bad)
    assert bad.pixels is good.pixels is None
    async with asyncio.timeout(10):
        assert (await anext(watch)).thumbnail.startswith("iVBOR")
    await subject.close()


async def test_too_many_thumbnails_are_left_out_and_the_records_are_not() -> None:
    subject = records(thumbnails=True)
    watch = subject.watch()
    for i in range(60):
        bad = suspicious(id_=f"r{i}")
        bad.pixels = torch.zeros(1, 1, 4, 4)
        subject.note(bad)
    async with asyncio.timeout(10):
        told = [await anext(watch) for _ in range(60)]
    assert 20 <= sum(bool(each.thumbnail) for each in told) < 60
    await subject.close()
