from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers import PurifierError, ResizePad


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded(9))


def every_choice(x: Tensor, smallest: int) -> list[Tensor]:
    """All that resizing by `F.interpolate` and padding with the edge can make of one image."""
    height, width = x.shape[-2:]
    made = []
    for rows in range(smallest, height + 1):
        columns = round(width * rows / height)
        small = F.interpolate(x[None], size=(rows, columns), mode="bilinear", align_corners=False)
        for top in range(height - rows + 1):
            for left in range(width - columns + 1):
                pad = (left, width - columns - left, top, height - rows - top)
                made.append(F.pad(small, pad, mode="replicate")[0])
    return made


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 12, 20), (1, 1, 1)])
def test_each_sample_is_one_of_the_choices_and_all_are_drawn(shape: tuple[int, int, int]) -> None:
    x = images(*shape)
    choices = every_choice(x, smallest=-(-shape[1] * 7 // 8))
    made = ResizePad(least=0.875).purify(x.expand(400, *shape), seeded())
    errors = torch.stack([(made - choice).abs().amax((1, 2, 3)) for choice in choices], dim=1)
    assert errors.amin(1).max() < 1e-5
    assert set(errors.argmin(1).tolist()) == set(range(len(choices)))


def test_sizes_are_drawn_evenly() -> None:
    # A vertical ramp: the step between rows, inside the image, tells its size.
    x = (torch.arange(32.0) / 31).view(1, 1, 32, 1).expand(3000, 1, 32, 32)
    steps = ResizePad(least=0.75).purify(x, seeded()).diff(dim=2).amax((1, 2, 3)) * 31
    kept = (32 / steps).round().long()
    counts = torch.bincount(kept)[24:]
    assert counts.shape == (9,)
    assert counts.min() > 3000 / 9 * 0.75


def test_least_one_changes_nothing() -> None:
    x = images(2, 3, 11, 13)
    torch.testing.assert_close(ResizePad(least=1).purify(x, seeded()), x)


def test_a_flat_image_has_no_frame() -> None:
    x = torch.full((8, 3, 32, 32), 0.7)
    torch.testing.assert_close(ResizePad(least=0.5).purify(x, seeded()), x)


def test_gradients_reach_the_input() -> None:
    x = images(1, 1, 8, 8).requires_grad_()
    ResizePad().purify(x, seeded(), gradients=True).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == pytest.approx(64, rel=1e-4)  # every output pixel is a weighted mean


def test_key() -> None:
    assert ResizePad().key == "resize_pad(least=0.875)"


@pytest.mark.parametrize("least", [0, 1.1, -1, "0.9", True, float("nan")])
def test_least_out_of_range(least: object) -> None:
    with pytest.raises(PurifierError, match="least must be"):
        ResizePad(least=least)  # type: ignore[arg-type]
