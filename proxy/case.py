"""What travels between the event loop and the device thread; free of torch at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from proxy.flow import SampleVerdict

if TYPE_CHECKING:
    from torch import Tensor

    from proxy.history.fingerprints import Prints

Buffer = bytes | memoryview

IDENTITY = "identity"
"""Name of the unchanged copy the proxy sends when the client's own answer cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """One request's image tensor as it came."""

    data: Buffer
    shape: tuple[int, ...]
    copies: bool
    """Whether the transformed copies for the detectors' views are wanted."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What the first pass over the pixels found: scores that need nothing else, and copies."""

    x: Tensor
    """(B, C, H, W) float32 in [0, 1] on the device."""
    scores: Mapping[str, Tensor]
    """Detector name -> (B,) float32, on the device."""
    copies: Mapping[str, bytes] = field(default_factory=dict)
    """View key -> the copies of all B samples as a raw wire tensor."""
    settled: tuple[SampleVerdict, ...] | None = None
    """Verdicts on all samples, where the input alone is evidence enough."""
    prints: Prints | None = None
    """For models whose queries are remembered."""


@dataclass(frozen=True, slots=True)
class Case:
    """All the evidence on one request."""

    glance: Glance
    output: npt.NDArray[np.float32] | None
    """(B, K), the model's answer."""
    views: Mapping[str, npt.NDArray[np.float32]]
    """View key -> (B, K)."""
    chain: npt.NDArray[np.float32] | None = None
    """(B, F), `Evidence.chain`; None where no history is kept."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """The samples of one request that are to be purified."""

    glance: Glance
    data: Buffer
    """The raw wire tensor they came in."""
    samples: tuple[int, ...]


Splice = bytes | Sequence[tuple[int, Buffer]]
"""A whole new tensor, or (byte offset, replacement) pairs within the old one."""
