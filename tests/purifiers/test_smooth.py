"""Smoothing of waveforms, against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from purifiers import PurifierError, Smooth

X = torch.rand(2, 2, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", [3, 5, 31])
def test_the_median_is_scipys(size: int) -> None:
    expected = ndimage.median_filter(X.numpy(), size=(1, 1, size), mode="nearest")
    assert np.array_equal(Smooth(size=size).purify(X).numpy(), expected)


@pytest.mark.parametrize("size", [3, 9])
def test_the_mean_is_scipys(size: int) -> None:
    expected = ndimage.uniform_filter1d(X.numpy(), size, axis=2, mode="nearest")
    found = Smooth(size=size, how="mean").purify(X)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_a_waveform_shorter_than_the_window() -> None:
    x = torch.tensor([[[0.5, -0.5]]])
    assert Smooth(size=5).purify(x).tolist() == [[[0.5, -0.5]]]


def test_clicks_go_and_slow_waves_stay() -> None:
    wave = torch.sin(torch.arange(200) / 30).view(1, 1, -1) / 2
    clicked = wave.clone()
    clicked[0, 0, 77] = 1.0
    assert (Smooth().purify(clicked) - wave).abs().max() < 0.02


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"size": 4}, "size must be odd, 3 to 31"),
        ({"size": 33}, "size must be odd, 3 to 31"),
        ({"size": "3"}, "size must be odd, 3 to 31"),
        ({"how": "mode"}, "how must be median or mean"),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        Smooth(**params)


def test_keys_name_the_parameters() -> None:
    assert Smooth(size=5, how="mean").key == "smooth(size=5, how=mean)"
