"""All defences: built from the configuration, completed and mended by Triton's description."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from proxy.config import Config
from proxy.defences import Defences, check, describe
from proxy.errors import ConfigError, UpstreamError, UpstreamUnavailable
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.rpc import RPCS
from proxy.upstream import Answer, Metadata, Upstream
from tests.defended import settings_of
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton


class Asked(Upstream):
    """The connection to Triton, with answers of its own where a test sets them."""

    def __init__(self, address: str) -> None:
        super().__init__(address, max_message_bytes=1 << 20)
        self.instead: dict[str, bytes | Exception] = {}

    async def call(
        self, method: str, data: bytes, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> Answer:
        given = self.instead.get(method.rpartition("/")[2])
        if isinstance(given, Exception):
            raise given
        if given is not None:
            return Answer(given)
        return await super().call(method, data, timeout_s=timeout_s, metadata=metadata)


@pytest.fixture
async def upstream(triton: EmbeddedTriton) -> AsyncIterator[Asked]:
    connection = Asked(triton.grpc_address)
    yield connection
    await connection.close()


def build(models: dict[str, Any], **settings: Any) -> tuple[Defences, CollectorRegistry]:
    registry = CollectorRegistry()
    config = Config.model_validate({"models": models, **settings})
    return Defences(config, Metrics(registry)), registry


async def test_a_configured_model_is_completed(upstream: Asked, calibrations: Path) -> None:
    defences, registry = build(settings_of(calibrations, {"digits_like": {}}))
    defence = defences.find("digits_like")
    assert defences.needs_device
    assert not defence.is_ready
    await defences.refresh(upstream)
    assert defence.is_ready
    assert defence.scorer is not None
    bounds = defence.scorer.threshold_bounds
    assert set(bounds) == {"input", "output", "views"}
    for level, (threshold, fpr) in bounds.items():
        labels = {"model": "digits_like", "evidence": level}
        assert registry.get_sample_value("breakwater_score_threshold", labels) == threshold
        name = "breakwater_calibrated_false_positive_ratio"
        assert registry.get_sample_value(name, labels) == fpr


async def test_thresholds_told_are_those_of_the_present_epoch(
    upstream: Asked, calibrations: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("0123456789abcdef")
    secrecy = {"key_file": tmp_path / "key", "keep": 0.4, "rotate_hours": 1e-9}  # all but at once
    defences, registry = build(settings_of(calibrations, {"digits_like": {"secrecy": secrecy}}))
    await defences.rotate()  # nothing to rotate yet
    await defences.refresh(upstream)
    scorer = defences.find("digits_like").scorer
    assert scorer is not None
    seen = set()
    for _ in range(4):
        await defences.rotate()
        labels = {"model": "digits_like", "evidence": "views"}
        told = registry.get_sample_value("breakwater_score_threshold", labels)
        assert told == scorer.threshold_bounds["views"][0]
        seen.add(told)
    assert len(seen) > 1


async def test_detectors_need_no_purifiers(upstream: Asked, calibrations: Path) -> None:
    defences, _ = build(settings_of(calibrations, {"digits_like_fp16": {"purifiers": ()}}))
    await defences.refresh(upstream)
    assert defences.find("digits_like_fp16").is_ready


async def test_an_unchanged_description_changes_nothing(
    upstream: Asked, calibrations: Path
) -> None:
    defences, _ = build(settings_of(calibrations, {"digits_like_fp16": {}}))
    await defences.refresh(upstream)
    before = defences.find("digits_like_fp16").scorer
    await defences.refresh(upstream)
    assert defences.find("digits_like_fp16").scorer is before


async def test_a_changed_description_is_followed(
    upstream: Asked, calibrations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    defences, registry = build(settings_of(calibrations, {"digits_like_fp16": {}}))
    await defences.refresh(upstream)
    defence = defences.find("digits_like_fp16")
    before = defence.scorer
    metadata, _ = await describe(upstream, "digits_like_fp16")

    metadata.versions[:] = ["2"]
    upstream.instead["ModelMetadata"] = metadata.SerializeToString()
    with caplog.at_level(logging.WARNING):
        await defences.refresh(upstream)
    assert defence.scorer is not None
    assert defence.scorer is not before
    (told,) = (r for r in caplog.records if "calibrated on version 1" in r.getMessage())
    assert told.getMessage().endswith("Triton serves 2: calibrate again")
    stale = {"model": "digits_like_fp16", "reason": "model_version"}
    assert registry.get_sample_value("breakwater_calibration_stale", stale) == 1
    # Off the event loop: to draw the rules takes tenths of a second.
    assert told.thread != threading.get_ident()

    metadata.inputs[0].datatype = "INT32"
    upstream.instead["ModelMetadata"] = metadata.SerializeToString()
    for _ in range(2):  # told once
        await defences.refresh(upstream)
    assert not defence.is_ready
    assert "image is INT32" in defence.problem
    assert caplog.text.count("is not defended: ") == 1

    upstream.instead.clear()
    await defences.refresh(upstream)
    assert (defence.is_ready, defence.problem) == (True, "")


async def test_a_model_triton_does_not_serve_is_a_problem_of_its_own(
    upstream: Asked, calibrations: Path
) -> None:
    defences, _ = build({**settings_of(calibrations, {"digits_like_fp16": {}}), "absent": {}})
    await defences.refresh(upstream)
    assert "Triton does not describe it" in defences.find("absent").problem
    assert defences.find("digits_like_fp16").is_ready


async def test_what_is_only_validated_need_not_be_an_image(upstream: Asked) -> None:
    defences, _ = build({"all_types": {"non_finite": "pass"}, "identity_bytes": {}})
    await defences.refresh(upstream)
    assert [d.problem for d in defences.models()] == ["", ""]
    assert [d.is_ready for d in defences.models()] == [True, True]
    assert not defences.needs_device


async def test_triton_out_of_reach_changes_nothing(calibrations: Path) -> None:
    defences, _ = build(settings_of(calibrations, {"digits_like_fp16": {}}))
    nowhere = Upstream("127.0.0.1:1", max_message_bytes=1 << 20)
    with pytest.raises(UpstreamUnavailable):
        await defences.refresh(nowhere)
    await nowhere.close()
    assert defences.find("digits_like_fp16").problem == ""


@pytest.mark.parametrize("away", [UpstreamError(5, "unknown model"), UpstreamUnavailable("gone")])
async def test_a_new_configuration_while_triton_is_away_undoes_no_defence(
    upstream: Asked, calibrations: Path, away: Exception
) -> None:
    models = settings_of(calibrations, {"digits_like_fp16": {}})
    before, _ = build(models)
    await before.refresh(upstream)
    upstream.instead["ModelMetadata"] = away
    after, _ = build(models)
    after.learn_from(before)
    await after.refresh(upstream)
    assert after.find("digits_like_fp16").is_ready


async def test_a_hidden_configuration_is_done_without(upstream: Asked) -> None:
    upstream.instead["ModelConfig"] = UpstreamError(14, "This protocol is restricted")
    metadata, config = await describe(upstream, "digits_like")
    assert metadata.name == "digits_like"
    assert config is None


@pytest.mark.parametrize("error", [UpstreamError(4, "late"), UpstreamUnavailable("gone")])
async def test_a_slow_or_absent_answer_is_not_a_hidden_one(
    upstream: Asked, error: Exception
) -> None:
    upstream.instead["ModelConfig"] = error
    with pytest.raises(type(error)):
        await describe(upstream, "digits_like")


async def test_both_descriptions_are_asked_for(upstream: Asked) -> None:
    metadata, config = await describe(upstream, "digits_like")
    assert isinstance(config, pb.ModelConfig)
    assert (metadata.name, config.name) == ("digits_like", "digits_like")
    assert {"ModelMetadata", "ModelConfig"} <= set(RPCS)


def test_models_that_are_not_configured(calibrations: Path) -> None:
    for policy, refused in (("pass", False), ("refuse", True)):
        defences, _ = build({"known": {}}, unlisted_models=policy)
        other = defences.find("unknown")
        assert (other.name, other.model, other.refused) == ("other", None, refused)
        assert other.non_finite == "pass"
        known = defences.find("known")
        assert (known.refused, known.non_finite) == (False, "refuse")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"calibration": Path("nowhere")},
            "calibration.json is missing. Run `breakwater calibrate",
        ),
        ({"detectors": [{"name": "unheard_of"}]}, "unknown detector 'unheard_of'; there are"),
        ({"detectors": [{"name": "residual", "params": {"x": 1}}]}, "unknown parameters"),
        ({"purifiers": [{"name": "unheard_of"}]}, "unknown purifier"),
        ({"detectors": [{"name": "residual"}]}, "it is stale: `detectors`"),
        ({"output": {"kind": "probabilities"}}, "it is stale: `output`"),
        ({"fpr": 0.001}, "a false-positive rate of 0.001 needs"),
        ({"secrecy": {"key_file": Path("nowhere")}}, "secrecy.key_file: .*No such file"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(
    calibrations: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(settings_of(calibrations, {"digits_like": fields}))


def test_another_models_calibration_is_refused(calibrations: Path) -> None:
    foreign = {"calibration": calibrations / "encoded"}
    with pytest.raises(ConfigError, match="made for model 'encoded', not 'digits_like_fp16'"):
        build(settings_of(calibrations, {"digits_like_fp16": foreign}))


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        ("digits_like", {"fpr": 0.001}, "a false-positive rate of 0.001 needs"),
        ("digits_like", {"inputs": [{"layout": "NHWC"}]}, "has 32 channels"),
    ],
)
async def test_problems_that_show_only_with_the_description(
    upstream: Asked, calibrations: Path, tmp_path: Path, model: str, fields: dict, message: str
) -> None:
    settings = settings_of(calibrations, {model: {}})
    defences, _ = build(settings)
    defence = defences.find(model)
    assert defence.model is not None
    settings[model].update(fields)
    defence.model = Config.model_validate({"models": settings}).models[model]
    await defences.refresh(upstream)
    assert message in defence.problem
    assert not defence.is_ready


@pytest.mark.parametrize("secret", [None, "short"])
def test_a_check_finds_a_history_key_that_cannot_be_used(
    tmp_path: Path, secret: str | None
) -> None:
    key = tmp_path / "key"
    if secret is not None:
        key.write_text(secret)
    model = {"detectors": [{"name": "history"}], "calibration": str(tmp_path)}
    settings = {"models": {"cnn": model}, "history": {"key_file": str(key)}}
    with pytest.raises(ConfigError, match=r"history\.key_file: "):
        check(Config.model_validate(settings))
