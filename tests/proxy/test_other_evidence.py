"""Fewer questions and other ones, through the real Triton: cascades, secret draws, other models."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from proxy.config import Config
from proxy.errors import DetectorFailed, UpstreamUnavailable
from proxy.flow import Action, Verdict
from proxy.pb import open_inference_pb2 as pb
from tests.builders import set_parameter
from tests.defended import ALL_FOUR, Opener, each, p_values
from tests.images import CLEAN, MIXED, benign, images_of, request
from tuning.calibrate import run
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

PEER = "digits_like_again"
CASCADE = {"clean": 0.5, "suspicious": 0.01}
_SHARES = np.linspace(0, 1, 12, dtype=np.float32)[:, None, None, None]
FROM_CLEAN_TO_TAMPERED = CLEAN[1] + _SHARES * (MIXED[1] - CLEAN[1])
"""One image under more and more of the pattern."""


# -- a cascade -------------------------------------------------------------------------------------


async def test_nothing_is_asked_where_cheap_evidence_settles_it(opened: Opener) -> None:
    async with opened({"digits_like": {"cascade": CASCADE}}) as d:
        asked = []
        for image in FROM_CLEAN_TO_TAMPERED:
            before = len(d.upstream.sent["own"])
            await d.infer(request("digits_like", image[None]))
            asked.append(len(d.upstream.sent["own"]) - before)
            free = ({"residual"}, ALL_FOUR - {"feature_squeezing"})
            assert p_values(d.flow) == ALL_FOUR if asked[-1] else p_values(d.flow) in free
        assert asked[0] == asked[-1] == 0
        assert 1 in asked
        found = [flow.verdict for flow in d.flows]
        assert (found[0], found[-1]) == (Verdict.PASS, Verdict.SUSPICIOUS)
        assert len(d.upstream.sent["client"]) == len(FROM_CLEAN_TO_TAMPERED)


async def test_only_samples_in_doubt_are_asked_about(opened: Opener) -> None:
    async with opened({"digits_like": {"cascade": CASCADE}}) as d:
        alone, doubtful = [], []
        for i, image in enumerate(FROM_CLEAN_TO_TAMPERED):
            await d.infer(request("digits_like", image[None]))
            alone.append(d.flow.samples[0])
            if set(alone[-1].p_values) == ALL_FOUR:
                doubtful.append(i)
        single = [images_of("digits_like", own) for own in d.upstream.sent["own"]]
        d.upstream.sent["own"].clear()
        await d.infer(request("digits_like", FROM_CLEAN_TO_TAMPERED))
        (own,) = d.upstream.sent["own"]
        copies = images_of("digits_like", own)
        assert 0 < len(doubtful) < len(FROM_CLEAN_TO_TAMPERED)
        # Two copies of each, and nothing of the others.
        by_view = [np.concatenate([each[view : view + 1] for each in single]) for view in (0, 1)]
        assert np.array_equal(copies, np.concatenate(by_view))
        for together, by_itself in zip(d.flow.samples, alone, strict=True):
            assert together.verdict is by_itself.verdict
            assert together.score == pytest.approx(by_itself.score, rel=1e-4)
            assert together.p_values == pytest.approx(by_itself.p_values)


async def test_where_the_answer_is_hidden_only_samples_in_doubt_are_asked_about(
    opened: Opener,
) -> None:
    tampered = np.concatenate([MIXED[1:2], FROM_CLEAN_TO_TAMPERED[:2]])
    async with opened({"digits_like": {"cascade": CASCADE}}) as d:
        message = request("digits_like", tampered)
        set_parameter(message.outputs.add(name="logits").parameters, "classification", 3)
        await d.infer(message)
        asked = [images_of("digits_like", own) for own in d.upstream.sent["own"]]
        assert np.array_equal(asked[0], tampered[1:])  # the input has settled the first
        assert all(len(copies) < 2 * len(tampered) for copies in asked[1:])
        assert each(d.flow.samples) == ["suspicious", "pass", "pass"]
        assert set(d.flow.samples[0].p_values) == {"residual"}


async def test_a_request_of_any_size_is_judged_sample_by_sample(opened: Opener) -> None:
    async with opened({"digits_like": {"cascade": CASCADE}}) as d:
        parts = np.split(FROM_CLEAN_TO_TAMPERED, [1, 4, 9])
        with d.busy_device():
            tasks = [asyncio.ensure_future(d.infer(request("digits_like", part))) for part in parts]
            await d.queued()
        await asyncio.gather(*tasks)
        spread = [sample for flow in d.flows for sample in flow.samples]
        await d.infer(request("digits_like", FROM_CLEAN_TO_TAMPERED))
        assert [s.verdict for s in spread] == [s.verdict for s in d.flow.samples]
        assert [set(s.p_values) for s in spread] == [set(s.p_values) for s in d.flow.samples]
        assert [s.score for s in spread] == pytest.approx(
            [s.score for s in d.flow.samples], rel=1e-4
        )


async def test_what_is_plainly_tampered_with_is_settled_too(opened: Opener) -> None:
    fields = {"cascade": CASCADE, "action": "purify"}
    async with opened({"digits_like": fields}) as d:
        await d.infer(request("digits_like", MIXED[1:2]))
        assert each(d.flow.samples) == ["suspicious"]
        assert d.flow.action is Action.PURIFY
        assert d.upstream.sent["own"] == []
        after = images_of("digits_like", d.upstream.sent["client"][-1])
        assert not np.array_equal(after, MIXED[1:2])


async def test_without_a_cascade_everything_is_asked(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        await d.infer(request("digits_like", MIXED[1:2]))
        assert len(d.upstream.sent["own"]) == 1


@pytest.fixture(scope="module")
def remembering(
    triton: EmbeddedTriton, calibrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Fields of digits_like with evidence of every cost, and a memory of queries."""
    folder = tmp_path_factory.mktemp("remembering")
    names = ("residual", "margin", "feature_squeezing", "history")
    fields: dict[str, Any] = {
        "detectors": [{"name": name} for name in names],
        "calibration": folder,
        "cascade": CASCADE,
        "query_attacks": {"fpr": 0.05},
    }
    config = Config.model_validate(
        {"upstream": triton.grpc_address, "models": {"digits_like": {**fields, "fpr": 0.05}}}
    )
    with (folder / "log").open("w") as log:
        run(config, "digits_like", calibrations / "benign.npz", console=Console(file=log))
    return fields


async def test_in_a_batch_the_settled_raise_the_alarm_beside_those_in_doubt(
    opened: Opener, remembering: dict[str, Any]
) -> None:
    base = benign(1, seed=507)[0]
    noise = np.random.default_rng(1).normal(0, 0.02, (6, *base.shape)).astype(np.float32)
    pairs = np.concatenate([np.stack((base + n, base - n)) for n in noise]).clip(0, 1)
    async with opened({"digits_like": remembering}) as d:
        await d.infer(request("digits_like", np.concatenate([pairs, FROM_CLEAN_TO_TAMPERED])))
        looked = [set(sample.p_values) for sample in d.flow.samples]
        assert all("history" in names for names in looked)
        assert len({frozenset(names) for names in looked}) > 1
        alarmed = [sample for sample in d.flow.samples[: len(pairs)] if sample.alarm]
        assert any("feature_squeezing" not in sample.p_values for sample in alarmed)
        assert d.metric("history_alarms_total") == 1


# -- draws by a secret -----------------------------------------------------------------------------


async def test_a_secret_decides_what_counts(opened: Opener, tmp_path: Path) -> None:
    async def seen(key: str) -> tuple[list[float], list[str]]:
        (tmp_path / "key").write_text(key)
        secrecy = {"key_file": str(tmp_path / "key"), "keep": 0.5}
        async with opened({"digits_like": {"secrecy": secrecy}}) as d:
            await d.infer(request("digits_like", MIXED))
            assert p_values(d.flow) == ALL_FOUR
            return [s.score for s in d.flow.samples], each(d.flow.samples)

    keys = [f"deployment {number} of several" for number in range(4)]
    drawn = [await seen(key) for key in keys]
    assert len({tuple(scores) for scores, _ in drawn}) > 1
    assert (await seen(keys[0]))[0] == pytest.approx(drawn[0][0])
    # A draw without the detector that sees the pattern does not see it: that is its price.
    assert any(verdicts[1] == "suspicious" for _, verdicts in drawn)
    assert all(verdicts.count("suspicious") <= 1 for _, verdicts in drawn)


# -- other models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(
    triton: EmbeddedTriton, calibrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Fields of digits_like that compare its answers with those of another model."""
    folder = tmp_path_factory.mktemp("together")
    fields: dict[str, Any] = {
        "detectors": [
            {"name": "residual"},
            {"name": "jpeg_view"},
            {"name": "ensemble", "params": {"models": [PEER]}},
        ],
        "calibration": folder,
    }
    config = Config.model_validate(
        {"upstream": triton.grpc_address, "models": {"digits_like": {**fields, "fpr": 0.05}}}
    )
    with (folder / "log").open("w") as log:
        run(config, "digits_like", calibrations / "benign.npz", console=Console(file=log))
    return fields


async def test_another_model_is_asked_about_the_unchanged_input(
    opened: Opener, together: dict[str, Any]
) -> None:
    async with opened({"digits_like": together}) as d:
        await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == {"residual", "jpeg_view", "ensemble"}
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        asked = {pb.ModelInferRequest.FromString(m).model_name: m for m in d.upstream.sent["own"]}
        assert set(asked) == {"digits_like", PEER}
        assert np.array_equal(images_of("digits_like", asked[PEER]), MIXED)
        assert not np.array_equal(images_of("digits_like", asked["digits_like"]), MIXED)


async def test_another_model_that_does_not_answer_is_a_failure(
    opened: Opener, together: dict[str, Any]
) -> None:
    async with opened({"digits_like": {**together, "on_failure": "closed"}}) as d:
        d.upstream.failing["own"] = UpstreamUnavailable("gone")
        with pytest.raises(DetectorFailed, match="error"):
            await d.infer(request("digits_like", CLEAN))
        assert d.flow.verdict is Verdict.FAILED
