from __future__ import annotations

import torch

from purifiers.opponent import to_opponent, to_rgb


def images() -> torch.Tensor:
    return torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def test_there_and_back() -> None:
    torch.testing.assert_close(to_rgb(to_opponent(images())), images())


def test_lengths_are_kept() -> None:
    # So white noise of one deviation is white noise of the same deviation in every plane.
    torch.testing.assert_close(to_opponent(images()).norm(dim=1), images().norm(dim=1))


def test_grey_has_no_colour_difference() -> None:
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    planes = to_opponent(grey)
    torch.testing.assert_close(planes[:, 0], grey[:, 0] * 3**0.5)
    torch.testing.assert_close(planes[:, 1:], torch.zeros(2, 2, 5, 4))
