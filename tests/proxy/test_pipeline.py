"""Requests through the whole defence, in front of the real Triton."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from detectors import DETECTORS
from detectors.base import Detector, Evidence, Need
from proxy.config import Config
from proxy.errors import (
    Blocked,
    DetectorFailed,
    Draining,
    InvalidTensor,
    Overloaded,
    RpcRefused,
    SharedMemoryRefused,
    UpstreamError,
    UpstreamUnavailable,
)
from proxy.flow import Action, Flow, Verdict
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import OBSERVE_CAPACITY
from proxy.upstream import Answer
from purifiers import Median
from tests.builders import infer_request, set_parameter
from tests.defended import (
    Defended,
    as_file,
    benign,
    defended,
    each,
    eventually,
    files_of,
    images_of,
    request,
    settings_of,
    tampered,
)
from tests.proxy.running import Reply, ask, running
from tuning.calibrate import run as calibrate
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

Opener = Callable[..., AbstractAsyncContextManager[Defended]]

CLEAN = benign(4, seed=99)
MIXED = CLEAN.copy()
MIXED[1] = tampered(CLEAN)[1]
"""Four images, of which the second is tampered with."""

ALL_FOUR = {"residual", "margin", "energy", "feature_squeezing"}
INPUT_ONLY = {"detectors": ({"name": "residual"},)}


@pytest.fixture
def opened(triton: EmbeddedTriton, calibrations: Path, tmp_path: Path) -> Opener:
    """Opens a pipeline for models by name, with the fields that differ from the fixture's."""

    def opener(models: Mapping[str, Mapping[str, Any]], **settings: Any):
        folder = settings.pop("calibrations", calibrations)
        return defended(triton.grpc_address, folder, tmp_path, models, **settings)

    return opener


class Moody(Detector):
    """The brightness; raises for, or cannot tell, images marked in their first row."""

    name: ClassVar[str] = "moody"
    needs: ClassVar[Need] = Need.INPUT

    def _score(self, evidence: Evidence) -> torch.Tensor:
        mark = evidence.x[:, 0, 0]  # (B, W)
        if (mark == 1).all(dim=1).any():
            raise ZeroDivisionError("moody")
        scores = evidence.x.mean(dim=(1, 2, 3))
        return torch.where((mark == 0).all(dim=1), torch.tensor(math.nan), scores)


@pytest.fixture(scope="module")
def moody(
    triton: EmbeddedTriton, calibrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A configuration of digits_like with a detector that fails when told to."""
    folder = tmp_path_factory.mktemp("moody") / "digits_like"
    parts = {"detectors": ({"name": "residual"}, {"name": "moody"}), "calibration": folder}
    config = Config.model_validate(
        {"upstream": triton.grpc_address, "models": {"digits_like": {**parts, "fpr": 0.05}}}
    )
    DETECTORS["moody"] = Moody
    with (folder.parent / "log").open("w") as log:
        calibrate(config, "digits_like", calibrations / "benign.npz", console=Console(file=log))
    yield parts
    del DETECTORS["moody"]


def marked(value: float) -> np.ndarray:
    """A clean image on which `moody` raises (1) or has no answer (0)."""
    x = CLEAN[:1].copy()
    x[:, 0, 0] = value
    return x


def output_of(answer: Answer) -> np.ndarray:
    response = pb.ModelInferResponse.FromString(answer.data)
    return np.frombuffer(response.raw_output_contents[0], np.float32)


def p_values(flow: Flow) -> set[str]:
    (names,) = {frozenset(sample.p_values) for sample in flow.samples}
    return set(names)


# -- enforce: what is done -------------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", ["sequential", "speculative"])
@pytest.mark.parametrize("action", ["flag", "purify", "block"])
async def test_clean_requests_pass_byte_for_byte(
    opened: Opener, dispatch: str, action: str
) -> None:
    async with opened({"digits_like": {"action": action, "dispatch": dispatch}}) as d:
        message = request("digits_like", CLEAN).SerializeToString()
        answer = await d.infer(message)
        assert each(d.flow.samples) == ["pass"] * 4
        assert p_values(d.flow) == ALL_FOUR
        assert d.flow.action is Action.NONE
        assert d.upstream.sent["client"] == [message]
        assert len(output_of(answer)) == 40
        assert d.metric("samples_total", verdict="pass") == 4
        assert d.metric("requests_total", action="none", outcome="ok") == 1
        assert d.audit() == []


async def test_flag_passes_and_records(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "flag"}}) as d:
        message = request("digits_like", MIXED).SerializeToString()
        await d.infer(message)
        assert d.upstream.sent["client"] == [message]
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.metric("samples_total", verdict="suspicious") == 1
        assert d.metric("detector_p_value_count", detector="residual") == 4
        (line,) = d.audit()
        assert (line["model"], line["action"], line["principal"]) == (
            "digits_like",
            "flag",
            "tester",
        )


@pytest.mark.parametrize(
    ("model", "typed"),
    [
        ("digits_like", False),
        ("digits_like", True),
        ("digits_like_probabilities", False),
        ("digits_like_nhwc_uint8", False),
        ("digits_like_fp16", False),
    ],
)
async def test_purify_changes_the_suspicious_samples_only(
    opened: Opener, model: str, typed: bool
) -> None:
    async with opened({model: {"action": "purify"}}) as d:
        message = request(model, MIXED, typed=typed)
        await d.infer(message)
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.flow.action is Action.PURIFY
        sent = pb.ModelInferRequest.FromString(d.upstream.sent["client"][-1])
        if typed:
            assert not sent.raw_input_contents
            values = np.array(sent.inputs[0].contents.fp32_contents, np.float32)
            after, before = values.reshape(MIXED.shape), MIXED
        else:
            after = images_of(model, d.upstream.sent["client"][-1])
            before = images_of(model, message.SerializeToString())
        assert [i for i in range(4) if not np.array_equal(after[i], before[i])] == [1]
        expected = Median(3).purify(torch.from_numpy(MIXED[1:2])).numpy()[0]
        found = after[1].transpose(2, 0, 1) / 255 if model.endswith("uint8") else after[1]
        assert np.abs(found - expected).max() < 1 / 400
        # Nothing else of the message is different.
        message.ClearField("raw_input_contents")
        sent.ClearField("raw_input_contents")
        for item in (message.inputs[0], sent.inputs[0]):
            item.ClearField("contents")
        assert sent == message


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_purified_files_are_spliced_in_and_keep_their_format(
    opened: Opener, kind: str
) -> None:
    files = [as_file(image, kind) for image in MIXED]
    message = infer_request(
        {"image": np.array([[f] for f in files], np.object_)}, model="encoded", request_id="client"
    )
    async with opened({"encoded": {"action": "purify"}}) as d:
        await d.infer(message)
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        (sent,) = d.upstream.sent["client"]
        after = files_of(sent)
        assert [i for i in range(4) if after[i] != files[i]] == [1]
        picture = Image.open(io.BytesIO(after[1]))
        assert (picture.format, picture.size) == (kind, (32, 32))
        expected = Median(3).purify(torch.from_numpy(MIXED[1:2])).numpy()[0].transpose(1, 2, 0)
        error = np.abs(np.asarray(picture) / 255 - expected)
        assert error.mean() < (0.05 if kind == "JPEG" else 0.01)


async def test_an_unreadable_file_is_refused(opened: Opener) -> None:
    files = np.array([[as_file(CLEAN[0])], [b"GIF89a"]], np.object_)
    async with opened({"encoded": {}}) as d:
        with pytest.raises(InvalidTensor, match="not a readable"):
            await d.infer(infer_request({"image": files}, model="encoded"))
        assert d.upstream.sent["client"] == []


async def test_block_refuses_the_whole_request(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert d.flow.action is Action.BLOCK
        assert d.metric("requests_total", action="block", outcome="blocked") == 1
        assert len(d.audit()) == 1


async def test_sequential_input_only_blocks_before_the_model_sees_anything(opened: Opener) -> None:
    async with opened({"digits_like_fp16": {"action": "block", "dispatch": "sequential"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like_fp16", MIXED))
        assert d.upstream.sent == {"client": [], "own": []}


async def test_sequential_input_only_purifies_before_the_model_sees_anything(
    opened: Opener,
) -> None:
    async with opened({"digits_like_fp16": {"action": "purify", "dispatch": "sequential"}}) as d:
        await d.infer(request("digits_like_fp16", MIXED))
        assert len(d.upstream.sent["client"]) == 1


async def test_speculative_asks_at_once_and_cancels_on_block(opened: Opener) -> None:
    async with opened({"digits_like_fp16": {"action": "block", "dispatch": "speculative"}}) as d:
        d.upstream.held = {"client"}
        with pytest.raises(Blocked):
            await d.infer(request("digits_like_fp16", MIXED))
        await asyncio.sleep(0)
        assert len(d.upstream.sent["client"]) == 1
        assert d.upstream.cancelled == ["client"]


async def test_speculative_drops_the_answer_to_what_was_purified(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify", "dispatch": "speculative"}}) as d:
        message = request("digits_like", MIXED).SerializeToString()
        answer = await d.infer(message)
        first, second = d.upstream.sent["client"]
        assert first == message
        fresh = await d.upstream.call(
            "/inference.GRPCInferenceService/ModelInfer", second, timeout_s=5
        )
        assert np.array_equal(output_of(answer), output_of(fresh))


async def test_the_clients_metadata_goes_with_every_query(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        await d.infer(request("digits_like", CLEAN), [("authorization", "token")])
        assert d.upstream.metadata == [[("authorization", "token")]] * 2


async def test_more_copies_than_a_batch_holds_go_in_several_calls(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        await d.infer(request("digits_like", benign(40, seed=3)))
        assert [len(images_of("digits_like", m)) for m in d.upstream.sent["own"]] == [40, 40]
        assert len(d.flow.samples) == 40


# -- enforce: failures -----------------------------------------------------------------------------


@pytest.mark.parametrize("on_failure", ["open", "closed"])
@pytest.mark.parametrize(
    ("x", "reason"), [(marked(1), "error"), (marked(0), "non_finite")], ids=["raises", "nan"]
)
async def test_a_detector_that_fails(
    opened: Opener, moody: dict[str, Any], x: np.ndarray, reason: str, on_failure: str
) -> None:
    async with opened({"digits_like": {**moody, "on_failure": on_failure}}) as d:
        message = request("digits_like", x).SerializeToString()
        if on_failure == "open":
            await d.infer(message)
            assert d.upstream.sent["client"] == [message]
        else:
            with pytest.raises(DetectorFailed) as failure:
                await d.infer(message)
            assert failure.value.reason == reason
            assert d.upstream.sent["client"] == []
        assert d.flow.verdict is Verdict.FAILED
        assert d.flow.failure == reason
        assert d.metric("detector_failures_total", reason=reason) == 1
        assert d.metric("fail_open_total", reason=reason) == (on_failure == "open")
        assert d.metric("samples_total", verdict="failed") == 1
        assert d.audit()[0]["failure"] == reason


async def test_a_raising_detector_harms_no_batch_mate(
    opened: Opener, moody: dict[str, Any]
) -> None:
    async with opened({"digits_like": {**moody, "on_failure": "closed"}}) as d:
        with d.busy_device():
            tasks = [
                asyncio.ensure_future(d.infer(request("digits_like", x)))
                for x in (CLEAN[:1], marked(1), CLEAN[1:3])
            ]
            await d.queued()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [Answer, DetectorFailed, Answer]


@pytest.mark.parametrize("action", ["purify", "block"])
async def test_a_sample_without_a_verdict_carries_no_other_through(
    opened: Opener, moody: dict[str, Any], action: str
) -> None:
    batch = np.concatenate([marked(0), MIXED[1:2]])
    async with opened({"digits_like": {**moody, "action": action}}) as d:
        work = d.infer(request("digits_like", batch))
        if action == "block":
            with pytest.raises(Blocked):
                await work
        else:
            await work
            after = images_of("digits_like", d.upstream.sent["client"][-1])
            assert np.array_equal(after[0], batch[0])
            assert not np.array_equal(after[1], batch[1])
        assert each(d.flow.samples) == ["failed", "suspicious"]
        assert d.metric("fail_open_total", reason="non_finite") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_busy_device_is_waited_for_no_longer_than_the_budget(
    opened: Opener, on_failure: str
) -> None:
    fields = {"budget_ms": 5, "on_failure": on_failure}
    async with opened({"digits_like_fp16": fields}) as d:
        with d.busy_device():
            work = d.infer(request("digits_like_fp16", MIXED))
            if on_failure == "closed":
                with pytest.raises(DetectorFailed, match="budget"):
                    await work
            else:
                await work
        assert d.flow.failure == "budget"
        assert d.metric("fail_open_total", reason="budget") == (on_failure == "open")


async def test_views_are_waited_for_no_longer_than_the_budget(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 50, "action": "block"}}) as d:
        d.upstream.held = {"own"}
        await d.infer(request("digits_like", MIXED))
        assert d.flow.failure == "budget"
        await asyncio.sleep(0)
        assert d.upstream.cancelled == ["own"]


async def test_the_models_own_time_is_not_counted(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 300}}) as d:
        d.upstream.held = {"client"}
        task = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        await d.upstream.expect("client")
        await asyncio.wait({task}, timeout=0.4)  # longer than the whole budget
        d.upstream.release()
        await task
        assert d.flow.failure == ""


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_purifying_late_is_a_failure_too(opened: Opener, on_failure: str) -> None:
    # The chain is long enough that the budget ends inside it.
    chain = tuple({"name": "median", "params": {"size": 3}} for _ in range(2000))
    fields = {"action": "purify", "purifiers": chain, "budget_ms": 60, "on_failure": on_failure}
    async with opened({"digits_like_fp16": fields}) as d:
        message = request("digits_like_fp16", MIXED).SerializeToString()
        if on_failure == "open":
            await d.infer(message)
            assert d.upstream.sent["client"] == [message]
            assert d.flow.action is Action.FLAG
        else:
            with pytest.raises(DetectorFailed, match="budget"):
                await d.infer(message)
        assert d.metric("detector_failures_total", reason="budget") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_no_room_in_the_queue(opened: Opener, on_failure: str) -> None:
    async with opened({"digits_like": {"on_failure": on_failure}}, capacity=0) as d:
        work = d.infer(request("digits_like", MIXED))
        if on_failure == "closed":
            with pytest.raises(Overloaded):
                await work
        else:
            await work
        assert d.metric("detector_failures_total", reason="overloaded") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_model_that_cannot_be_scored_yet(opened: Opener, on_failure: str) -> None:
    async with opened({"digits_like": {"on_failure": on_failure}}, refresh=False) as d:
        work = d.infer(request("digits_like", MIXED))
        if on_failure == "closed":
            with pytest.raises(DetectorFailed) as failure:
                await work
            assert failure.value.reason == "not_ready"
        else:
            await work
        assert d.metric("detector_failures_total", reason="not_ready") == 1


async def test_a_model_server_that_dies_while_copies_are_asked_about(opened: Opener) -> None:
    async with opened({"digits_like": {"on_failure": "closed"}}) as d:
        d.upstream.failing["own"] = UpstreamUnavailable("gone")
        with pytest.raises(DetectorFailed) as failure:
            await d.infer(request("digits_like", CLEAN))
        assert failure.value.reason == "error"


async def test_the_models_own_error_reaches_the_client(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.failing["client"] = UpstreamError(3, "no")
        with pytest.raises(UpstreamError, match="no"):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("upstream_errors_total", code="INVALID_ARGUMENT") == 1
        assert d.flow.samples == ()


# -- what a client may try -------------------------------------------------------------------------


def classes(message: pb.ModelInferRequest) -> None:
    set_parameter(message.outputs.add(name="logits").parameters, "classification", 3)


def in_shared_memory(message: pb.ModelInferRequest) -> None:
    parameters = message.outputs.add(name="logits").parameters
    set_parameter(parameters, "shared_memory_region", "nowhere")
    set_parameter(parameters, "shared_memory_byte_size", 160)


def plain_and_classes(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="logits")
    classes(message)


def another(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="something")


@pytest.mark.parametrize("hide", [classes, in_shared_memory, plain_and_classes, another])
async def test_hiding_the_answer_hides_nothing(
    opened: Opener, hide: Callable[[pb.ModelInferRequest], None]
) -> None:
    async with opened({"digits_like": {"action": "block"}}, shared_memory="passthrough") as d:
        message = request("digits_like", MIXED)
        hide(message)
        with pytest.raises(Blocked):
            await d.infer(message)
        assert p_values(d.flow) == ALL_FOUR
        assert d.upstream.sent["client"] == []
        (own,) = d.upstream.sent["own"]
        assert len(images_of("digits_like", own)) == 12  # the original and two copies
        query = pb.ModelInferRequest.FromString(own)
        assert [(o.name, len(o.parameters)) for o in query.outputs] == [("logits", 0)]


async def test_classes_of_clean_images_are_answered(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        message = request("digits_like", CLEAN)
        classes(message)
        answer = pb.ModelInferResponse.FromString((await d.infer(message)).data)
        assert answer.outputs[0].datatype == "BYTES"
        assert each(d.flow.samples) == ["pass"] * 4


async def test_an_answer_that_is_not_what_was_asked_for_is_asked_again(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        d.upstream.blank = {"client"}
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == ALL_FOUR
        assert [len(images_of("digits_like", m)) for m in d.upstream.sent["own"]] == [8, 4]


async def test_no_answer_to_anything_is_a_failure(opened: Opener) -> None:
    async with opened({"digits_like": {"on_failure": "closed"}}) as d:
        d.upstream.blank = {"client", "own"}
        with pytest.raises(DetectorFailed) as failure:
            await d.infer(request("digits_like", CLEAN))
        assert failure.value.reason == "no_evidence"


async def test_calling_it_a_sequence_is_no_way_past(opened: Opener) -> None:
    parameters = {"sequence_id": 7, "sequence_start": True}
    async with opened({"digits_like": {"action": "block"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED, parameters=parameters))


async def test_a_sequence_is_scored_on_the_input_and_never_blocked(opened: Opener) -> None:
    async with opened({"sequence_sum": {"action": "block", "dispatch": "speculative"}}) as d:
        total = 0.0
        for step, x in enumerate((CLEAN[:1], MIXED[1:2], CLEAN[2:3])):
            parameters = {
                **{"sequence_id": 9, "sequence_start": step == 0, "sequence_end": step == 2}
            }
            answer = await d.infer(request("sequence_sum", x, parameters=parameters))
            total += float(x.sum())
            assert output_of(answer)[0] == pytest.approx(total, rel=1e-5)
            assert p_values(d.flow) == {"residual"}
        assert [flow.action for flow in d.flows] == [Action.NONE, Action.FLAG, Action.NONE]
        assert len(d.upstream.sent["client"]) == 3
        assert d.upstream.sent["own"] == []


async def test_a_purified_sequence_reaches_the_model_once(opened: Opener) -> None:
    async with opened({"sequence_sum": {"action": "purify"}}) as d:
        both = {"sequence_id": 10, "sequence_start": True, "sequence_end": True}
        await d.infer(request("sequence_sum", MIXED[1:2], parameters=both))
        (sent,) = d.upstream.sent["client"]
        assert not np.array_equal(images_of("sequence_sum", sent), MIXED[1])


async def test_state_that_cannot_be_ruled_out_counts_only_with_a_sequence_id(
    opened: Opener,
) -> None:
    async with opened({"digits_like_fp16": {"action": "block"}}) as d:
        defence = d.defences.find("digits_like_fp16")
        assert defence.spec is not None
        defence.spec = replace(defence.spec, may_be_stateful=True)
        outcomes = []
        for parameters in ({}, {"sequence_id": 0}, {"sequence_id": 3}, {"sequence_id": "a"}):
            message = request("digits_like_fp16", MIXED, parameters=parameters)
            await asyncio.gather(d.infer(message), return_exceptions=True)
            outcomes.append(d.flow.outcome)
        assert outcomes == ["blocked", "blocked", "ok", "ok"]


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_an_input_nobody_knows_is_no_way_past(opened: Opener, on_failure: str) -> None:
    message = infer_request({"picture": MIXED}, model="digits_like", request_id="client")
    async with opened({"digits_like": {"on_failure": on_failure}}) as d:
        with pytest.raises(DetectorFailed if on_failure == "closed" else UpstreamError):
            await d.infer(message)
        assert d.metric("detector_failures_total", reason="no_evidence") == 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (MIXED.astype(np.float64), "is FP64, the model takes FP32"),
        (MIXED * 255, "check range or mean/std"),
        (MIXED[:, :1], "expected"),
        (MIXED[0], "expected"),
        (benign(65, seed=1), "65 samples, more than 64"),
    ],
    ids=["datatype", "range", "channels", "axes", "batch"],
)
async def test_tensors_the_model_cannot_mean(
    opened: Opener, tensor: np.ndarray, message: str
) -> None:
    async with opened({"digits_like": {}}) as d:
        with pytest.raises(InvalidTensor, match=message):
            await d.infer(infer_request({"image": tensor}, model="digits_like"))
        assert d.upstream.sent == {"client": [], "own": []}


async def test_a_bad_tensor_harms_no_batch_mate(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        with d.busy_device():
            tasks = [
                asyncio.ensure_future(d.infer(request("digits_like", x)))
                for x in (CLEAN, CLEAN * 255, MIXED)
            ]
            await d.queued()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [Answer, InvalidTensor, Answer]
        assert each(d.flows[2].samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.metric("batch_size_count") < 6  # they did share passes


async def test_an_empty_batch_has_no_verdict(opened: Opener) -> None:
    async with opened({"digits_like": {}, "encoded": {}}) as d:
        for message in (
            request("digits_like", CLEAN[:0]),
            infer_request({"image": np.empty((0, 1), np.object_)}, model="encoded"),
        ):
            with pytest.raises(UpstreamError):  # Triton takes none
                await d.infer(message)
            assert d.flow.samples == ()
            assert d.flow.verdict is None


async def test_a_request_without_the_image_has_nothing_to_score(opened: Opener) -> None:
    message = infer_request({"count": np.array([2], np.int32)}, model="repeat").SerializeToString()
    async with opened({"repeat": {"action": "block"}}) as d:
        flow = Flow("r", 0.0, None, "tester", streamed=True)
        assert await d.pipeline.inspect(flow, message, None) == message
        assert d.metric("unscored_total", reason="no_tensor") == 1


@pytest.mark.parametrize(
    ("policy", "error", "unscored"),
    [
        ("deny", SharedMemoryRefused, 0),
        ("passthrough", UpstreamError, 1),
        ("inspect", InvalidTensor, 0),
    ],
)
async def test_an_image_in_shared_memory(
    opened: Opener, policy: str, error: type[Exception], unscored: int
) -> None:
    message = request("digits_like", MIXED)
    message.ClearField("raw_input_contents")
    set_parameter(message.inputs[0].parameters, "shared_memory_region", "nowhere")
    set_parameter(message.inputs[0].parameters, "shared_memory_byte_size", 4 * 4 * 3 * 32 * 32)
    async with opened({"digits_like": {}}, shared_memory=policy) as d:
        with pytest.raises(error):
            await d.infer(message)
        assert d.metric("unscored_total", reason="shared_memory") == unscored
        assert d.metric("shared_memory_passthrough_total") == unscored


# -- streams ---------------------------------------------------------------------------------------


async def stream_message(d: Defended, message: pb.ModelInferRequest) -> bytes:
    flow = Flow("r", 0.0, None, "tester", streamed=True)
    d.flows.append(flow)
    return await d.pipeline.inspect(flow, message.SerializeToString(), None)


async def test_a_stream_has_the_same_evidence(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        clean = request("digits_like", CLEAN)
        assert await stream_message(d, clean) == clean.SerializeToString()
        assert p_values(d.flow) == ALL_FOUR
        after = images_of("digits_like", await stream_message(d, request("digits_like", MIXED)))
        assert [i for i in range(4) if not np.array_equal(after[i], MIXED[i])] == [1]


async def test_a_decoupled_model_is_scored_on_its_input(opened: Opener) -> None:
    async with opened({"repeat": {"action": "block"}}) as d:
        assert await stream_message(d, request("repeat", CLEAN[:1]))
        assert p_values(d.flow) == {"residual"}
        with pytest.raises(Blocked):
            await stream_message(d, request("repeat", MIXED[1:2]))
        assert d.upstream.sent["own"] == []


async def test_streams_in_other_modes(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe", "action": "block"}}) as d:
        message = request("digits_like", MIXED)
        assert await stream_message(d, message) == message.SerializeToString()
        await d.observed(4)
        assert d.metric("samples_total", verdict="suspicious") == 1
        other = request("digits_like_fp16", MIXED)
        assert await stream_message(d, other) == other.SerializeToString()
        d.pipeline.finish(d.flow, "ok")
        assert d.metric("unscored_total", model="other", reason="unlisted_model") == 1


# -- observe ---------------------------------------------------------------------------------------


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
        for _ in range(OBSERVE_CAPACITY + 2):
            await d.infer(request("digits_like", CLEAN[:1]))
        assert d.metric("observe_skipped_total") == 2
        d.upstream.release()
        await d.observed(OBSERVE_CAPACITY)


async def test_closing_drops_what_is_still_observed(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe"}}) as d:
        d.upstream.held = {"own"}
        await d.infer(request("digits_like", CLEAN))
        await d.upstream.expect("own")
        await d.pipeline.close()
        assert d.upstream.cancelled == ["own"]


# -- a client that goes away -----------------------------------------------------------------------


async def test_a_client_that_leaves_while_queued(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        with d.busy_device():
            stays = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
            leaves = asyncio.ensure_future(d.infer(request("digits_like", MIXED)))
            await d.queued()
            leaves.cancel()
            await asyncio.wait({leaves})
        await stays
        assert leaves.cancelled()
        assert [flow.outcome for flow in d.flows] == ["ok", "cancelled"]
        assert len(d.upstream.sent["client"]) == 1


@pytest.mark.parametrize("kind", ["client", "own"])
@pytest.mark.parametrize("dispatch", ["sequential", "speculative"])
async def test_a_client_that_leaves_while_the_model_works(
    opened: Opener, kind: str, dispatch: str
) -> None:
    async with opened({"digits_like": {"dispatch": dispatch}}) as d:
        d.upstream.held = {kind}
        stays = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        leaves = asyncio.ensure_future(d.infer(request("digits_like", MIXED)))
        await d.upstream.expect(kind, 2)
        leaves.cancel()
        await asyncio.wait({leaves})
        d.upstream.release()
        await stays
        assert leaves.cancelled()
        assert kind in d.upstream.cancelled


# -- around it -------------------------------------------------------------------------------------


async def test_models_that_are_not_scored(opened: Opener) -> None:
    async with opened({"digits_like": {"detectors": ()}}) as d:
        for model in ("digits_like", "digits_like_fp16"):
            message = request(model, MIXED).SerializeToString()
            await d.infer(message)
            assert d.upstream.sent["client"][-1] == message
        assert d.metric("unscored_total", model="digits_like", reason="no_detectors") == 1
        assert d.metric("unscored_total", model="other", reason="unlisted_model") == 1


async def test_errors_for_models_that_are_not_scored_are_counted(opened: Opener) -> None:
    async with opened({}) as d:
        d.upstream.failing["client"] = UpstreamError(5, "no")
        with pytest.raises(UpstreamError):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("upstream_errors_total", model="other", code="NOT_FOUND") == 1


async def test_unlisted_models_can_be_refused(opened: Opener) -> None:
    async with opened({"digits_like": {}}, unlisted_models="refuse") as d:
        with pytest.raises(RpcRefused, match="not served here"):
            await d.infer(request("digits_like_fp16", CLEAN))


async def test_admission(opened: Opener) -> None:
    async with opened({}, max_in_flight=1) as d:
        d.pipeline.admit()
        assert not d.pipeline.idle.is_set()
        with pytest.raises(Overloaded):
            d.pipeline.admit()
        d.pipeline.release()
        assert d.pipeline.idle.is_set()
        d.pipeline.draining = True
        with pytest.raises(Draining):
            d.pipeline.admit()


@pytest.mark.parametrize(
    ("x", "mode", "told"),
    [(CLEAN, "enforce", "pass"), (MIXED, "enforce", "suspicious"), (MIXED, "observe", "unknown")],
)
async def test_annotations_only_where_wanted(
    opened: Opener, x: np.ndarray, mode: str, told: str
) -> None:
    async with opened(
        {"digits_like": {"annotate": True, "mode": mode}, "digits_like_fp16": {}}
    ) as d:
        await d.infer(request("digits_like", x))
        assert d.flow.annotations == (
            ("breakwater-verdict", told),
            ("breakwater-request-id", d.flow.request_id),
        )
        await d.infer(request("digits_like_fp16", x))
        assert d.flow.annotations == ()
        if mode == "observe":
            await d.observed(4)


async def test_times_are_noted_by_stage(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        await d.infer(request("digits_like", MIXED))
        stages = {"read", "queue", "score", "views", "purify", "upstream", "total"}
        assert set(d.flow.stage_s) == stages
        assert all(seconds >= 0 for seconds in d.flow.stage_s.values())
        assert d.metric("detector_seconds_count", detector="feature_squeezing") == 1


# -- what a caller sees ----------------------------------------------------------------------------


def seen(reply: Reply) -> tuple[Any, ...]:
    """A reply without the values that differ between any two answers."""
    response = pb.ModelInferResponse.FromString(reply.data)
    response.ClearField("raw_output_contents")
    keys = [[key for key, _ in part] for part in (reply.initial, reply.trailing)]
    return reply.code, reply.details, response.SerializeToString(), keys


@pytest.mark.parametrize("action", ["flag", "purify"])
async def test_silent_by_default(triton: EmbeddedTriton, calibrations: Path, action: str) -> None:
    models = settings_of(calibrations, {"digits_like": {"action": action}})
    async with running(triton.grpc_address, models=models) as front:
        clean = await ask(front.channel, "ModelInfer", request("digits_like", CLEAN))
        flagged = await ask(front.channel, "ModelInfer", request("digits_like", MIXED))
        assert await front.metric("samples_total", verdict="suspicious") == 1
        assert seen(clean) == seen(flagged)
        assert not any("breakwater" in key for key, _ in (*flagged.initial, *flagged.trailing))


async def test_a_block_looks_like_a_missing_verdict(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    models = settings_of(calibrations, {"digits_like": {"action": "block", "on_failure": "closed"}})
    late = settings_of(calibrations, {"digits_like": {"on_failure": "closed", "budget_ms": 1e-3}})
    async with (
        running(triton.grpc_address, models=models) as front,
        running(triton.grpc_address, models=late) as hasty,
    ):
        blocked = await ask(front.channel, "ModelInfer", request("digits_like", MIXED))
        failed = await ask(hasty.channel, "ModelInfer", request("digits_like", CLEAN))
        assert blocked.code is grpc.StatusCode.UNAVAILABLE
        assert blocked == failed
        assert await front.metric("requests_total", outcome="blocked") == 1
        assert await hasty.metric("detector_failures_total", reason="budget") == 1


async def test_annotated_answers_and_no_borrowed_ones(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    models = settings_of(calibrations, {"digits_like": {"annotate": True, "action": "block"}})
    async with running(triton.grpc_address, models=models) as front:
        for x, verdict, code in (
            (CLEAN, "pass", grpc.StatusCode.OK),
            (MIXED, "suspicious", grpc.StatusCode.UNAVAILABLE),
        ):
            reply = await ask(
                front.channel,
                "ModelInfer",
                request("digits_like", x),
                metadata=(("breakwater-verdict", "mine"),),
            )
            told = [value for key, value in reply.trailing if key == "breakwater-verdict"]
            assert (told, reply.code) == ([verdict], code)
            assert len(dict(reply.trailing)["breakwater-request-id"]) == 32
