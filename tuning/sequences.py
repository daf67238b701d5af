"""Benign sequences to calibrate with, and what the proxy's memory makes of a sequence."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from detectors import chains, steps
from detectors.benign_sequences import CALIBRATED, FAMILIES, sequence
from proxy.history.fingerprints import KEYS, Fingerprinter
from proxy.history.linking import link
from proxy.history.local import LocalStore
from tuning.batches import seeded

_LENGTHS = (6, 24)
_VALUES = 3 * 2**19
"""Most values in a sequence, as long as it has the least of frames: 10 images of 3x224x224."""
_OWNER = 1

_T = TypeVar("_T")


class Sequences:
    """Benign sequences of images, one for each image and family of kinds.

    They are made anew whenever they are asked for, always alike, and one at a time: all frames of
    all sequences would be two hundred times as many as the images.

    Args:
        images: (N, C, H, W) float32 in [0, 1], in random order.
        count: how many of the images are used, from the first; at most N.
        seed: together with `part`, of all that is drawn.
    """

    def __init__(self, images: Tensor, count: int, *, seed: int, part: str) -> None:
        self._images = images[:count]
        self._seed = (seed, part)
        most = _VALUES // max(images[0].numel(), 1)
        self._most = min(max(most, _LENGTHS[0]), _LENGTHS[1])
        self._kinds = {family: self._drawn(family) for family in FAMILIES}

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self._images) * len(self._kinds)

    @property
    def groups(self) -> tuple[str, ...]:
        """The benign groups that one frame of each sequence makes up."""
        return tuple(map(_group, self._kinds))

    def frames(self, progress: Progress) -> dict[str, Tensor]:
        """One frame of every sequence, never the first: group -> (n, C, H, W), by image.

        Args:
            progress: gets a task.

        Raises:
            DetectorError: no sequences can be made of such images.
        """
        task = progress.add_task("making sequences", total=len(self))
        found: dict[str, list[Tensor]] = {group: [] for group in self.groups}
        for group, frames, chosen in self._all():
            found[group].append(frames[chosen].clone())
            progress.advance(task)
        return {group: torch.stack(rows) for group, rows in found.items()}

    def chains(
        self, replay: Callable[[Tensor], Tensor], progress: Progress, *, whole: bool
    ) -> dict[str, Tensor]:
        """What the proxy's memory knows of the sequences: group -> (n, F), by image.

        Args:
            replay: (L, C, H, W) to (L, F), see `Replay`.
            progress: gets a task.
            whole: of every frame; else of the one that `frames` has.
        """
        task = progress.add_task("replaying sequences", total=len(self))
        found: dict[str, list[Tensor]] = {group: [] for group in self.groups}
        for group, frames, chosen in self._all():
            found[group].append(replay(frames) if whole else replay(frames[: chosen + 1])[-1:])
            progress.advance(task)
        return {group: torch.cat(rows) for group, rows in found.items()}

    def _drawn(self, family: str) -> list[str]:
        """The kind of each image's sequence: all kinds of the family equally often."""
        kinds = [kind for kind in FAMILIES[family] if kind in CALIBRATED]
        order = torch.randperm(len(self._images), generator=seeded(*self._seed, family))
        return [kinds[number % len(kinds)] for number in order.tolist()]

    def _all(self) -> Iterator[tuple[str, Tensor, int]]:
        """Every sequence: its group, its frames, and which of them is the group's."""
        for family, kinds in self._kinds.items():
            for row, kind in enumerate(kinds):
                generator = seeded(*self._seed, family, row)
                length = int(torch.randint(_LENGTHS[0], self._most + 1, (), generator=generator))
                chosen = int(torch.randint(1, length, (), generator=generator))
                frames = sequence(kind, self._images[row], length, generator)
                yield _group(family), frames, chosen


class Replay:
    """What the proxy's memory knows of each query of a sequence when it is judged.

    Each sequence is asked by one principal, a query at a time, of a memory that is empty at first.
    The model's answers are not asked for, so that `flips` stays 0.

    Args:
        anomaly: of inputs (B, C, H, W), (B,): -log of the benign share whose input looks more
            suspicious.
        key: of the fingerprints; drawn at random unless it is given.
    """

    def __init__(self, anomaly: Callable[[Tensor], Tensor], key: bytes | None = None) -> None:
        secret = key or secrets.token_bytes(32)
        self._anomaly = anomaly
        self._fingerprint = Fingerprinter(secret, lambda: (secret,))

    def __call__(self, frames: Tensor) -> Tensor:
        """The chain of each frame when it is asked, (L, F) float32 on the CPU.

        Args:
            frames: (L, C, H, W) float32 in [0, 1], as the detectors see them.
        """
        if not len(frames):
            return torch.zeros(0, len(chains.FEATURES))
        prints = self._fingerprint(frames, self._anomaly(frames)).of(_OWNER)
        store = LocalStore(
            len(frames), chains.RECORD, KEYS, ttl_s=2.0 * len(frames), clock=lambda: 0.0
        )
        owner = np.array([_OWNER], np.uint64)
        trail, records = prints.sketch[:0], []
        for row in range(len(frames)):
            one = prints[row : row + 1]
            found = _at_once(store.lookup(one.keys[0], owner))
            linked = link(one, owner=_OWNER, now=row + 1.0, found=[found], trail=trail)
            new = ~linked.repeats
            store.remember(one.keys[0][new], owner[new], linked.records[new])
            trail = np.concatenate((trail, one.sketch[new]))[-steps.TRAIL :]
            records.append(linked.records)
        return torch.from_numpy(chains.features(np.concatenate(records)))


def _group(family: str) -> str:
    return f"sequence_{family}"


def _at_once(call: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as end:
        value: _T = end.value
        return value
    call.close()
    raise RuntimeError("it waits")
