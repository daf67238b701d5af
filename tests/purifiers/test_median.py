from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from purifiers import Median, PurifierError


def test_median_of_two_by_two_by_hand() -> None:
    x = torch.tensor([[0.1, 0.9], [0.3, 0.5]]).view(1, 1, 2, 2)
    # Windows reach up and left, edges repeated: {.1 x4}; {.1 .1 .9 .9}; {.1 .1 .3 .3}; all four.
    expected = torch.tensor([[0.1, 0.5], [0.2, 0.4]]).view(1, 1, 2, 2)
    torch.testing.assert_close(Median(2).purify(x), expected)


def test_median_of_three_by_three_by_hand() -> None:
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).view(1, 1, 3, 3) / 10
    # Top left window, edges repeated: 1 1 2 1 1 2 4 4 5 -> 2.
    expected = torch.tensor([[2.0, 3, 3], [4, 5, 6], [7, 7, 8]]).view(1, 1, 3, 3) / 10
    torch.testing.assert_close(Median(3).purify(x), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (8, 8), (13, 9)])
def test_three_by_three_equals_scipy(shape: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    expected = ndimage.median_filter(x.numpy(), size=(1, 1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(Median(3).purify(x).numpy(), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (8, 8), (13, 9)])
def test_two_by_two_equals_numpy(shape: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(2))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 0), (1, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(2, 3))
    expected = torch.from_numpy(np.median(windows, axis=(4, 5)))
    torch.testing.assert_close(Median(2).purify(x), expected, check_dtype=False)


@pytest.mark.parametrize("size", [2, 3])
def test_removes_a_single_bright_pixel_and_keeps_a_constant(size: int) -> None:
    x = torch.full((1, 1, 9, 9), 0.25)
    x[0, 0, 4, 4] = 1.0
    torch.testing.assert_close(Median(size).purify(x), torch.full_like(x, 0.25), rtol=0, atol=0)


@pytest.mark.parametrize("size", [1, 4, "2", 2.5])
def test_size_out_of_range(size: object) -> None:
    with pytest.raises(PurifierError, match="size must be 2 or 3"):
        Median(size)  # type: ignore[arg-type]
