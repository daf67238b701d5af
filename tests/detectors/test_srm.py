from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor

from detectors.base import DetectorError, Evidence
from detectors.benign import variations
from detectors.gaussians import GroupGaussians
from detectors.srm import Srm
from tests.images import benign


def reference(image: NDArray[np.float64]) -> list[float]:
    """The features of one image (3, H, W), residual by residual."""
    red, green, blue = image
    luma = (red + green + blue) / 3**0.5
    differences = [(red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5]
    energies, occurrences = [], []
    for planes in ([luma], differences):
        for kernel, across in kernels():
            energy, product = [], []
            for plane in planes:
                # Cut as if every kernel were 4x4, so that all residuals have one size.
                r = signal.correlate2d(plane, kernel, mode="valid")
                r = r[: plane.shape[0] - 3, : plane.shape[1] - 3].clip(-4 / 255, 4 / 255)
                after, before = (r[1:], r[:-1]) if across == 0 else (r[:, 1:], r[:, :-1])
                energy.append(np.mean(r**2))
                product.append(np.mean(after * before))
            energies.append(np.log(np.mean(energy) + (1 / 255) ** 2))
            occurrences.append(np.log(max(np.mean(product), 0) + (1 / 255) ** 2))
    return energies + occurrences


def kernels() -> list[tuple[NDArray[np.float64], int]]:
    lines = [np.array(taps, float) for taps in ([1, -1], [1, -2, 1], [1, -3, 3, -1])]
    lines = [line / np.linalg.norm(line) for line in lines]
    square = np.outer(lines[1], lines[1])
    rows = [(line[None], 0) for line in lines]
    return [*rows, (square, 0), *((line[:, None], 1) for line in lines)]


def features(x: Tensor) -> Tensor:
    return torch.tensor([reference(image) for image in x.double().numpy()]).float()


def pictures(count: int, seed: int) -> Tensor:
    return torch.from_numpy(benign(count, seed))


def fitted() -> tuple[Srm, float]:
    """A detector, and its threshold at 2 % of the worst group."""
    generator = torch.Generator().manual_seed(1)
    groups = variations(pictures(150, 1), generator)
    detector = Srm()
    detector.fit({group: Evidence(x) for group, x in groups.items()})
    held = variations(pictures(150, 2), generator)
    return detector, max(detector.score(Evidence(x)).quantile(0.98).item() for x in held.values())


def test_equals_the_features_by_hand_and_gaussians_above_the_medians() -> None:
    x = pictures(140, 3)
    groups = {"clean": x[:70], "dim": 0.5 * x[70:]}
    detector = Srm()
    detector.fit({group: Evidence(part) for group, part in groups.items()})
    by_hand = [features(part) for part in groups.values()]
    medians = torch.cat(by_hand).sort(dim=0).values[(140 - 1) // 2]
    model = GroupGaussians.fit([torch.maximum(part, medians) for part in by_hand])
    fresh = pictures(6, 4) + 0.02 * torch.randn(6, 3, 32, 32)
    expected = model.distance(torch.maximum(features(fresh), medians))
    torch.testing.assert_close(detector.score(Evidence(fresh)), expected, rtol=1e-2, atol=1e-2)


def test_sees_stripes() -> None:
    detector, threshold = fitted()
    signs = torch.randn(60, 3, 1, 32, generator=torch.Generator().manual_seed(5)).sign()
    attacked = (pictures(60, 6) + signs * 8 / 255).clamp(0, 1)
    assert (detector.score(Evidence(attacked)) > threshold).float().mean() > 0.9


@pytest.mark.parametrize("pipeline", ["enlarged", "reduced", "blurred", "flat"])
def test_smoother_pipelines_never_seen_stay_quiet(pipeline: str) -> None:
    detector, threshold = fitted()
    x = pictures(100, 7)
    larger = F.interpolate(x, size=(64, 64), mode="bicubic")
    changed = {
        "enlarged": lambda: F.interpolate(x[:, :, 8:24, 8:24], size=(32, 32), mode="bicubic"),
        "reduced": lambda: F.interpolate(larger, size=(32, 32), mode="bicubic", antialias=True),
        "blurred": lambda: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "flat": lambda: torch.full_like(x, 0.5),
    }[pipeline]()
    scores = detector.score(Evidence((changed.clamp(0, 1) * 255).round() / 255))
    assert (scores > threshold).float().mean() <= 0.02


def test_fitting_says_what_it_needs() -> None:
    with pytest.raises(DetectorError, match="at least one benign group"):
        Srm().fit({})
    with pytest.raises(DetectorError, match="20 samples; 56 are needed"):
        Srm().fit({"clean": Evidence(pictures(20, 8))})


def test_loading_refuses_a_state_without_medians() -> None:
    with pytest.raises(DetectorError, match="no medians"):
        Srm().load_state({"means": torch.zeros(1)}, torch.device("cpu"))


@pytest.mark.data
def test_holds_its_rate_on_photographs(data_dir: Path) -> None:
    from loadtests.cifar import load_images

    x, _ = load_images(data_dir, "test", 1500)
    generator = torch.Generator().manual_seed(1)
    fit, calibrate, fresh = (variations(part, generator) for part in x.split((300, 600, 600)))
    detector = Srm()
    detector.fit({group: Evidence(images) for group, images in fit.items()})
    thresholds = [detector.score(Evidence(images)).quantile(0.95) for images in calibrate.values()]
    for group, images in fresh.items():
        flagged = (detector.score(Evidence(images)) > max(thresholds)).float().mean()
        assert flagged <= 0.1, group  # 0.05 and four standard errors of 600 against 600
