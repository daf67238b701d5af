"""How the steps from query to query look, told from sketches: searches take steps of their own.

Plain numpy. Levels are root mean squares in units of 1/255.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from detectors.sketch import BANDS, STEP, WIDTH

MOST = 8
"""Earlier queries a new one is compared with."""

TRAIL = 128
"""Latest queries of a principal whose steps a new one's is compared with."""

_NEAR = 20.0
"""Levels of 1/255, root mean square. Independent photographs are three times as far apart. An
image perturbed by 8/255, or blended half way, is nearer."""
_MIDPOINT = 0.06
"""Distance from the midpoint, of half the gap. Chance comes no nearer in 36 numbers, but for frames
that lie on one line: fades and sweeps, whose gaps do not halve."""
_CORNER = 0.35
"""Distance from the fourth corner, of the shorter side; independent noise gives 1 and more."""
_RETRACED = 0.2
"""Distance from the step back, of the step: closer than for corners, for there are many steps."""
_EQUAL, _UPRIGHT = 0.6, 0.5
"""Least ratio of a square's sides, and largest cosine between them."""
_SPREAD = 3.0
"""Blocks of 12; noise all over an image gives 6 or so, a clock in a corner 1 or 2."""
_FINE = 0.15
"""Levels; sides below this drown in the rounding of the sketches."""
_WHITE, _WHITER = 0.5, 0.6
"""Share of the high band in the difference from the nearest; white noise has 0.8, motion 0.3."""

_PAIRS = np.array(list(combinations(range(MOST), 2)))
_TRIPLES = np.array(
    [(a, b, c) for a, b in _PAIRS for c in range(MOST) if c not in (a, b)]
)  # the fourth corner is a + b - c


Sketches = npt.NDArray[np.int16]
Levels = npt.NDArray[np.float32]


def near(sketch: Sketches, others: Sketches) -> npt.NDArray[np.bool_]:
    """Which sketches are near to one, or to one each, (M,) bool."""
    return _norm(_levels(others) - _levels(sketch)) < _NEAR


@dataclass(frozen=True, slots=True)
class Step:
    """From which two earlier queries a step was taken, and how far apart these are, in levels."""

    pair: tuple[int, int]
    gap: float


def half_step(sketch: Sketches, earlier: Sketches) -> Step | None:
    """The step of a binary search that this query takes: half of the last one, back or on.

    Args:
        earlier: the latest first.
    """
    pairs = _PAIRS[(len(earlier) > _PAIRS).all(axis=1)]
    newer, older = _levels(earlier[pairs[:, 0]]), _levels(earlier[pairs[:, 1]])
    half = (newer - older) / 2
    gaps = 2 * _norm(half)
    beyond = _levels(sketch) - newer
    off = np.minimum(_norm(beyond - half), _norm(beyond + half))
    found = np.flatnonzero((off < _MIDPOINT * gaps / 2) & (gaps > 2 * _FINE))
    if not len(found):
        return None
    best = found[off[found].argmin()]
    return Step((int(pairs[best, 0]), int(pairs[best, 1])), float(gaps[best]))


def is_corner(sketch: Sketches, earlier: Sketches) -> bool:
    """Whether it completes a square of white noise."""
    triples = _TRIPLES[(len(earlier) > _TRIPLES).all(axis=1)]
    if not len(triples):
        return False
    own, others = _levels(sketch), _levels(earlier)
    steps = others - own
    distances = _norm(steps)
    nearest = int(distances.argmin())
    if _high_share(steps[nearest]) < _WHITE:
        return False
    a, b, c = (others[triples[:, k]] for k in range(3))
    u, v = a - c, b - c
    long_u, long_v = _norm(u), _norm(v)
    side = np.minimum(long_u, long_v)
    # Mirrored pairs of noise are the diagonals of a square, as far as 36 numbers tell.
    square = (side > _EQUAL * np.maximum(long_u, long_v)) & (
        np.abs((u * v).sum(-1)) < _UPRIGHT * long_u * long_v
    )
    off = _norm(own - (u + b))
    # Nothing nearer than half a side: a frame that comes back completes any parallelogram.
    open_ = distances[nearest] > side / 2
    spread = _blocks_hit(u, v) > _SPREAD
    return bool((square & spread & open_ & (side > _FINE) & (off < _CORNER * side)).any())


def is_retraced(sketch: Sketches, trail: Sketches) -> bool:
    """Whether its step undoes an earlier one, of white noise, somewhere else.

    Gradient estimates that ask about all of their noise first and about its mirror image after
    that take every step of the first half back in the second.
    """
    if len(trail) < 3:
        return False
    places = _levels(trail)
    step = _levels(sketch) - places[-1]
    long = float(_norm(step))
    if not 2 * _FINE < long < _NEAR or _high_share(step) < _WHITER:
        return False
    off = _norm(np.diff(places, axis=0) + step)
    away = _norm(_levels(sketch) - places[:-1])  # a motion to and fro ends where it began
    # Half the blocks that two independent steps are spread over, less a little.
    spread = _blocks_hit(step[None], step[None])[0] > _SPREAD * 0.8
    return bool(spread and ((off < _RETRACED * long) & (away > 0.7 * long)).any())


def _blocks_hit(u: npt.NDArray[np.float32], v: npt.NDArray[np.float32]) -> Levels:
    """How many of the high band's blocks two differences are spread over, about, (N,)."""
    energy = u[:, -WIDTH:] ** 2 + v[:, -WIDTH:] ** 2
    blocks: Levels = energy.sum(1) ** 2 / np.maximum((energy**2).sum(1), 1e-9)
    return blocks


def _high_share(step: npt.NDArray[np.float32]) -> float:
    energy = (step**2).reshape(len(BANDS), WIDTH).sum(1)
    return float(energy[-1] / max(energy.sum(), 1e-9))


def _levels(sketch: Sketches) -> npt.NDArray[np.float32]:
    return sketch.astype(np.float32) * np.float32(STEP)


def _norm(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm: npt.NDArray[np.float32] = np.sqrt(np.einsum("...i,...i->...", values, values))
    return norm
