"""Windows of traffic without drift, for `loadtests.drift`: who sends what, and what repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WINDOW = 5000
_FRAMES = 30
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """How many windows and calibrations."""

    sides: int = 30
    quiet: int = 20
    """Windows without drift of each calibration."""
    drifting: int = 3
    """Windows with drift of each of some calibrations."""
    every: int = 3
    """Which calibrations that is."""


@dataclass(frozen=True)
class Traffic:
    """A window: who sent each sample, when, and what."""

    principals: Integers
    images: Integers
    """Places in a side's live images."""
    groups: Integers


Draw = Callable[[np.random.Generator, int, int], Traffic]
"""From a generator, the number of live images and that of groups."""


def mixed(rng: np.random.Generator, images: int, groups: int) -> Traffic:
    """Independent images of all groups alike."""
    return Traffic(
        rng.integers(0, 200, WINDOW),
        rng.integers(0, images, WINDOW),
        rng.integers(0, groups, WINDOW),
    )


def _own_mixture(rng: np.random.Generator, images: int, groups: int) -> Traffic:
    """Shares of the groups that nobody foresaw, a mixture of its own for each principal."""
    shares = rng.dirichlet(np.full(groups, 0.3))
    own = np.array([rng.dirichlet(0.05 + 3 * shares) for _ in range(200)])
    principals = rng.integers(0, 200, WINDOW)
    drawn = (own.cumsum(axis=1)[principals] < rng.random(WINDOW)[:, None]).sum(axis=1)
    return Traffic(
        principals, rng.integers(0, images, WINDOW), np.minimum(drawn, groups - 1).astype(np.int64)
    )


def _day_and_night(rng: np.random.Generator, images: int, groups: int) -> Traffic:
    """One group at a time, changing once in the window for everybody."""
    first, second = rng.integers(0, groups, 2)
    turn = int(rng.integers(0, WINDOW))
    return Traffic(
        rng.integers(0, 200, WINDOW),
        rng.integers(0, images, WINDOW),
        np.where(np.arange(WINDOW) < turn, first, second),
    )


def _cameras(count: int, scenes: int) -> Draw:
    """Cameras at one rate, each of one group, that repeat each of so many scenes: identical frames.

    The scenes follow each other without returning.
    """

    def draw(rng: np.random.Generator, images: int, groups: int) -> Traffic:
        turn = np.arange(WINDOW)
        camera = turn % count
        part = turn * scenes // WINDOW
        shown = rng.integers(0, images, (count, scenes))
        kind = rng.integers(0, groups, count)
        return Traffic(camera, shown[camera, part], kind[camera])

    return draw


def _gateway(rng: np.random.Generator, images: int, groups: int) -> Traffic:
    """Independent images, all from one principal."""
    drawn = mixed(rng, images, groups)
    return Traffic(np.zeros(WINDOW, np.int64), drawn.images, drawn.groups)


GATEWAY = "one gateway, independent"
QUIET: Mapping[str, Draw] = {
    "independent, all groups alike": mixed,
    "independent, unforeseen mixture": _own_mixture,
    "one group, then another": _day_and_night,
    GATEWAY: _gateway,
    "100 cameras, 30 like frames": _cameras(100, WINDOW // 100 // _FRAMES + 1),
    "100 cameras, one scene each": _cameras(100, 1),
    "25 cameras, 30 like frames": _cameras(25, WINDOW // 25 // _FRAMES),
    "4 cameras, 30 like frames": _cameras(4, WINDOW // 4 // _FRAMES),
    "4 cameras, 10 like frames": _cameras(4, WINDOW // 4 // 10),
    "4 cameras, one scene each": _cameras(4, 1),
}
