"""What counts as the model's answer, and how long evidence may be waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxy import wire
from proxy.adapt import resolve
from proxy.artifacts import load
from proxy.config import Model
from proxy.defences import describe
from proxy.errors import DetectorFailed, UpstreamUnavailable
from proxy.evidence import Budget, Gatherer, Image, read_output, shows_output, timed
from proxy.flow import Flow
from proxy.scoring import Scorer
from proxy.tasks import Tasks
from tests.builders import infer_request, infer_response, set_parameter
from tests.defended import MODELS, benign, defended
from tests.proxy.test_tensors import SPEC
from tuning.triton import EmbeddedTriton

ROWS = np.arange(20, dtype=np.float32).reshape(2, 10)


def response(rows: Any, name: str = "logits") -> bytes:
    return infer_response({name: np.asarray(rows)}).SerializeToString()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_class_scores_are_read_in_any_precision(dtype: type) -> None:
    found = read_output(response(ROWS.astype(dtype)), SPEC, 2)
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, ROWS)


@pytest.mark.parametrize("shape", [(2, 10), (2, 1, 10), (2, 10, 1, 1)])
def test_axes_of_one_are_no_axes(shape: Sequence[int]) -> None:
    found = read_output(response(ROWS.reshape(shape)), SPEC, 2)
    assert found is not None
    assert found.shape == (2, 10)


def test_probabilities_become_finite_logarithms() -> None:
    found = read_output(
        response(np.array([[0.0, 1.0]], np.float32)), replace(SPEC, output_kind="probabilities"), 1
    )
    assert found is not None
    assert found[0, 1] == 0
    assert -90 < found[0, 0] < -80


def test_a_model_without_a_batch_axis_answers_for_one() -> None:
    spec = replace(SPEC, layout="CHW", shape=(3, 8, 8))
    found = read_output(response(ROWS[0]), spec, 1)
    assert found is not None
    assert found.shape == (1, 10)


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        (response(ROWS, "other"), 2),
        (response(ROWS.astype(np.int32)), 2),
        (response(np.array([[b"1:2"]], np.object_)), 1),
        (response(ROWS[:, :1]), 2),
        (response(ROWS.reshape(2, 2, 5)), 2),
        (response(ROWS), 3),
        (response(np.zeros((0, 10), np.float32)), 0),
        (b"", 1),
        (b"\xff", 1),
        (response(ROWS)[:-1], 2),
    ],
    ids=[
        *("another", "integers", "classes", "one class", "feature map", "other count", "empty"),
        *("nothing", "no message", "cut short"),
    ],
)
def test_anything_else_is_no_evidence(data: bytes, samples: int) -> None:
    assert read_output(data, SPEC, samples) is None


@pytest.mark.parametrize(
    ("outputs", "shown"),
    [
        ([], True),
        ([("logits", {})], True),
        ([("other", {}), ("logits", {})], True),
        ([("other", {})], False),
        ([("logits", {"classification": 3})], False),
        ([("logits", {"shared_memory_region": "r"})], False),
        ([("logits", {}), ("logits", {"classification": 3})], False),
        ([("logits", {"classification": 3}), ("logits", {})], False),
    ],
)
def test_which_requests_show_the_models_answer(
    outputs: list[tuple[str, dict[str, Any]]], shown: bool
) -> None:
    message = infer_request({"image": ROWS})
    for name, parameters in outputs:
        output = message.outputs.add(name=name)
        for key, value in parameters.items():
            set_parameter(output.parameters, key, value)
    request = wire.InferRequest.parse(message.SerializeToString())
    assert shows_output(request, SPEC) is shown
    assert not shows_output(request, replace(SPEC, output=None))


def test_only_running_time_is_spent() -> None:
    budget = Budget(100.0)
    assert budget.left_s == 100.0
    with budget.running():
        pass
    left = budget.left_s
    assert 90 < left < 100
    assert budget.left_s == left


def test_a_spent_budget_is_zero_and_not_less() -> None:
    budget = Budget(0.0)
    with budget.running():
        assert budget.left_s == 0.0
    assert budget.left_s == 0.0


def test_time_is_noted_also_of_what_fails() -> None:
    flow = Flow("r", 0.0, None, "p")
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), timed(flow, "score"):
            raise ValueError("x")
    assert list(flow.stage_s) == ["score"]
    assert flow.stage_s["score"] > 0


@pytest.mark.triton
async def test_other_inputs_go_along_with_every_copy(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    fields = {"inputs": [{"name": "image"}, {"name": "delay_ms", "inspect": False}]}
    model = Model.model_validate(
        {**MODELS["digits_like"], "fpr": 0.05, "calibration": calibrations / "digits_like"}
    )
    device = torch.device("cpu")
    artifact = load(calibrations / "digits_like", "digits_like", model, device)
    async with defended(triton.grpc_address, calibrations, tmp_path, {}) as d:
        described = await describe(d.upstream, "slow")
        spec = resolve("slow", Model.model_validate(fields), *described)
        scorer = Scorer(spec, model, artifact, device, lambda name, seconds: None)
        gatherer = Gatherer(d.batcher, d.upstream, Tasks())
        x, delay = benign(2, seed=5), np.array([[1], [0]], np.int32)
        parameters = {"custom": 2.5, "priority": 1, "timeout": 10**6}
        request = wire.InferRequest.parse(
            infer_request(
                {"image": x, "delay_ms": delay}, model="slow", parameters=parameters
            ).SerializeToString()
        )
        image = Image(0, request.tensors[0].payload(), x.shape)
        findings = await gatherer.gather(
            Flow("r", 0.0, None, "p"), scorer, spec, request, image,
            answer=None, budget=Budget(10), timeout_s=10, metadata=None,
        )  # fmt: skip
        assert len(findings.samples) == 2
        (own,) = d.upstream.sent["own"]
        sent = wire.InferRequest.parse(own)
        assert wire.as_numpy(sent.tensors[0]).shape == (6, 3, 32, 32)
        assert wire.as_numpy(sent.tensors[1]).ravel().tolist() == [1, 0] * 3
        assert set(sent.head.parameters) == {"custom"}
        assert np.array_equal(wire.as_numpy(sent.tensors[0])[4:], x)  # the unchanged copy, last


@pytest.mark.triton
async def test_when_one_query_fails_nobody_waits_for_the_others(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    models = {"digits_like": {"on_failure": "closed"}}
    async with defended(triton.grpc_address, calibrations, tmp_path, models) as d:
        # 40 samples and two views make two queries.
        message = infer_request(
            {"image": benign(40, seed=6)}, model="digits_like", request_id="client"
        )
        d.upstream.held = {"own"}
        d.upstream.failing_once["own"] = UpstreamUnavailable("gone")
        with pytest.raises(DetectorFailed):
            await d.infer(message)
        assert len(d.upstream.sent["own"]) == 2
        await d.queued()
        assert d.upstream.cancelled == ["own"]
