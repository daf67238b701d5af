"""A model's answers to images, asked through the real Triton."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import torch

from proxy.adapt import ModelSpec, resolve
from proxy.config import Model
from proxy.defences import describe
from proxy.errors import ConfigError, UpstreamError
from proxy.upstream import Upstream
from tests.images import benign
from tuning.model_client import ModelClient, as_seen
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

X = torch.from_numpy(benign(70, seed=8))
FILES = {"inputs": [{"encoded": True, "size": (32, 32)}]}
WEIGHTS = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4"))


@pytest.fixture
async def upstream(triton: EmbeddedTriton) -> AsyncIterator[Upstream]:
    connection = Upstream(triton.grpc_address, max_message_bytes=1 << 26)
    yield connection
    await connection.close()


async def spec_of(upstream: Upstream, name: str, **fields: Any) -> ModelSpec:
    return resolve(name, Model.model_validate(fields), *await describe(upstream, name))


@pytest.mark.parametrize("name", ["digits_like", "digits_like_nhwc_uint8", "digits_like_fp16"])
async def test_answers_come_in_order_and_in_batches(upstream: Upstream, name: str) -> None:
    told: list[int] = []
    client = ModelClient(upstream, await spec_of(upstream, name))
    found = await client.answers(X, told.append)
    assert torch.allclose(found, (X.flatten(1) - 0.5) @ WEIGHTS, atol=2e-2)
    assert sorted(told) == [6, 64]


async def test_probabilities_come_as_logarithms(upstream: Upstream) -> None:
    name = "digits_like_probabilities"
    spec = await spec_of(upstream, name, output={"kind": "probabilities"})
    found = await ModelClient(upstream, spec).answers(X[:3], lambda n: None)
    expected = ((X[:3].flatten(1) - 0.5) @ WEIGHTS).log_softmax(1)
    assert torch.allclose(found, expected, atol=1e-2)


async def test_files_are_asked_about_as_files(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "encoded", **FILES)
    found = await ModelClient(upstream, spec).answers(X[:3], lambda n: None)
    assert found.shape == (3, 10)


async def test_a_model_for_one_image_is_asked_one_by_one(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "sequence_sum", output={"name": "sum"})
    # It wants a sequence, so only the refusal shows that single images reach it.
    with pytest.raises(UpstreamError, match="sequence"):
        await ModelClient(upstream, spec).answers(X[:2], lambda n: None)


async def test_an_output_without_class_scores_is_told(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "identity_fp32", inputs=[{"layout": "NCHW"}])
    with pytest.raises(ConfigError, match=r"models\.identity_fp32\.output: echo holds no class"):
        await ModelClient(upstream, spec).answers(X[:2], lambda n: None)


async def test_further_inputs_cannot_be_made_up(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "slow", inputs=[{"name": "delay_ms", "inspect": False}])
    with pytest.raises(ConfigError, match="slow takes delay_ms besides the image"):
        ModelClient(upstream, spec)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("digits_like", {}),
        ("digits_like_fp16", {}),
        ("digits_like_nhwc_uint8", {}),
        ("sequence_sum", {"output": {"name": "sum"}}),
        ("encoded", FILES),
    ],
)
async def test_images_as_seen_differ_by_less_than_a_level(
    upstream: Upstream, name: str, fields: dict[str, Any]
) -> None:
    spec = await spec_of(upstream, name, **fields)
    fine = (X + 0.4 / 255).clamp(0, 1)
    found = as_seen(spec, fine)
    assert found.shape == X.shape
    assert (found - fine).abs().max() < 0.5 / 255
    assert torch.equal(as_seen(spec, found), found)


async def test_files_are_seen_in_colour_at_the_models_size(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "encoded", **FILES)
    assert as_seen(spec, torch.rand(2, 1, 10, 50)).shape == (2, 3, 32, 32)


async def test_images_of_another_size_are_told(upstream: Upstream) -> None:
    spec = await spec_of(upstream, "digits_like")
    with pytest.raises(ConfigError, match=r"the images do not fit model digits_like: .*expected"):
        as_seen(spec, X[:, :, :16])
