"""The proxy's own questions to the model, as they reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from proxy import wire
from proxy.adapt import resolve
from proxy.artifacts import load
from proxy.budget import Budget
from proxy.config import Model
from proxy.defence import Defence
from proxy.defences import describe
from proxy.device import Device
from proxy.errors import DetectorFailed, UpstreamUnavailable
from proxy.evidence import Gatherer
from proxy.flow import Flow
from proxy.inspection import Inspection
from proxy.scoring import Scorer
from proxy.tasks import Tasks
from tests.builders import infer_request
from tests.defended import MODELS, Opener
from tests.images import CLEAN, benign, images_of, request

pytestmark = pytest.mark.triton


async def test_the_clients_metadata_goes_with_every_query(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        await d.infer(request("digits_like", CLEAN), [("authorization", "token")])
        assert d.upstream.metadata == [[("authorization", "token")]] * 2


async def test_more_copies_than_a_batch_holds_go_in_several_calls(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        await d.infer(request("digits_like", benign(40, seed=3)))
        assert [len(images_of("digits_like", m)) for m in d.upstream.sent["own"]] == [40, 40]
        assert len(d.flow.samples) == 40


async def test_other_inputs_go_along_with_every_copy(opened: Opener, calibrations: Path) -> None:
    fields = {"inputs": [{"name": "image"}, {"name": "delay_ms", "inspect": False}]}
    model = Model.model_validate(
        {**MODELS["digits_like"], "fpr": 0.05, "calibration": calibrations / "digits_like"}
    )
    device = torch.device("cpu")
    artifact = load(calibrations / "digits_like", "digits_like", model, device)
    async with opened({}) as d:
        described = await describe(d.upstream, "slow")
        spec = resolve("slow", Model.model_validate(fields), *described)
        defence = Defence("slow", model, d.defences.find("slow").metrics, "refuse", spec=spec)
        defence.scorer = Scorer(spec, model, artifact, device, lambda name, seconds: None)
        x, delay = benign(2, seed=5), np.array([[1], [0]], np.int32)
        parameters = {"custom": 2.5, "priority": 1, "timeout": 10**6}
        parsed = wire.InferRequest.parse(
            infer_request(
                {"image": x, "delay_ms": delay}, model="slow", parameters=parameters
            ).SerializeToString()
        )
        flow = Flow("r", 0.0, None, "p")
        inspection = Inspection(flow, defence, model, parsed, None, Budget(10), 10)
        gatherer = Gatherer(Device(d.batcher), d.upstream, Tasks())
        findings = await gatherer.gather(inspection, None)
        assert findings is not None
        assert len(findings.samples) == 2
        (own,) = d.upstream.sent["own"]
        sent = wire.InferRequest.parse(own)
        assert wire.as_numpy(sent.tensors[0]).shape == (6, 3, 32, 32)
        assert wire.as_numpy(sent.tensors[1]).ravel().tolist() == [1, 0] * 3
        assert set(sent.head.parameters) == {"custom"}
        assert np.array_equal(wire.as_numpy(sent.tensors[0])[4:], x)  # the unchanged copy, last


async def test_when_one_query_fails_nobody_waits_for_the_others(opened: Opener) -> None:
    async with opened({"digits_like": {"on_failure": "closed"}}) as d:
        d.upstream.held = {"own"}
        d.upstream.failing_once["own"] = UpstreamUnavailable("gone")
        with pytest.raises(DetectorFailed):  # 40 samples and two views make two queries
            await d.infer(request("digits_like", benign(40, seed=6)))
        assert len(d.upstream.sent["own"]) == 2
        d.upstream.release()
        await d.queued()
        assert d.upstream.cancelled == []


async def test_a_model_server_that_dies_while_copies_are_asked_about(opened: Opener) -> None:
    async with opened({"digits_like": {"on_failure": "closed"}}) as d:
        d.upstream.failing["own"] = UpstreamUnavailable("gone")
        with pytest.raises(DetectorFailed) as failure:
            await d.infer(request("digits_like", CLEAN))
        assert failure.value.reason == "error"


async def test_no_answer_to_anything_is_a_failure(opened: Opener) -> None:
    async with opened({"digits_like": {"on_failure": "closed"}}) as d:
        d.upstream.blank = {"client", "own"}
        with pytest.raises(DetectorFailed) as failure:
            await d.infer(request("digits_like", CLEAN))
        assert failure.value.reason == "no_evidence"
