"""Small writing in images: clocks, captions, watermarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.dice import Dice

# Three by five dots, each digit one row of dots in binary.
_FONT = {
    **{"0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717"},
    **{"6": "74757", "7": "71222", "8": "75757", "9": "75717", ":": "02020", " ": "00000"},
    **{"A": "25755", "E": "74647", "H": "55755", "I": "72227", "L": "44447", "N": "65555"},
    **{"O": "25552", "R": "65655", "S": "34216", "T": "72222"},
}
_LETTERS = "AEHILNORST"


def word(count: int, dice: Dice) -> str:
    """Letters in random order."""
    return "".join(dice.one_of(_LETTERS) for _ in range(count))


def ink(text: str, height: int) -> Tensor:
    """The text in [0, 1], (height, about 0.8 * height * len(text)), soft at the edges of dots."""
    columns = [
        [(int(row, 8) >> bit) & 1 for row in _FONT[letter]] for letter in text for bit in (2, 1, 0)
    ]
    dots = torch.tensor(columns, dtype=torch.float32).view(len(text), 3, 5)
    spaced = F.pad(dots, (0, 0, 0, 1)).reshape(1, 1, -1, 5).transpose(2, 3)  # (1, 1, 5, 4 n)
    size = (height, max(1, round(spaced.shape[3] * height / 5)))
    times = -(-height // 5)  # made larger dot by dot, then smaller: sharp at every size
    spaced = spaced.repeat_interleave(times, 2).repeat_interleave(times, 3)
    return F.interpolate(spaced, size=size, mode="bilinear", antialias=True)[0, 0]


def stamped(drawing: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A drawing (h, w) put into an empty frame (height, width), cut off where it sticks out."""
    frame = torch.zeros(height, width)
    seen = drawing[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    frame[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return frame
