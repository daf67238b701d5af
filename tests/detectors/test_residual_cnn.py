from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors import DetectorError, Evidence, build
from detectors.residual_cnn import ResidualCnn, ResidualNetwork, ResidualRecipe
from purifiers.learned import Lesson


def smooth_images(count: int, generator: torch.Generator) -> Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, size=(24, 24), mode="bicubic").clamp(0, 1)


def lesson(count: int, generator: torch.Generator) -> Lesson:
    """Sign changes of 3/255 that agree over 2x2 pixels, against Gaussian noise of that strength."""
    x = smooth_images(count, generator)
    signs = torch.randn(count, 3, 12, 12, generator=generator).sign()
    change = 3 / 255 * F.interpolate(signs, scale_factor=2)
    noise = 3 / 255 * torch.randn(x.shape, generator=generator)
    return Lesson(x, varied=x + noise, attacked=x + change)


def test_it_learns_what_energy_does_not_tell() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    recipe, detector = ResidualRecipe(), ResidualCnn()
    network = recipe.build((3, 24, 24), 0)
    optimiser = torch.optim.Adam(network.parameters(), 4e-3)
    for _ in range(40):
        optimiser.zero_grad()
        recipe.loss(network, lesson(16, generator), generator).backward()
        optimiser.step()
    detector.use(network.eval())
    fresh = lesson(64, generator)
    assert fresh.attacked is not None
    hostile = detector.score(Evidence(fresh.attacked))
    benign = detector.score(Evidence(fresh.varied))
    assert (hostile[:, None] > benign).float().mean() > 0.9


def test_residuals_by_hand() -> None:
    # One bright pixel: the kernel's middle, -4/4 of its height, and the logarithm of that.
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 0.5
    residual = ResidualNetwork(1)._residuals(x)[0, 0]
    assert residual[2, 2].item() == pytest.approx(-torch.tensor(1 + 30.0).log().item())
    assert residual[2, 1].item() == pytest.approx(torch.tensor(1 + 15.0).log().item())
    assert residual[0, 0].item() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 7, 9), (3, 224, 224), (3, 1, 1)])
def test_any_size(shape: tuple[int, int, int]) -> None:
    network = ResidualRecipe().build(shape, 0).eval()
    logits = network(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2,)
    assert bool(torch.isfinite(logits).all())


def test_without_weights_it_says_how_to_get_them() -> None:
    detector = build("residual_cnn")
    with pytest.raises(DetectorError, match="breakwater fit"):
        detector.score(Evidence(torch.zeros(1, 3, 8, 8)))


def test_it_is_not_trained_without_attacks() -> None:
    x = torch.zeros(2, 3, 8, 8)
    recipe = ResidualRecipe()
    with pytest.raises(DetectorError, match="attacked images"):
        recipe.loss(recipe.build((3, 8, 8), 0), Lesson(x, varied=x), torch.Generator())
