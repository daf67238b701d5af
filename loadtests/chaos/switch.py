"""A plug-in detector that fails on command: a real detector otherwise, and never suspicious."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detectors import Detector, Evidence, Need

NAME = "chaos_switch"
VARIABLE = "BREAKWATER_CHAOS_SWITCH"
"""Environment variable with the file that commands it."""

LONG_S = 300.0
"""How long it hangs, where it is to hang and is not told to stop."""

_POLL_S = 0.05


class Switch(Detector):
    """The mean grey of an image, or whatever trouble a file asks for.

    The file holds one word: `raise`, `cuda`, `memory`, `hang`, `nan`, or nothing.
    """

    name: ClassVar[str] = NAME
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def __init__(self) -> None:
        # Opened once: it is to fail when it is told to, and not when descriptors are short.
        path = os.environ.get(VARIABLE)
        self._file = None if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn nothing."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore nothing."""

    def _score(self, evidence: Evidence) -> Tensor:
        word = self._word()
        grey = evidence.x.flatten(1).mean(1)
        if word == "raise":
            raise RuntimeError("the detector was told to fail")
        if word == "cuda":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if word == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if word == "nan":
            return grey * float("nan")
        if word == "hang":
            self._hang()
        return grey

    def _hang(self) -> None:
        until_s = time.monotonic() + LONG_S
        while self._word() == "hang" and time.monotonic() < until_s:
            time.sleep(_POLL_S)

    def _word(self) -> str:
        return "" if self._file is None else os.pread(self._file, 100, 0).decode().strip()
