"""The earlier queries of a calibration's samples, and a calibration that has some."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from detectors.base import Evidence
from detectors.benign_sequences import FAMILIES
from detectors.chains import FEATURES
from detectors.query_history import QueryHistory
from proxy.adapt import resolve
from proxy.config import Model
from proxy.defences import describe
from proxy.errors import ConfigError
from proxy.upstream import Upstream
from tests.images import benign
from tests.learning import DigitsLike, export
from tests.proxy.test_tensors import SPEC
from tuning import local_model
from tuning.fit import Result, Samples, calibrate
from tuning.past import Past, unchained
from tuning.triton import EmbeddedTriton

CPU = torch.device("cpu")
GROUPS = {f"sequence_{family}" for family in FAMILIES}


def halves(images: int = 9, **own: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    x = torch.from_numpy(benign(3 * images, seed=1))
    return {"clean": x[:images], **own}, {"clean": x[images:], **own}


def past(
    both: tuple[dict[str, Tensor], dict[str, Tensor]],
    spec: Any = SPEC,
    told: io.StringIO | None = None,
) -> Past:
    progress = Progress(console=Console(file=told or io.StringIO()))
    return Past(spec, both, (4, 100), seed=0, device=CPU, progress=progress)


def evidence_of(groups: dict[str, Tensor]) -> dict[str, Evidence]:
    return {group: Evidence(x) for group, x in groups.items()}


def test_frames_are_benign_samples_of_both_halves() -> None:
    first, rest = halves()
    past((first, rest))
    assert set(first) == set(rest) == {"clean", *GROUPS}
    assert {len(first[group]) for group in GROUPS} == {4}
    assert {len(rest[group]) for group in GROUPS} == {18}


def test_the_names_of_these_groups_are_taken() -> None:
    both = halves(sequence_edits=torch.zeros(3, 3, 8, 8))
    with pytest.raises(ConfigError, match="--group sequence_edits: the name is that of a built-in"):
        past(both)


def test_images_that_have_no_sequences() -> None:
    small = {"clean": torch.zeros(9, 3, 7, 7)}
    with pytest.raises(ConfigError, match="history: no sequences to calibrate with: "):
        past((dict(small), dict(small)))


def test_the_evidence_is_of_all_frames_and_of_the_samples() -> None:
    first, rest = halves()
    subject = past((first, rest))
    learned, held = subject.evidence(evidence_of(rest), lambda x: torch.full((len(x),), 2.0))
    assert set(learned) == GROUPS
    for evidence in learned.values():
        assert evidence.chain is not None
        assert len(evidence.chain) == len(evidence.x) >= 4 * 6
        assert evidence.chain.amax(0)[FEATURES.index("strangest")] == 2.0
    assert set(held) == {"clean", *GROUPS}
    for group, evidence in held.items():
        assert torch.equal(evidence.x, rest[group])
        assert evidence.chain is not None
        assert evidence.chain.shape == (18, len(FEATURES))
        # A frame that resembles none before it follows on none: cuts, crops.
        following = evidence.chain.any(1).float().mean()
        assert following == 0 if group == "clean" else following > 0.7


def test_the_same_seed_gives_the_same_evidence() -> None:
    found = []
    for _ in range(2):
        first, rest = halves(4)
        learned, held = past((first, rest)).evidence(evidence_of(rest), None)
        found.append([e.chain for e in (*learned.values(), *held.values())])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_frames_are_seen_as_the_proxy_will_read_them() -> None:
    shapes = []

    def anomaly(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape[1:]))
        assert torch.equal((x * 255).round(), x * 255)
        return torch.zeros(len(x))

    first, rest = halves(4)
    spec = replace(SPEC, datatype="UINT8", low=(0.0,), high=(255.0,))
    past((first, rest), spec).evidence(evidence_of(rest), anomaly)
    assert set(shapes) == {(3, 32, 32)}


def test_it_is_told_when_nothing_looks_at_single_inputs() -> None:
    first, rest = halves(4)
    told = io.StringIO()
    learned, _ = past((first, rest), told=told).evidence(evidence_of(rest), None)
    assert "add srm and high_frequency" in " ".join(told.getvalue().split())
    for evidence in learned.values():
        assert evidence.chain is not None
        assert not evidence.chain[:, FEATURES.index("anomaly")].any()


def test_where_no_past_is_known_there_was_none() -> None:
    known = Evidence(torch.zeros(2, 3, 8, 8), chain=torch.ones(2, len(FEATURES)))
    groups = unchained({"known": known, "unknown": Evidence(torch.zeros(5, 3, 8, 8))})
    assert groups["known"] is known
    assert torch.equal(groups["unknown"].chain, torch.zeros(5, len(FEATURES)))  # type: ignore[arg-type]


# -- with the real Triton --------------------------------------------------------------------------


@pytest.fixture
async def upstream(triton: EmbeddedTriton) -> AsyncIterator[Upstream]:
    connection = Upstream(triton.grpc_address, max_message_bytes=1 << 26)
    yield connection
    await connection.close()


async def calibrated(upstream: Upstream, *names: str, samples: Samples) -> Result:
    detectors = [{"name": name} for name in names]
    model = Model.model_validate({"detectors": detectors, "calibration": "unused", "fpr": 0.05})
    spec = resolve("digits_like", model, *await describe(upstream, "digits_like"))
    progress = Progress(disable=True)
    return await calibrate(upstream, spec, model, samples, seed=0, progress=progress, networks={})


X = torch.from_numpy(benign(100, seed=2))


@pytest.mark.triton
async def test_a_calibration_with_history_has_its_level_and_its_groups(
    upstream: Upstream,
) -> None:
    found = await calibrated(
        upstream, "high_frequency", "energy", "history", samples=Samples(X, {"mine": X[:90]})
    )
    assert found.levels == {
        "input": ("high_frequency",),
        "history": ("high_frequency", "history"),
        "output": ("high_frequency", "energy", "history"),
    }
    assert set(found.calibration.groups) >= {"clean", "mine", *GROUPS}
    (history,) = (d for d in found.detectors if isinstance(d, QueryHistory))
    assert history.alarm_level(0.05) >= 0
    for names in found.levels.values():
        threshold = found.calibration.rule([names], 0.05).threshold
        assert 0 < threshold.value < 50
    scores = found.calibration.fitting(["history"])
    assert not scores["clean"].any()
    assert all(scores[group].mean() < 0.1 for group in GROUPS)


@pytest.mark.triton
async def test_history_alone_can_be_calibrated(upstream: Upstream) -> None:
    found = await calibrated(upstream, "history", samples=Samples(X))
    assert found.levels == {"history": ("history",)}
    rule = found.calibration.rule([["history"]], 0.05)
    fused = rule.score({"history": torch.tensor([0.0, 3.0])})
    assert (fused > rule.threshold.value).tolist() == [False, True]


@pytest.mark.triton
async def test_without_history_nothing_has_a_past(upstream: Upstream) -> None:
    found = await calibrated(upstream, "high_frequency", samples=Samples(X))
    assert not set(found.calibration.groups) & GROUPS


@pytest.mark.triton
async def test_a_learned_score_gives_chains_no_weight(upstream: Upstream, tmp_path: Any) -> None:
    spec = resolve("digits_like", Model(), *await describe(upstream, "digits_like"))
    copy = local_model.load(export(DigitsLike(), tmp_path / "copy.pt"), spec, CPU)
    found = await calibrated(
        upstream, "high_frequency", "energy", "history", samples=Samples(X, copy=copy)
    )
    weights = {each.names: each.weights.view(2, -1) for each in found.calibration.learners}
    assert set(weights) == {("high_frequency", "history"), ("high_frequency", "energy", "history")}
    for names, each in weights.items():
        assert not each[:, names.index("history")].any()
        assert each[:, names.index("high_frequency")].any()
