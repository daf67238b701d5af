"""The attacked images that guided parts are trained on: made once, drawn from again and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from proxy.files import write_whole
from tuning.attacks import attack
from tuning.batches import affordable, seeded
from tuning.local_model import LogitModel

_MOST = 8192
_MOST_BYTES = 256 * 2**20
_BLOCK = 64
"""Images made between two questions whether to stop."""
_LEVELS = 255.0


@dataclass(frozen=True, slots=True)
class Attacked:
    """Attacked copies of images, rounded to 8 bits as they are sent."""

    of: Tensor
    """Which image each was made from, (M,) int64."""
    pixels: Tensor
    """(M, C, H, W) uint8."""

    def at(self, rows: Tensor) -> Tensor:
        """Some of them, (B, C, H, W) float32 in [0, 1]."""
        return self.pixels[rows].float() / _LEVELS


def needed(shape: tuple[int, ...], draws: int) -> int:
    """How many to make where so many will be drawn: whole blocks, and no more than fit memory."""
    most = min(_MOST, _MOST_BYTES // prod(shape), draws)
    return _BLOCK * max(1, most // _BLOCK)


def make(
    model: LogitModel,
    x: Tensor,
    count: int,
    path: Path,
    *,
    about: Mapping[str, object],
    seed: int,
    device: torch.device,
    on_progress: Callable[[int], None],
    is_stopped: Callable[[], bool],
) -> Attacked:
    """Attack images in a random order, again from the first once all have been.

    Args:
        x: benign images, (N, C, H, W) float32 in [0, 1].
        path: where they are kept when they are done or interrupted, to go on from.
        about: what tells this model and data from others.
        on_progress: told how many there are.
        is_stopped: asked after every block.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    rounds = range(-(-count // len(x)))
    orders = [torch.randperm(len(x), generator=seeded(seed, "attacked", r)) for r in rounds]
    of = torch.cat(orders)[:count]
    about = {**about, "seed": seed, "count": count}
    done = _restore(path, about)
    blocks = [] if done is None else [done]
    made = 0 if done is None else len(done)
    on_progress(made)
    while made < count:
        rows = of[made : made + _BLOCK]
        blocks.append(_block(model, x[rows], seeded(seed, "attack", made), device))
        made += len(rows)
        on_progress(made)
        stopped = is_stopped()
        if stopped or made == count:
            blocks = [torch.cat(blocks)]
            content = {"pixels": blocks[0]}
            write_whole(path, save_tensors(content, metadata={"about": json.dumps(about)}))
        if stopped:
            raise KeyboardInterrupt
    return Attacked(of, torch.cat(blocks))


def _block(
    model: LogitModel, x: Tensor, generator: torch.Generator, device: torch.device
) -> Tensor:
    parts = x.split(affordable(_BLOCK, tuple(x.shape[1:])))
    hostile = torch.cat([attack(model, part.to(device), generator).cpu() for part in parts])
    return (hostile * _LEVELS).round().to(torch.uint8)


def _restore(path: Path, about: Mapping[str, object]) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            if json.loads((file.metadata() or {}).get("about", "{}")) != about:
                return None
            pixels: Tensor = file.get_tensor("pixels")
            return pixels
    # Damaged, or none at all: what can be made anew is not worth an error.
    except (OSError, SafetensorError, ValueError):
        return None
