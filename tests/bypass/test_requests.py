"""An image that is blocked when it is sent plainly, sent in every other way a request allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request, set_parameter
from tests.bypass.subject import ATTACK, has_seen
from tests.images import CLEAN, benign, request
from tests.proxy.running import Running, ask

pytestmark = pytest.mark.triton

Change = Callable[[pb.ModelInferRequest], Any]
BUSY = grpc.StatusCode.UNAVAILABLE
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def plain() -> pb.ModelInferRequest:
    return request("digits_like", ATTACK)


def typed(message: pb.ModelInferRequest) -> None:
    message.CopyFrom(request("digits_like", ATTACK, typed=True))


def parameters(**values: Any) -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        for key, value in values.items():
            set_parameter(message.parameters, key, value)

    return change


def outputs(*names: str, **values: Any) -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        for name in names:
            output = message.outputs.add(name=name)
            for key, value in values.items():
                set_parameter(output.parameters, key, value)

    return change


def version(text: str) -> Change:
    return lambda message: setattr(message, "model_version", text)


def input_parameter(**values: Any) -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        for key, value in values.items():
            set_parameter(message.inputs[0].parameters, key, value)

    return change


SAME_MEANING: dict[str, Change] = {
    "plain": lambda message: None,
    "typed": typed,
    "version 1": version("1"),
    "version 01": version("01"),
    "no id": lambda message: message.ClearField("id"),
    "long id": lambda message: setattr(message, "id", "x" * 100_000),
    "output by name": outputs("logits"),
    "classification": outputs("logits", classification=1),
    "classification of more than there are": outputs("logits", classification=1000),
    "the output twice": outputs("logits", "logits"),
    "priority and timeout": parameters(priority=1, timeout=1_000_000),
    "parameters of one's own": parameters(inspected=True, score=0.0, verdict="pass"),
    "the empty final answer": parameters(triton_enable_empty_final_response=True),
    "a sequence, says the client": parameters(sequence_id=7, sequence_start=True),
    "a sequence by name": parameters(sequence_id="seven", sequence_end=True),
    "HTTP's parameters": parameters(binary_data_output=True, headers="none"),
    "HTTP's of the input": input_parameter(binary_data_size=0),
}


@pytest.mark.parametrize("name", SAME_MEANING)
async def test_however_the_request_is_worded(name: str, guarded: Running) -> None:
    message = plain()
    SAME_MEANING[name](message)
    reply = await ask(guarded.channel, "ModelInfer", message)
    assert reply.code in (BUSY, INVALID)
    if name in ("plain", "typed", "output by name", "classification", "no id"):
        assert reply.code is BUSY


def declared(shape: tuple[int, ...], datatype: str = "FP32") -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        message.inputs[0].shape[:] = shape
        message.inputs[0].datatype = datatype

    return change


def scaled(by: float, plus: float = 0) -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        message.raw_input_contents[0] = (ATTACK * by + plus).astype(np.float32).tobytes()

    return change


def extra(name: str) -> Change:
    """One more input that nobody knows: first, so that what is first is not the image."""

    def change(message: pb.ModelInferRequest) -> None:
        image = {name: CLEAN[:1], "image": ATTACK}
        message.CopyFrom(infer_request(image, model="digits_like"))

    return change


def values(*special: float) -> Change:
    def change(message: pb.ModelInferRequest) -> None:
        x = ATTACK.copy()
        x[0, 0, 0, : len(special)] = special
        message.raw_input_contents[0] = x.tobytes()

    return change


OTHER_MEANING: dict[str, Change] = {
    "NHWC": declared((1, 32, 32, 3)),
    "no batch axis": declared((3, 32, 32)),
    "one more axis": declared((1, 1, 3, 32, 32)),
    "grey, three of them": declared((3, 1, 32, 32)),
    "turned": declared((1, 3, 16, 64)),
    "flat": declared((1, 3072)),
    "bytes": declared((4, 3, 32, 32), "UINT8"),
    "halves": declared((2, 3, 32, 32), "FP16"),
    "integers": declared((1, 3, 32, 32), "INT32"),
    "a batch of none with an image": declared((0, 3, 32, 32)),
    "255 times as bright": scaled(255),
    "around 0": scaled(1, -0.5),
    "NaN": values(float("nan")),
    "infinity": values(float("inf"), float("-inf")),
    "out of range": values(5.0, -3.0),
    "far out of range": values(3e38),
    "an input nobody knows": extra("hidden"),
    "the name with a blank": extra("image "),
    "the name twice": lambda message: message.CopyFrom(_twice()),
}


def _twice() -> pb.ModelInferRequest:
    message = request("digits_like", CLEAN[:1])
    message.MergeFrom(request("digits_like", ATTACK))
    return message


@pytest.mark.parametrize("name", OTHER_MEANING)
async def test_what_is_not_the_models_input_is_refused(name: str, guarded: Running) -> None:
    message = plain()
    OTHER_MEANING[name](message)
    reply = await ask(guarded.channel, "ModelInfer", message)
    assert reply.code in (BUSY, INVALID)


@pytest.mark.parametrize("place", [0, 31, 63])
async def test_one_among_many_is_enough(place: int, guarded: Running) -> None:
    x = benign(64, seed=5)
    x[place] = ATTACK[0]
    reply = await ask(guarded.channel, "ModelInfer", request("digits_like", x))
    assert reply.code is BUSY


async def test_more_than_a_batch_is_refused(guarded: Running) -> None:
    x = np.concatenate([benign(64, seed=5), ATTACK])
    assert (await ask(guarded.channel, "ModelInfer", request("digits_like", x))).code is INVALID


@pytest.mark.parametrize("model", ["digits_like_nhwc_uint8", "digits_like_fp16", "encoded"])
async def test_in_the_datatypes_of_other_models(model: str, guarded: Running) -> None:
    assert (await ask(guarded.channel, "ModelInfer", request(model, ATTACK))).code is BUSY


NAMES = (
    *(
        "Digits_like",
        "DIGITS_LIKE",
        "digits_like ",
        " digits_like",
        "digits_like/1",
        "./digits_like",
    ),
    *("digits_like/", "/digits_like", "digits_like/.", "digits_like\0", "digits_like\n", ""),
    *("d\u0456gits_like", "digits_lik\u0435", "digits\u005flike\u200b", "repo::digits_like"),
    *("%64igits_like", "digits_like:1", "digits_like@1", "identity_fp32/../digits_like"),
)


@pytest.mark.parametrize("name", NAMES)
async def test_other_names_for_a_model_are_not_found(name: str, guarded: Running) -> None:
    message = plain()
    message.model_name = name
    reply = await ask(guarded.channel, "ModelInfer", message)
    assert reply.code in (INVALID, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    "text", ["2", "-1", "1 ", "+1", "0x1", "1.0", "latest", "\u0661", "9" * 19]
)
async def test_other_versions_are_not_found(text: str, guarded: Running) -> None:
    message = plain()
    message.model_version = text
    reply = await ask(guarded.channel, "ModelInfer", message)
    assert reply.code is not grpc.StatusCode.OK
    assert not has_seen(reply.data)


async def test_the_harness_would_notice(guarded: Running, direct: grpc.aio.Channel) -> None:
    """What Triton itself says of the attack is what `has_seen` looks for."""
    assert has_seen((await ask(direct, "ModelInfer", plain())).data)
    clean = await ask(guarded.channel, "ModelInfer", request("digits_like", CLEAN[:1]))
    assert clean.code is grpc.StatusCode.OK
    assert not has_seen(clean.data)
