"""Evidence on samples, as it is gathered for a calibration through the real Triton."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from rich.progress import Progress

from detectors import build
from detectors.base import peer_key
from proxy.adapt import resolve
from proxy.config import Model
from proxy.defences import describe
from proxy.errors import UpstreamError
from proxy.upstream import Upstream
from tests.images import benign
from tests.learning import DigitsLike
from tuning.triton import EmbeddedTriton
from tuning.witness import Witness

pytestmark = pytest.mark.triton

X = {"clean": torch.from_numpy(benign(5, seed=3)), "other": torch.from_numpy(benign(70, seed=4))}


@pytest.fixture
async def upstream(triton: EmbeddedTriton) -> AsyncIterator[Upstream]:
    connection = Upstream(triton.grpc_address, max_message_bytes=1 << 26)
    yield connection
    await connection.close()


async def witness(
    upstream: Upstream, progress: Progress, parts: list[tuple[str, dict[str, Any]]]
) -> Witness:
    spec = resolve("digits_like", Model(), *await describe(upstream, "digits_like"))
    built = [build(name, params) for name, params in parts]
    return Witness(upstream, spec, built, progress, torch.Generator().manual_seed(0))


async def test_each_group_has_the_evidence_the_detectors_need(upstream: Upstream) -> None:
    progress = Progress(disable=True)
    parts: list[tuple[str, dict[str, Any]]] = [
        ("margin", {}),
        ("jpeg_view", {}),
        ("ensemble", {"models": ["digits_like_again"]}),
    ]
    found = await (await witness(upstream, progress, parts)).evidence(X, "asking")
    model = DigitsLike().requires_grad_(False)
    (view,) = build("jpeg_view").views
    assert set(found) == set(X)
    for group, samples in X.items():
        evidence = found[group]
        assert torch.equal(evidence.x, samples)
        assert evidence.output is not None
        torch.testing.assert_close(evidence.output, model(samples), rtol=1e-3, atol=1e-3)
        assert set(evidence.views) == {view.key, peer_key("digits_like_again")}
        asked = model(view.purify(samples))
        torch.testing.assert_close(evidence.views[view.key], asked, rtol=1e-3, atol=1e-3)
        peer = evidence.views[peer_key("digits_like_again")]
        assert peer.shape == evidence.output.shape
        assert not torch.allclose(peer, evidence.output, atol=0.1)
    (task,) = progress.tasks
    assert task.completed == task.total == 3 * 75


async def test_the_model_is_not_asked_for_what_nobody_looks_at(upstream: Upstream) -> None:
    progress = Progress(disable=True)
    found = await (await witness(upstream, progress, [("residual", {})])).evidence(X, "asking")
    assert found["clean"].output is None
    assert progress.tasks == []


async def test_another_model_that_does_not_exist(upstream: Upstream) -> None:
    parts: list[tuple[str, dict[str, Any]]] = [("ensemble", {"models": ["absent"]})]
    subject = await witness(upstream, Progress(disable=True), parts)
    with pytest.raises(UpstreamError, match="absent"):
        await subject.evidence(X, "asking")
