"""Other names and forms of a defended model, and requests that its defence has no time for."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from proxy.errors import Blocked
from proxy.pb import open_inference_pb2 as pb
from tests.bypass.conftest import BLOCKING
from tests.bypass.subject import ATTACK, has_seen
from tests.conftest import CHECKOUT
from tests.defended import Opener, settings_of
from tests.images import CLEAN, benign, request
from tests.proxy.running import Running, ask, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

BUSY, OK = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK
BAD = request("digits_like", ATTACK)
TENSORS = """
input [{ name: "image" data_type: TYPE_FP32 dims: [3, 32, 32] }]
output [{ name: "logits" data_type: TYPE_FP32 dims: [10] }]
"""
WRAPPER = f"""
name: "wrapper"
platform: "ensemble"
max_batch_size: 64
{TENSORS}
ensemble_scheduling {{
  step [{{
    model_name: "digits_like" model_version: -1
    input_map {{ key: "image" value: "image" }}
    output_map {{ key: "logits" value: "logits" }}
  }}]
}}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton whose models clients may load: digits_like, and an ensemble around it."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(CHECKOUT / "tests/models/digits_like", folder / "digits_like")
    (folder / "wrapper" / "1").mkdir(parents=True)
    (folder / "wrapper" / "config.pbtxt").write_text(WRAPPER)
    options = ("--model-control-mode=explicit", "--load-model=digits_like", "--load-model=wrapper")
    with EmbeddedTriton(folder, extra_args=options) as triton:
        yield triton


def before(
    triton: EmbeddedTriton,
    calibrations: Path,
    folder: Path,
    *,
    unlisted: str = "pass",
    **fields: Any,
) -> AbstractAsyncContextManager[Running]:
    """A sidecar that defends digits_like, and lets clients load models."""
    return running(
        triton.grpc_address,
        models=settings_of(calibrations, {"digits_like": {**BLOCKING, **fields}}),
        unlisted_models=unlisted,
        rpc={"allow": ["model-repository"]},
        audit={"path": folder / "audit.jsonl"},
    )


async def load(sidecar: Running, model: str, **config: Any) -> grpc.StatusCode:
    message = pb.RepositoryModelLoadRequest(model_name=model)
    if config:
        message.parameters["config"].string_param = json.dumps(config)
    return (await ask(sidecar.channel, "RepositoryModelLoad", message)).code


def named(model: str) -> pb.ModelInferRequest:
    message = request("digits_like", ATTACK)
    message.model_name = model
    return message


@pytest.mark.parametrize("unlisted", ["pass", "refuse"])
async def test_a_model_around_a_defended_one_is_another_model(
    unlisted: str, repository: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    """Documented: list it as well, or refuse what is not listed."""
    async with before(repository, calibrations, tmp_path, unlisted=unlisted) as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", named("wrapper"))
        assert reply.code is (OK if unlisted == "pass" else grpc.StatusCode.PERMISSION_DENIED)
        assert has_seen(reply.data) is (unlisted == "pass")
        assert (await ask(sidecar.channel, "ModelInfer", BAD)).code is BUSY


OVERRIDES: dict[str, dict[str, Any]] = {
    "the format": {"input": [{"format": "FORMAT_NCHW"}]},
    "a smaller batch": {"max_batch_size": 1},
    "no batch": {"max_batch_size": 0, "dims": [-1, 3, 32, 32]},
    "another name": {"input": [{"name": "picture"}]},
    "another order": {"dims": [32, 32, 3]},
    "any shape": {"dims": [-1, -1, -1]},
    "a grey one": {"dims": [1, 32, 96]},
    "an optional input": {"input": [{"optional": True}]},
}


def overridden(fields: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"name": "digits_like", "backend": "python", "max_batch_size": 64}
    image = {"name": "image", "data_type": "TYPE_FP32", "dims": fields.get("dims", [3, 32, 32])}
    image |= fields.get("input", [{}])[0]
    logits = {"name": "logits", "data_type": "TYPE_FP32", "dims": [10]}
    if fields.get("max_batch_size", 1) == 0:
        logits["dims"] = [-1, 10]
    config |= {"input": [image], "output": [logits]}
    return config | {k: v for k, v in fields.items() if k == "max_batch_size"}


@pytest.mark.parametrize("name", OVERRIDES)
async def test_a_model_loaded_with_another_configuration(
    name: str, repository: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    """By a sidecar that does not know of it yet, and by one that has asked Triton since."""
    async with before(repository, calibrations, tmp_path) as unaware:
        try:
            await load(unaware, "digits_like", **overridden(OVERRIDES[name]))
            async with before(repository, calibrations, tmp_path) as aware:
                for sidecar in (unaware, aware):
                    await try_shapes(sidecar)
        finally:
            assert await load(unaware, "digits_like") is OK


async def try_shapes(sidecar: Running) -> None:
    for shape in ([1, 3, 32, 32], [3, 32, 32], [1, 32, 32, 3], [1, 1, 32, 96]):
        for tensor in ("image", "picture"):
            message = named("digits_like")
            message.inputs[0].name = tensor
            message.inputs[0].shape[:] = shape
            reply = await ask(sidecar.channel, "ModelInfer", message)
            assert not has_seen(reply.data)


async def test_a_model_unloaded_and_loaded_while_it_is_asked(
    repository: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    over = asyncio.Event()
    async with before(repository, calibrations, tmp_path) as sidecar:

        async def reload() -> None:
            while not over.is_set():
                await load(sidecar, "digits_like")

        async with asyncio.TaskGroup() as group:
            group.create_task(reload())
            for _ in range(20):
                assert not has_seen((await ask(sidecar.channel, "ModelInfer", BAD)).data)
            over.set()
        assert (await ask(sidecar.channel, "ModelInfer", BAD)).code is BUSY


@pytest.mark.parametrize("sequence", [{"sequence_id": 7}, {"sequence_id": "a"}])
async def test_the_clients_word_makes_nothing_a_sequence(
    sequence: dict[str, Any], opened: Opener
) -> None:
    """Of an ensemble, and of a model whose configuration is hidden, nobody else says so."""
    async with opened({"digits_like": BLOCKING}) as d:
        defence = d.defences.find("digits_like")
        assert defence.spec is not None
        defence.spec = replace(defence.spec, may_be_stateful=True)
        message = request("digits_like", ATTACK, parameters={**sequence, "sequence_start": True})
        with pytest.raises(Blocked):
            await d.infer(message)
        assert not d.upstream.sent["client"]


# -- no time for a verdict -----------------------------------------------------------------------


@pytest.fixture
async def hurried(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Running]:
    async with before(
        triton, calibrations, tmp_path, budget_ms=0.001, on_failure=request.param
    ) as sidecar:
        yield sidecar


@pytest.mark.parametrize("hurried", ["open"], indirect=True)
async def test_what_passes_for_want_of_time_is_counted(hurried: Running) -> None:
    """Documented: with `on_failure: open` who makes the defence slow gets through, and is seen."""
    for _ in range(5):
        assert has_seen((await ask(hurried.channel, "ModelInfer", BAD)).data)
    assert await hurried.metric("fail_open_total", model="digits_like") == 5


@pytest.mark.parametrize("hurried", ["closed"], indirect=True)
async def test_nothing_passes_for_want_of_time_where_failures_close(hurried: Running) -> None:
    for x in (ATTACK, CLEAN[:1], benign(64, seed=4)):
        reply = await ask(hurried.channel, "ModelInfer", request("digits_like", x))
        assert reply.code is BUSY
    assert await hurried.metric("fail_open_total", model="digits_like") == 0
