"""Cameras over a still image, and writing in it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.dice import Dice
from detectors.glyphs import ink, stamped
from detectors.scenes import Scene, disc, shake, steady, there_and_back, wander


def picture(channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Detail of all sizes, as in photographs, within [0.1, 0.9]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(1, channels, height, width)
    for side in (4, 8, 16, 32):
        grain = torch.randn(1, channels, side, side, generator=generator) / side
        x += F.interpolate(grain, size=(height, width), mode="bicubic")
    low, high = x.amin(), x.amax()
    return 0.1 + 0.8 * ((x - low) / (high - low))[0]


def dice() -> Dice:
    return Dice(torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(8, 8), (9, 40), (32, 33), (64, 48)])
def test_looking_straight_shows_the_image(size: tuple[int, int]) -> None:
    x = picture(1, *size)
    shown = Scene(x).look(steady(2))
    assert shown.shape == (2, 1, *size)
    assert (shown - x).abs().max() < 0.06
    assert (shown - x).abs().mean() < 0.01


def test_pointing_right_and_down_moves_the_image_left_and_up() -> None:
    x = picture()
    shown = Scene(x).look(torch.tensor([[3.0, 2.0]]))[0]
    assert (shown[:, :-2, :-3] - x[:, 2:, 3:]).abs().mean() < 0.01
    # Beyond the edge the image is mirrored.
    assert (shown[:, :-2, -3:] - x[:, 2:, -3:].flip(2)).abs().mean() < 0.015


def test_a_smaller_span_enlarges_about_the_middle() -> None:
    x = torch.zeros(1, 32, 32)
    x[:, 12:20, 12:20] = 1
    shown = Scene(x).look(steady(1), span=0.5)[0, 0]
    assert shown[9:23, 9:23].min() > 0.85
    assert shown[:7].abs().max() < 0.15
    assert 250 < shown.sum() < 262


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    x = picture()
    shown = Scene(x).look(steady(1), angle=torch.pi / 2)[0]
    candidates = [(shown - x.rot90(n, (1, 2))).abs().mean().item() for n in (1, 2, 3)]
    assert min(candidates[0], candidates[2]) < 0.01
    assert candidates[1] > 0.05


def test_tilt_enlarges_one_side() -> None:
    stripes = (torch.arange(64) // 4 % 2).float().expand(1, 64, 64)
    shown = Scene(stripes).look(steady(1), tilt=torch.tensor([[0.3, 0.0]]))[0, 0]
    edges = ((shown[:, 1:] > 0.5) != (shown[:, :-1] > 0.5)).float().mean(0)
    assert edges[:31].sum() > edges[32:].sum() + 3


def test_bending_moves_each_pixel_by_itself() -> None:
    x = picture()
    bend = torch.zeros(1, 32, 32, 2)
    bend[:, 16:, :, 0] = 2.0
    shown, straight = Scene(x).look(steady(1), bend=bend)[0], Scene(x).look(steady(1))[0]
    assert torch.allclose(shown[:, :16], straight[:, :16], atol=1e-5)
    assert (shown[:, 16:, :-2] - straight[:, 16:, 2:]).abs().max() < 1e-4


def test_frames_between_pixels_are_as_sharp_as_those_on_pixels() -> None:
    at = torch.zeros(9, 2)
    at[:, 0] = torch.linspace(0, 1, 9)
    middle = Scene(picture()).look(at)[..., 6:-6, 6:-6]
    curves = middle[..., 2:] - 2 * middle[..., 1:-1] + middle[..., :-2]
    sharpness = curves.square().mean((1, 2, 3))
    assert sharpness.max() / sharpness.min() < 1.12


def test_courses() -> None:
    assert there_and_back(7, 1.0, 3.0).tolist() == [0, 1, 2, 3, 2, 1, 0]
    course = wander(4000, dice(), fastest=0.1)
    assert 0.9 < course.square().mean() < 1.1
    assert (course[1:] - course[:-1]).abs().max() < 1.4  # three waves below 0.1 cycles a frame
    assert 0.9 < shake(4000, 1.0, dice()).square().mean() / 1.09 < 1.1


def test_a_disc_covers_its_area_with_soft_edges() -> None:
    place = Scene(torch.zeros(1, 32, 32)).pixels
    mask = disc(torch.tensor([[0.0, 0.0], [4.5, -3.25]]), (8.0, 5.0), place)
    assert mask.shape == (2, 1, 32, 32)
    torch.testing.assert_close(mask.sum((1, 2, 3)), torch.full((2,), 125.7), atol=4, rtol=0)
    assert ((mask > 0.05) & (mask < 0.95)).any()
    assert mask[1, 0, 12, 20] == 1
    assert mask[1, 0, 19, 11] == 0


def test_writing_can_be_read() -> None:
    shown = "\n".join("".join(".#"[int(dot)] for dot in row) for row in ink("1:7", 5))
    assert shown == ".#......###.\n##...#....#.\n.#.......#..\n.#...#...#..\n###......#.."
    large = ink("1:7", 15)
    assert large.shape == (15, 36)
    assert 0 <= large.min() < large.max() <= 1


@pytest.mark.parametrize("place", [(0, 0), (-2, 5), (4, -3), (30, 30), (-9, 2), (40, 2), (2, -20)])
def test_what_sticks_out_is_cut_off(place: tuple[int, int]) -> None:
    drawing = torch.ones(4, 6)
    frame = stamped(drawing, *place, 32, 32)
    rows = len(set(range(place[0], place[0] + 4)) & set(range(32)))
    columns = len(set(range(place[1], place[1] + 6)) & set(range(32)))
    assert frame.sum() == rows * columns
    assert frame.shape == (32, 32)
