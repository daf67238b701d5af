"""The earlier queries of a calibration's samples: benign sequences, as the proxy remembers them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from rich.progress import Progress
from torch import Tensor

from detectors.base import DetectorError, Evidence
from detectors.chains import FEATURES
from proxy.adapt import ModelSpec
from proxy.errors import ConfigError
from tuning.model_client import as_seen
from tuning.sequences import Replay, Sequences


class Past:
    """Benign sequences for detectors that look at earlier queries, and for all others.

    A frame of each sequence is a benign sample: text over a picture looks like an attack to who
    has seen photographs only.

    Args:
        spec: the model's tensors.
        halves: benign groups to fit detectors on, and others for thresholds. Groups of frames are
            added, in place.
        counts: most sequences of a family, in each half.
        seed: of all that is drawn.
        device: where detectors are.
        progress: gets a task for each step.

    Raises:
        ConfigError: a group of the user's has the name of a built-in one, or no sequences can be
            made of such images.
    """

    def __init__(
        self,
        spec: ModelSpec,
        halves: tuple[dict[str, Tensor], dict[str, Tensor]],
        counts: tuple[int, int],
        *,
        seed: int,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._spec, self._device, self._progress = spec, device, progress
        # No secret: what is learned is put to use with other keys.
        self._key = hashlib.sha256(f"{seed}/past".encode()).digest()
        self._first, self._rest = (
            Sequences(groups["clean"], count, seed=seed, part=part)
            for part, groups, count in zip(("fit", "threshold"), halves, counts, strict=True)
        )
        for sequences, groups in zip((self._first, self._rest), halves, strict=True):
            taken = sorted(set(groups) & set(sequences.groups))
            if taken:
                raise ConfigError(
                    f"--group {', '.join(taken)}: the name is that of a built-in group"
                )
            try:
                groups.update(sequences.frames(progress))
            except DetectorError as error:
                raise ConfigError(f"history: no sequences to calibrate with: {error}") from error

    def evidence(
        self, held: Mapping[str, Evidence], anomaly: Callable[[Tensor], Tensor] | None
    ) -> tuple[dict[str, Evidence], dict[str, Evidence]]:
        """Evidence on chains: on all frames of the fit half, and on the threshold half's samples.

        Args:
            held: the threshold half's groups.
            anomaly: see `Replay`; None where nothing looks at single inputs.

        Returns:
            Without inputs, a group for each family; and `held`, with chains.
        """
        if anomaly is None:
            self._progress.console.print(
                "history: no other detector looks at inputs alone, so searches that begin with "
                "unusual inputs go unseen; add srm and high_frequency"
            )
        replay = Replay(anomaly or (lambda x: torch.zeros(len(x))), self._key)

        def look(frames: Tensor) -> Tensor:
            return replay(as_seen(self._spec, frames).to(self._device))

        every = self._first.chains(look, self._progress, whole=True)
        known = self._rest.chains(look, self._progress, whole=False)
        learned = {group: Evidence(torch.zeros(len(c), 1), chain=c) for group, c in every.items()}
        seen = {
            group: replace(e, chain=known[group]) if group in known else e
            for group, e in held.items()
        }
        return learned, unchained(seen)


def unchained(groups: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """The evidence, saying that no queries came before where nothing is known of any."""
    return {
        group: replace(e, chain=torch.zeros(len(e.x), len(FEATURES))) if e.chain is None else e
        for group, e in groups.items()
    }
