"""Benign sequences of one image edited, copied or sent again: people, pipelines and monitors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.benign import blurred, compressed, rounded
from detectors.dice import Dice
from detectors.glyphs import ink, stamped, word
from detectors.photometry import contrasted, per_frame, saturated, scaled, sharpened
from detectors.scenes import Scene, disc, laid_over, steady

_FILTERS = {
    "sepia": ((0.39, 0.77, 0.19), (0.35, 0.69, 0.17), (0.27, 0.53, 0.13)),
    "mono": ((0.3, 0.59, 0.11),) * 3,
    "warm": ((1.1, 0.05, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.85)),
    "cold": ((0.85, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.05, 1.1)),
    "faded": ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)),
    "vivid": ((1.3, -0.15, -0.15), (-0.15, 1.3, -0.15), (-0.15, -0.15, 1.3)),
}


def swept(length: int, low: float, high: float, dice: Dice) -> Tensor:
    """Settings of a slider, (length,): pulled from one end towards the other, or tried about."""
    ends = dice.several(2, low, high)
    if dice.happens(0.5):
        return torch.linspace(float(ends[0]), float(ends[1]), length)
    return dice.several(length, low, high)


def repeated(x: Tensor, length: int) -> Tensor:
    """The image `length` times."""
    return x.expand(length, *x.shape)


def crops(x: Tensor, length: int, dice: Dice) -> Tensor:
    """The same image cropped in other ways, each at the full size."""
    span = dice.several(length, dice.between(0.5, 0.9), 1)
    room = (1 - span)[:, None] * torch.tensor([x.shape[2], x.shape[1]]) / 2
    at = room * torch.stack((dice.several(length, -1, 1), dice.several(length, -1, 1)), dim=1)
    return Scene(x).look(at, span=span)


def sliders(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Brightness, contrast or gamma."""
    setting = dice.one_of(("brightness", "contrast", "gamma"))
    values = swept(length, 0.6, 1.5, dice)
    if setting == "brightness":
        return repeated(x, length) * per_frame(values)
    if setting == "contrast":
        return contrasted(repeated(x, length), values)
    return repeated(x, length) ** per_frame(values)


def sharpening(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Unsharp masks of amounts 0 to 2."""
    return sharpened(repeated(x, length), swept(length, 0, 2, dice), dice.between(0.5, 1))


def saturation(x: Tensor, length: int, dice: Dice) -> Tensor:
    """From grey to twice the colour; a grey image stays as it is."""
    return saturated(repeated(x, length), swept(length, 0, 2, dice))


def blurs(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Gaussian blur of up to 1.5 pixels."""
    return blurred(repeated(x, length), swept(length, 0.15, 1.5, dice), radius=5)


def qualities(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Saved as JPEG at many qualities."""
    quality = swept(length, 20, 98, dice).round().int()
    return compressed(repeated(x, length), quality, subsample=dice.happens(0.5))


def resize_chain(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Made smaller or larger and back, each time another way; not rounded at the end."""
    height, width = x.shape[1:]
    frames = []
    for factor in dice.several(length, 0.5, 2).tolist():
        there, back = (
            dice.one_of(("area", "bilinear", "bicubic")),
            dice.one_of(("bilinear", "bicubic")),
        )
        size = max(2, round(height * factor)), max(2, round(width * factor))
        frames.append(scaled(rounded(scaled(x[None], *size, there)), height, width, back))
    return torch.cat(frames)


def watermarks(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A half transparent word, put somewhere else each time."""
    height, width = x.shape[1:]
    text = ink(word(dice.whole(2, 5), dice), max(5, round(height * dice.between(0.2, 0.4))))
    tops = dice.wholes(length, -2, height - 4).tolist()
    lefts = dice.wholes(length, -text.shape[1] // 2, width - 4).tolist()
    places = zip(tops, lefts, strict=True)
    masks = torch.stack([stamped(text, top, left, height, width) for top, left in places])
    mask = masks[:, None] * dice.between(0.2, 0.7)
    return laid_over(repeated(x, length), torch.tensor(dice.one_of((1.0, 1.0, 0.0))), mask)


def captions(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Other words below or above the same picture, on a band or with none."""
    height, width = x.shape[1:]
    size = max(5, round(height * dice.between(0.16, 0.25)))
    top = dice.one_of((0, height - size))
    texts = [ink(word(max(2, width // size), dice), size) for _ in range(length)]
    masks = torch.stack([stamped(text, top, 1, height, width) for text in texts])
    frames = repeated(x, length).clone()
    if dice.happens(0.5):
        frames[:, :, top : top + size] *= 0.3
    return laid_over(frames, torch.ones(()), masks[:, None])


def stickers(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A round sticker with eyes, moved over the picture and made larger and smaller."""
    scene = Scene(x)
    colour = dice.several(x.shape[0], 0.2, 1).view(1, -1, 1, 1)
    frames = []
    for _ in range(length):
        radius = scene.side * dice.between(0.08, 0.22)
        at = dice.several(2, -0.45, 0.45).view(1, 2) * torch.tensor([scene.width, scene.height])
        frame = laid_over(x[None], colour, disc(at, (radius, radius), scene.pixels))
        for eye in (-0.4, 0.4):
            middle = at + radius * torch.tensor([eye, -0.25])
            dot = disc(middle, (radius * 0.15, radius * 0.15), scene.pixels)
            frame = laid_over(frame, torch.zeros(()), dot)
        frames.append(frame)
    return torch.cat(frames)


def colour_filters(x: Tensor, length: int, dice: Dice) -> Tensor:
    """The filters of a photo app, each at some strength; for grey images, tone curves."""
    strength = per_frame(dice.several(length, 0.3, 1))
    if x.shape[0] != 3:
        curves = repeated(x, length) ** per_frame(dice.several(length, 0.6, 1.6))
        return laid_over(repeated(x, length), curves, strength)
    matrices = torch.tensor([dice.one_of(list(_FILTERS.values())) for _ in range(length)])
    filtered = torch.einsum("tij,jhw->tihw", matrices, x)
    return laid_over(repeated(x, length), filtered, strength)


def rotations(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Straightened by a few degrees, or stood on another side."""
    angle = swept(length, -0.26, 0.26, dice)
    frames = Scene(x).look(steady(length), angle=angle, span=dice.between(0.75, 1))
    if x.shape[1] == x.shape[2] and dice.happens(0.5):
        quarters = dice.wholes(length, 0, 3).tolist()
        frames = torch.stack(
            [frame.rot90(n, (1, 2)) for frame, n in zip(frames, quarters, strict=True)]
        )
    return frames


def borders(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Made smaller and put on a background: black, white, a colour or the image's own edges."""
    height, width = x.shape[1:]
    frames = []
    for share in dice.several(length, 0.6, 1).tolist():
        inner = max(4, round(height * share)), max(4, round(width * share))
        top, left = dice.whole(0, height - inner[0]), dice.whole(0, width - inner[1])
        small = scaled(x[None], *inner, "bicubic")
        room = (left, width - inner[1] - left, top, height - inner[0] - top)
        frame = F.pad(small, room, mode="replicate")
        if dice.happens(0.75):
            colour = dice.several(x.shape[0], 0, 1) if dice.happens(0.3) else dice.whole(0, 1)
            paper = torch.as_tensor(colour).float().view(1, -1, 1, 1)
            inside = F.pad(torch.ones(1, 1, *inner), room)
            frame = torch.where(inside == 1, frame, paper)
        frames.append(frame)
    return torch.cat(frames)
