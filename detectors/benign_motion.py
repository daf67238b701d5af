"""Benign sequences in which the camera or something before it moves."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.dice import Dice
from detectors.photometry import per_frame, scaled, sensor_noise, tinted
from detectors.scenes import (
    Scene,
    direction,
    disc,
    laid_over,
    shake,
    steady,
    there_and_back,
    wander,
)

_LEVEL = 1 / 255


def panned(x: Tensor, length: int, dice: Dice, low: float, high: float) -> Tensor:
    """A camera that turns at a constant speed, in shares of the side a frame, and back again."""
    scene = Scene(x)
    step = scene.side * dice.between(low, high)
    gone = there_and_back(length, step, scene.side * dice.between(0.3, 0.8))
    return scene.look(gone[:, None] * direction(dice), span=dice.between(0.75, 1))


def slow_pan(x: Tensor, length: int, dice: Dice) -> Tensor:
    """By a fiftieth to a half of a pixel a frame, for a side of 32."""
    return panned(x, length, dice, 0.0006, 0.016)


def fast_pan(x: Tensor, length: int, dice: Dice) -> Tensor:
    """By a half to five pixels a frame, for a side of 32."""
    return panned(x, length, dice, 0.016, 0.16)


def noisy_pan(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Slow or fast, through a noisy sensor."""
    frames = panned(x, length, dice, 0.002, 0.08)
    return sensor_noise(frames, dice.between(0.5, 4) * _LEVEL, dice)


def resized_pan(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Filmed at twice the size in 8 bits, then made smaller and not rounded again."""
    height, width = x.shape[1:]
    large = scaled(x[None], 2 * height, 2 * width, "bicubic")[0]
    frames = panned(large, length, dice, 0.002, 0.06)
    frames = sensor_noise(frames, dice.between(0, 4) * _LEVEL, dice)
    frames = (frames.clamp(0, 1) * 255).round() / 255
    return scaled(frames, height, width, dice.one_of(("area", "bilinear", "bicubic")))


def zoom(x: Tensor, length: int, dice: Dice) -> Tensor:
    """In or out, by up to 3 % a frame."""
    rate = dice.between(0.002, 0.03)
    span = dice.between(0.85, 1) * torch.exp(-there_and_back(length, rate, dice.between(0.2, 0.5)))
    return Scene(x).look(steady(length), span=span if dice.happens(0.5) else span.flip(0))


def rotation(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A camera that rolls, by 0.1 to 4 degrees a frame, to one side or to and fro."""
    step = dice.between(0.002, 0.07)
    angle = torch.arange(length) * step
    if dice.happens(0.5):
        angle = wander(length, dice) * dice.between(0.03, 0.25)
    return Scene(x).look(steady(length), angle=angle, span=dice.between(0.7, 0.9))


def hand_shake(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Held in the hand: sway and tremor to all sides, a little roll."""
    scene = Scene(x)
    at = shake(length, scene.side * dice.between(0.005, 0.05), dice)
    angle = wander(length, dice) * dice.between(0, 0.04)
    return scene.look(at, angle=angle, span=dice.between(0.8, 1))


def moving_object(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Something passes in front of a still background; half of the cameras are without noise."""
    scene = Scene(x)
    side = scene.side
    radii = (side * dice.between(0.1, 0.3), side * dice.between(0.1, 0.3))
    gone = there_and_back(length, side * dice.between(0.01, 0.1), 1.2 * side) - 0.6 * side
    path = gone[:, None] * direction(dice) + side * dice.several(2, -0.2, 0.2)
    # The object takes its texture from elsewhere in the image, and takes it along.
    texture = scene.look(side * dice.several(2, -0.5, 0.5) - path, span=dice.between(0.5, 1.5))
    gains = dice.several(3, 0.5, 1.6).expand(length, 3)
    frames = laid_over(x, tinted(texture, gains), disc(path, radii, scene.pixels))
    return _perhaps_noisy(frames, dice)


def perspective(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A flat scene seen from changing sides."""
    tilt = torch.stack((wander(length, dice), wander(length, dice)), dim=1)
    tilt = (tilt * dice.between(0.03, 0.15)).clamp(-0.35, 0.35)
    scene = Scene(x)
    at = shake(length, scene.side * dice.between(0, 0.02), dice)
    return scene.look(at, tilt=tilt, span=dice.between(0.75, 0.9))


def parallax(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A camera that moves past things near and far: near ones move more."""
    scene = Scene(x)
    near = dice.several(16, 0, 1).view(1, 1, 4, 4)
    near = scaled(near, scene.height, scene.width, "bilinear")[0, 0]
    gone = there_and_back(length, scene.side * dice.between(0.003, 0.05), 0.5 * scene.side)
    along = gone[:, None] * direction(dice)  # (T, 2)
    bend = near[:, :, None] * along[:, None, None]  # (T, H, W, 2)
    return scene.look(0.3 * along, bend=bend, span=dice.between(0.75, 1))


def motion_blur(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Fast and uneven motion, with the shutter open for much of each frame."""
    scene = Scene(x)
    moments = 5
    step = scene.side * dice.between(0.02, 0.1)
    speed = step * (1 + 0.8 * wander(length, dice)).clamp_min(0)
    open_for = dice.between(0.4, 1)
    start = torch.cumsum(speed, 0) - speed
    times = start[:, None] + speed[:, None] * open_for * torch.linspace(0, 1, moments)
    at = times.reshape(-1, 1) * direction(dice)  # (T * moments, 2)
    frames = scene.look(at, span=dice.between(0.75, 1))
    return frames.view(length, moments, *x.shape).mean(1)


def rolling_shutter(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Rows are read one after the other while the camera shakes or turns: the image leans."""
    scene = Scene(x)
    at = shake(length + 1, scene.side * dice.between(0.01, 0.06), dice)
    at = at + torch.arange(length + 1)[:, None] * scene.side * dice.between(0, 0.03) * direction(
        dice
    )
    row = torch.linspace(0, 1, scene.height).view(1, -1, 1, 1)
    bend = (at[1:] - at[:-1])[:, None, None] * row * dice.between(0.4, 1)  # (T, H, 1, 2)
    return scene.look(at[:-1], bend=bend, span=dice.between(0.75, 1))


def interlaced(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Odd rows half a frame later than even ones, in motion."""
    fields = panned(x, 2 * length, dice, 0.01, 0.05)
    frames = fields[::2].clone()
    frames[:, :, 1::2] = fields[1::2, :, 1::2]
    return frames


def dropped_frames(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A pan of which frames get lost on the way or are shown again."""
    steps = torch.tensor([0, 0, 1, 1, 1, 1, 2, 4])[dice.wholes(length, 0, 7)]
    shown = torch.cumsum(steps, 0) - steps[0]
    frames = _perhaps_noisy(panned(x, int(shown[-1]) + 1, dice, 0.004, 0.04), dice)
    return frames[shown]


def burst(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Bursts of 5 to 15 photos from the hand; between them the photographer steps aside."""
    scene, shots = Scene(x), list[Tensor]()
    span, exposure = dice.between(0.8, 1), dice.between(0.01, 0.08)
    while sum(map(len, shots)) < length:
        count = dice.whole(5, 15)
        at = shake(count, scene.side * dice.between(0.01, 0.06), dice)
        angle = wander(count, dice) * dice.between(0.005, 0.05)
        shown = scene.look(at, angle=angle, span=span)
        shown = shown * per_frame(1 + exposure * dice.normal(count))
        shots.append(sensor_noise(shown, dice.between(0.3, 3) * _LEVEL, dice))
        scene = Scene(
            scene.look(
                scene.side * dice.several(2, -0.3, 0.3).view(1, 2), span=dice.between(0.7, 1)
            )[0]
        )
    return torch.cat(shots)[:length]


def _perhaps_noisy(frames: Tensor, dice: Dice) -> Tensor:
    """Half as they are, as in animations; half through a sensor."""
    if dice.happens(0.5):
        return frames
    return sensor_noise(frames, dice.between(0.3, 2) * _LEVEL, dice)
