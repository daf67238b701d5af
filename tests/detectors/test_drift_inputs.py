"""Input statistics worked out by hand."""

from __future__ import annotations

import pytest
import torch

from detectors.drift_inputs import IMAGE_NAMES, VECTOR_NAMES, WAVEFORM_NAMES, input_statistics


def test_a_flat_grey_image_and_a_black_and_white_board() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    x = torch.stack((torch.full((3, 8, 8), 0.25), board.float().expand(3, 8, 8)))
    found = {name: value.tolist() for name, value in input_statistics(x).items()}
    assert tuple(found) == IMAGE_NAMES
    assert found["brightness"] == pytest.approx([0.25, 0.5])
    assert found["contrast"] == pytest.approx([0.0, 0.5], abs=1e-6)
    assert found["saturation"] == pytest.approx([0.0, 0.0])
    assert found["fine_detail"][0] == pytest.approx(0.0, abs=1e-3)
    assert found["fine_detail"][1] > 0.7  # a 3x3 mean takes away 8 / 9 inside, less at the edges
    assert found["clipped"] == [0.0, 1.0]


def test_saturation_is_the_spread_of_the_channels() -> None:
    x = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert input_statistics(x)["saturation"].item() == pytest.approx(0.7)


def test_a_square_wave_and_silence() -> None:
    wave = torch.tensor([1.0, -1.0] * 4).view(1, 1, 8)
    found = input_statistics(torch.cat((wave, torch.zeros(1, 1, 8))))
    assert tuple(found) == WAVEFORM_NAMES
    assert found["level"].tolist() == [1.0, 0.0]
    assert found["peak"].tolist() == [1.0, 0.0]
    assert found["crossings"].tolist() == [1.0, 0.0]
    assert found["clipped"].tolist() == [1.0, 0.0]


def test_a_vector() -> None:
    found = input_statistics(torch.tensor([[0.0, 0.0, 3.0, -5.0]]))
    assert tuple(found) == VECTOR_NAMES
    assert found["mean"].item() == pytest.approx(-0.5)
    assert found["spread"].item() == pytest.approx(8.25**0.5)
    assert found["largest"].item() == 5.0
    assert found["zeros"].item() == 0.5


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 16), (0, 5)])
def test_an_empty_batch_has_empty_statistics(shape: tuple[int, ...]) -> None:
    assert all(each.shape == (0,) for each in input_statistics(torch.zeros(shape)).values())


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 16), (2, 5)])
def test_what_is_not_finite_is_seen_to_be_in_every_statistic(shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 0.5)
    x[1].view(-1)[3] = torch.nan
    for name, value in input_statistics(x).items():
        assert value[0].isfinite(), name
    assert not input_statistics(x)[next(iter(input_statistics(x)))][1].isfinite()


def test_one_by_one_they_are_what_they_are_together() -> None:
    x = torch.rand(5, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    together = input_statistics(x)
    for i in range(5):
        for name, value in input_statistics(x[i : i + 1]).items():
            torch.testing.assert_close(value[0], together[name][i])
