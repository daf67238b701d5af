"""Small pictures: which tensors have some, how large, how many."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from proxy.records.thumbnails import PER_SECOND, SIDE, Pictures, thumbnails


def opened(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [
        ((2, 3, 32, 32), "RGB", (32, 32)),
        ((2, 1, 8, 16), "L", (16, 8)),
        ((2, 3, 600, 300), "RGB", (SIDE // 2, SIDE)),
        ((2, 3, 1, 4000), "RGB", (SIDE, 1)),
        ((2, 3, 2000, 2000), "RGB", (SIDE, SIDE)),
    ],
)
def test_at_most_so_large(shape: tuple[int, ...], mode: str, size: tuple[int, int]) -> None:
    found = thumbnails(torch.rand(shape, generator=torch.Generator().manual_seed(0)), [1])
    assert list(found) == [1]
    image = opened(found[1])
    assert (image.format, image.mode, image.size) == ("PNG", mode, size)


def test_it_is_the_picture() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[0, 0, :, :4] = 1.0
    image = opened(thumbnails(x, [0])[0])
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.getpixel((7, 7)) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(2, 16), (2, 1, 100), (2, 4, 8, 8), (2, 2, 8, 8)])
def test_what_is_no_picture_has_none(shape: tuple[int, ...]) -> None:
    assert thumbnails(torch.rand(shape), [0]) == {}


def test_odd_values_do_no_harm() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 7.0]).reshape(1, 1, 2, 2)
    with torch.inference_mode():
        assert opened(thumbnails(x, [0])[0]).tobytes() == bytes([0, 255, 0, 255])


def test_so_many_a_second() -> None:
    now = [0.0]
    pictures = Pictures(lambda: now[0])
    assert pictures.admit(range(64)) == list(range(PER_SECOND))
    assert pictures.admit([0]) == []
    now[0] = 0.1
    assert pictures.admit(range(64)) == [0, 1]
    now[0] = 100.0
    assert len(pictures.admit(range(64))) == PER_SECOND
