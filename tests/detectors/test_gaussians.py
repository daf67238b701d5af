from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detectors import DetectorError
from detectors.gaussians import GroupGaussians


def normal(count: int, size: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, size, generator=generator)


def test_distance_is_about_minus_log_of_the_tail_share() -> None:
    model = GroupGaussians.fit([normal(4000, 3, 1)])
    fresh = model.distance(normal(20_000, 3, 2))
    for share in (0.1, 0.03, 0.01):
        over = (fresh > -math.log(share)).float().mean().item()
        assert over == pytest.approx(share, rel=0.35)


def test_the_nearest_group_explains_a_sample() -> None:
    groups = [normal(500, 4, 1), normal(500, 4, 2, shift=50.0)]
    model = GroupGaussians.fit(groups)
    alone = GroupGaussians.fit(groups[:1])
    far = normal(50, 4, 3, shift=50.0)
    assert bool((model.distance(far) < 10).all())
    assert bool((alone.distance(far) > 50).all())


def test_groups_of_different_width_share_a_scale() -> None:
    groups = [normal(2000, 2, 1), normal(2000, 2, 2, shift=100.0, scale=9.0)]
    model = GroupGaussians.fit(groups)
    for seed, (shift, scale) in enumerate(((0.0, 1.0), (100.0, 9.0))):
        fresh = model.distance(normal(5000, 2, 10 + seed, shift, scale))
        assert (fresh > math.log(20)).float().mean().item() == pytest.approx(0.05, abs=0.02)


def test_distance_follows_correlation() -> None:
    base = normal(3000, 1, 5)
    features = torch.cat((base, base + 0.1 * normal(3000, 1, 6)), dim=1)
    model = GroupGaussians.fit([features])
    along, across = model.distance(torch.tensor([[1.5, 1.5], [1.5, -1.5]]))
    assert across > 5 * along.abs()


@pytest.mark.parametrize("count", [5, 19])
def test_too_few_samples(count: int) -> None:
    with pytest.raises(DetectorError, match=f"{count} samples; 20 are needed"):
        GroupGaussians.fit([normal(count, 3, 1)])


def test_what_is_not_finite_is_refused() -> None:
    features = normal(50, 3, 1)
    features[7, 1] = math.inf
    with pytest.raises(DetectorError, match="not finite"):
        GroupGaussians.fit([features])
