from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors import DetectorError, build
from detectors.lid import LocalDimension
from detectors.surrogate_network import STAGES
from tests.told import Told, clouds, telling


def fitted(features: Tensor, k: int) -> LocalDimension:
    detector = LocalDimension(k=k)
    detector.use(Told(2))
    output = torch.zeros(len(features), 2)
    detector.fit({"clean": telling(output, output, features)})
    return detector


def scores(detector: LocalDimension, features: Tensor) -> Tensor:
    output = torch.zeros(len(features), 2)
    return detector.score(telling(output, output, features))


def brute(x: Tensor, features: Tensor, k: int) -> float:
    """The score of one sample, stage by stage."""
    logs = []
    for own, kept in zip(x.split(STAGES), features.split(STAGES, dim=1), strict=True):
        distances = sorted(np.linalg.norm(kept.double().numpy() - own.double().numpy(), axis=1))[:k]
        dimension = -1 / np.mean([np.log(d / distances[-1]) for d in distances])
        logs.append(np.log(dimension))
    return float(np.mean(logs))


@pytest.mark.parametrize("k", [2, 20, 100])
def test_score_against_brute_force(k: int) -> None:
    features, _ = clouds(classes=3, each=30, seed=1)  # 100 is more than there are
    fresh, _ = clouds(classes=3, each=3, seed=2)
    expected = [brute(x, features, k) for x in fresh]
    torch.testing.assert_close(
        scores(fitted(features, k), fresh), torch.tensor(expected), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_estimates_the_dimension_of_a_uniform_cube(dimension: int) -> None:
    generator = torch.Generator().manual_seed(dimension)
    stages = [padded(torch.rand(1000, dimension, generator=generator), size) for size in STAGES]
    detector = fitted(torch.cat(stages, dim=1), k=20)
    middle = torch.cat([padded(torch.full((1, dimension), 0.5), size) for size in STAGES], dim=1)
    estimate = math.exp(scores(detector, middle).item())
    assert estimate == pytest.approx(dimension, rel=0.35)


def padded(x: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, size - x.shape[1]))


def test_what_is_kept_is_bounded() -> None:
    features, _ = clouds(classes=3, each=700, seed=1)
    assert fitted(features, k=20).state()["features"].shape == (1000, sum(STAGES))


def test_a_benign_sample_itself_has_a_finite_score() -> None:
    features, _ = clouds(classes=2, each=20, seed=1)
    same = features[:1].expand(30, -1)
    assert bool(torch.isfinite(scores(fitted(same, k=20), same[:1])).all())


@pytest.mark.parametrize("k", [1, 101, 2.5, "3"])
def test_k_out_of_range(k: object) -> None:
    with pytest.raises(DetectorError, match="k must be 2 to 100"):
        build("lid", {"k": k})
