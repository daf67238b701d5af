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

    from proxy.cascade import Stand
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
    left_out: frozenset[str] = frozenset()
    """Detectors to do without; the same for all requests of a pass."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What has been found out about one request, and what to ask about it next."""

    x: Tensor
    """(B, C, H, W) float32 in [0, 1] on the device."""
    copies: Mapping[str, Buffer] = field(default_factory=dict)
    """View key -> the copies of the samples in doubt as a raw wire tensor."""
    settled: tuple[SampleVerdict, ...] | None = None
    """Verdicts on all samples, where none is in doubt any more."""
    prints: Prints | None = None
    """For models whose queries are remembered."""
    stand: Stand | None = None
    """How far the judgement has come."""
    known: Mapping[str, float] = field(default_factory=dict)
    """Detector -> score so far, where there is but one sample; see `proxy.quick`."""
    queries: bool = False
    """Whether it goes on with answers to copies and of other models. Otherwise the model's own
    answer may be enough."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """The other models to ask then, by the key of the answer."""
    left_out: frozenset[str] = frozenset()
    """Detectors that were done without."""
    statistics: npt.NDArray[np.float32] | None = None
    """Of the inputs, (B, S), as `detectors.input_statistics` names them; NaN for those that were
    not measured, None where none was."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The samples in doubt."""
        return tuple(range(len(self.x))) if self.stand is None else self.stand.rows


@dataclass(frozen=True, slots=True)
class Case:
    """All the evidence on one request."""

    glance: Glance
    output: npt.NDArray[np.float32] | None
    """(B, K), the model's answer; of samples that are not in doubt, it may be NaN."""
    views: Mapping[str, npt.NDArray[np.float32]]
    """View key -> (D, K), of the D samples in doubt."""
    chain: npt.NDArray[np.float32] | None = None
    """(B, F), `Evidence.chain`; None where no history is kept."""
    more: bool = False
    """Whether answers to copies can still be had for samples that stay in doubt. Otherwise the
    verdict rests on what is there."""
    lacks: str = ""
    """Why some evidence is missing that should be there (a DetectorFailed reason), if so. Such a
    case can show that a sample is suspicious, and not that it is clean."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """The samples of one request that are to be purified."""

    glance: Glance
    data: Buffer
    """The raw wire tensor they came in."""
    samples: tuple[int, ...]


Splice = bytes | Sequence[tuple[int, Buffer]]
"""A whole new tensor, or (byte offset, replacement) pairs within the old one."""
