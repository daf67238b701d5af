from __future__ import annotations

import torch

from detectors import Evidence
from detectors.mirror_view import MirrorView


def test_a_model_that_takes_sides_is_told_from_one_that_does_not() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(300, 1, 6, 6, generator=generator)

    def model(images: torch.Tensor) -> torch.Tensor:
        """Two logits: how much brighter the upper half is, and how much the left."""
        upper = images[..., :3, :].mean((1, 2, 3)) - images[..., 3:, :].mean((1, 2, 3))
        left = images[..., :3].mean((1, 2, 3)) - images[..., 3:].mean((1, 2, 3))
        return torch.stack((20 * upper, 5 * left.clamp_min(0.2)), dim=1)

    detector = MirrorView()
    (view,) = detector.views

    def seen(images: torch.Tensor) -> Evidence:
        return Evidence(images, model(images), {view.key: model(view.purify(images))})

    detector.fit({"clean": seen(x)})
    tampered = x[:50].clone()
    tampered[..., :3] += 3.0  # what decides now lies on one side
    assert detector.score(seen(tampered)).median() > detector.score(seen(x)).quantile(0.99)
