"""Benign sequences of cameras and screens that stand still, and what transport does to video."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detectors.benign import compressed
from detectors.benign_motion import panned
from detectors.dice import Dice
from detectors.glyphs import ink, stamped, word
from detectors.photometry import (
    coded_as_video,
    developed_noise,
    per_frame,
    scaled,
    sensor_noise,
    tinted,
)
from detectors.scenes import Scene, direction, laid_over, shake, steady, there_and_back, wander

_LEVEL = 1 / 255


def still(x: Tensor, length: int) -> Tensor:
    """The image again and again."""
    return x.expand(length, *x.shape)


def sensor(x: Tensor, length: int, dice: Dice) -> Tensor:
    """White noise of sigma 0.5 to 4 levels."""
    return sensor_noise(still(x, length), dice.between(0.5, 4) * _LEVEL, dice)


def developed_sensor(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Noise in blotches of grey and colour, sigma 0.5 to 4 levels."""
    return developed_noise(still(x, length), dice.between(0.5, 4) * _LEVEL, dice)


def jpeg_camera(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Sensor noise, then each frame a JPEG (motion JPEG), all of one quality."""
    noise = dice.one_of((sensor_noise, developed_noise))
    frames = noise(still(x, length), dice.between(0.5, 4) * _LEVEL, dice)
    quality = torch.full((length,), dice.whole(50, 95))
    return compressed(frames.clamp(0, 1), quality, subsample=dice.happens(0.5))


def resized_camera(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A larger camera's noisy 8-bit frames made smaller, not rounded: noise below a level."""
    height, width = x.shape[1:]
    times = dice.whole(2, 4) if max(height, width) <= 64 else 2
    large = scaled(x[None], times * height, times * width, "bicubic").expand(length, -1, -1, -1)
    noisy = sensor_noise(large, dice.between(0.5, 5) * _LEVEL, dice)
    noisy = (noisy.clamp(0, 1) * 255).round() / 255
    return scaled(noisy, height, width, dice.one_of(("area", "bilinear", "bicubic")))


def lighting_drift(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Clouds and evening: brightness, its slope across the scene and its colour change slowly."""
    change = torch.linspace(0, 1, length) * dice.between(-0.4, 0.4)
    change = change + wander(length, dice, fastest=0.03) * dice.between(0, 0.08)
    scene = Scene(x)
    across = (scene.pixels / scene.side) @ direction(dice)[0]  # (H, W), about -0.7 to 0.7
    light = per_frame(1 + change) * (1 + per_frame(change) * across)
    colour = 1 + change[:, None] * dice.several(3, -0.3, 0.3)
    return _quiet_camera(tinted(still(x, length), colour) * light, dice)


def flicker(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Lamps on 50 or 60 Hz mains beat with the frame rate; rows are read one after the other."""
    mains, rate = dice.one_of((100.0, 120.0)), dice.one_of((24.0, 25.0, 29.97, 30.0, 15.0))
    rows = torch.linspace(0, 1, x.shape[1]).view(1, 1, -1, 1) * dice.between(0, 1)
    t = (per_frame(torch.arange(length)) + rows) / rate
    # Mains and camera clocks are never exact: without the drift some pairs would stand still.
    wave = torch.sin(2 * math.pi * (mains * dice.between(0.998, 1.002) * t + dice.between(0, 1)))
    return _quiet_camera(still(x, length) * (1 + dice.between(0.01, 0.12) * wave), dice)


def hunting(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Automatic exposure and white balance overshoot and settle, again and again."""
    t = torch.arange(length)
    since = t % dice.whole(8, 30)
    ringing = torch.exp(-since * dice.between(0.05, 0.4)) * torch.cos(
        since * dice.between(0.3, 1.2)
    )
    gains = 1 + ringing[:, None] * (
        dice.between(-0.25, 0.25) + dice.between(0, 0.1) * dice.normal(3).clamp(-2, 2)
    )
    return _quiet_camera(tinted(still(x, length), gains), dice)


def clock(x: Tensor, length: int, dice: Dice) -> Tensor:
    """The time in a corner, once a second another; the camera stands still."""
    height, width = x.shape[1:]
    every, start = dice.whole(1, 10), dice.whole(0, 3599)
    size = max(4, round(min(height, width) * dice.between(0.12, 0.22)))
    top, left = dice.one_of((1, height - size - 1)), dice.one_of((1, None))
    masks = []
    for second in (start + torch.arange(length) // every).tolist():
        text = ink(f"{second // 60 % 60:02d}:{second % 60:02d}", size)
        # What is too long for the frame is cut off on the left: seconds stay in sight.
        place = width - text.shape[1] if left is None else min(left, width - text.shape[1])
        masks.append(stamped(text, top, place, height, width))
    white = torch.tensor(dice.one_of((1.0, 1.0, 0.0)))
    frames = _quiet_camera(still(x, length), dice)
    return laid_over(frames, white, torch.stack(masks)[:, None])


def ticker(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Writing runs through a band at the bottom, below a picture that stands still or moves."""
    height, width = x.shape[1:]
    size = max(5, round(height * dice.between(0.15, 0.25)))
    text = ink(word(12 + 2 * width // size, dice), size - 2 if size > 6 else size)
    step = max(1, round(width * dice.between(0.02, 0.12)))
    columns = (torch.arange(width) + step * torch.arange(length)[:, None]) % text.shape[1]  # (T, W)
    frames = still(x, length) if dice.happens(0.5) else panned(x, length, dice, 0.002, 0.03)
    band, paper = frames.clone(), dice.several(x.shape[0], 0, 0.4).view(1, -1, 1, 1)
    rows = text[:, columns].transpose(0, 1)[:, None]  # (T, 1, h, W)
    band[:, :, height - size :] = paper
    start = height - size + (size - text.shape[0]) // 2
    under = band[:, :, start : start + text.shape[0]]
    band[:, :, start : start + text.shape[0]] = laid_over(under, torch.ones(()), rows)
    return band


def screen(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A screen shared: a caret blinks, somebody types, the mouse moves and rests."""
    height, width = x.shape[1:]
    size = max(5, round(height * 0.16))
    text, top = ink(word(3 * width // size, dice), size), dice.whole(0, height - size)
    typed = torch.cumsum((dice.several(length, 0, 1) < 0.25).long(), 0) * max(2, size * 4 // 5)
    every, moves = dice.whole(1, 6), dice.happens(0.7)
    gone = shake(length, 0.3 * min(height, width), dice)
    rests = torch.cumsum((dice.several(length, 0, 1) < 0.6).long(), 0).clamp_max(length - 1)
    arrow = torch.tril(torch.ones(size, size))
    arrow = arrow * (arrow.cumsum(1) <= 0.7 * size)
    ink_mask, mouse_mask = torch.zeros(2, length, 1, height, width)
    for t in range(length):
        column = int(typed[t]) % max(width - 1, 1)
        ink_mask[t, 0] = stamped(text[:, :column], top, 0, height, width)
        if t // every % 2:
            ink_mask[t, 0, top : top + size, column] = 1
        right, down = (gone[rests[t]] + torch.tensor([width, height]) / 2).round().int().tolist()
        mouse_mask[t, 0] = stamped(arrow * moves, down, right, height, width)
    black = torch.zeros(())
    return laid_over(laid_over(still(x, length), black, ink_mask), 1 - black, mouse_mask)


def cuts(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Back and forth between two cameras, each for a few frames."""
    scene = Scene(x)
    aside = scene.side * dice.several(2, -0.5, 0.5).expand(length, 2)
    other = scene.look(aside, span=dice.between(0.5, 0.9)).flip(3)
    other = tinted(other, dice.several(3, 0.7, 1.2).expand(length, 3))
    turns = (dice.several(length, 0, 1) < dice.between(0.1, 0.5)).long().cumsum(0) % 2
    frames = torch.where(per_frame(turns) == 1, other, still(x, length))
    return _quiet_camera(frames, dice)


def fade(x: Tensor, length: int, dice: Dice) -> Tensor:
    """From one picture to another, or to black, and back."""
    scene = Scene(x)
    other = scene.look(scene.side * dice.several(2, 0.3, 0.8).expand(1, 2), span=0.9).flip(2)
    if dice.happens(0.4):
        other = torch.zeros_like(other)
    share = there_and_back(length, dice.between(0.02, 0.2), 1.0)
    return laid_over(still(x, length), other, per_frame(share))


def codec(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Compressed as video: key frames, and between them changes of another quality."""
    if dice.happens(0.5):
        frames = panned(x, length, dice, 0.001, 0.03)
    else:
        frames = Scene(x).look(steady(length)) if dice.happens(0.5) else still(x, length)
    frames = sensor_noise(frames, dice.between(0, 3) * _LEVEL, dice)
    key = dice.whole(45, 92)
    return coded_as_video(frames, dice.whole(4, 30), key, max(30, key - dice.whole(0, 25)))


def _quiet_camera(frames: Tensor, dice: Dice) -> Tensor:
    """Half without noise (a good codec removes it), half with little."""
    if dice.happens(0.5):
        return frames
    return sensor_noise(frames, dice.between(0.3, 2) * _LEVEL, dice)
