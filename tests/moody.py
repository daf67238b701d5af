"""A detector that fails when told to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from detectors import DETECTORS
from detectors.base import Detector, Evidence, Need
from proxy.config import Config
from tests.images import CLEAN
from tuning.calibrate import run as calibrate


class Moody(Detector):
    """The brightness; raises for, or cannot tell, images marked in their first row."""

    name: ClassVar[str] = "moody"
    needs: ClassVar[Need] = Need.INPUT

    def _score(self, evidence: Evidence) -> torch.Tensor:
        mark = evidence.x[:, 0, 0]  # (B, W)
        if (mark == 1).all(dim=1).any():
            raise ZeroDivisionError("moody")
        scores = evidence.x.mean(dim=(1, 2, 3))
        return torch.where((mark == 0).all(dim=1), torch.tensor(math.nan), scores)


def marked(value: float) -> NDArray[np.float32]:
    """A clean image on which `moody` raises (1) or has no answer (0)."""
    x = CLEAN[:1].copy()
    x[:, 0, 0] = value
    return x


@contextmanager
def registered(triton_address: str, data: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Fields of digits_like that defend it with this detector, calibrated; inside only."""
    parts = {"detectors": ({"name": "residual"}, {"name": "moody"}), "calibration": folder}
    config = Config.model_validate(
        {"upstream": triton_address, "models": {"digits_like": {**parts, "fpr": 0.05}}}
    )
    DETECTORS["moody"] = Moody
    try:
        with (folder.parent / "log").open("w") as log:
            calibrate(config, "digits_like", data, console=Console(file=log))
        yield parts
    finally:
        del DETECTORS["moody"]
