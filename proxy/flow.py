"""The facts of one request, and the words for what is decided about it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from proxy.errors import ProxyError


class Verdict(StrEnum):
    """What the evidence says about one sample."""

    PASS = "pass"  # noqa: S105
    SUSPICIOUS = "suspicious"
    FAILED = "failed"


class Action(StrEnum):
    """What is done with a request. `NONE` is what a clean request gets."""

    NONE = "none"
    FLAG = "flag"
    PURIFY = "purify"
    DECOY = "decoy"
    BLOCK = "block"


def new_request_id() -> str:
    """A name no other request has, not a secret: 128 random bits, in hexadecimal."""
    return f"{random.getrandbits(128):032x}"


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """The verdict on one sample of a batched request."""

    verdict: Verdict
    score: float
    """Fused score; comparable with `threshold` only. NaN when FAILED."""
    threshold: float
    p_values: Mapping[str, float]
    """Conformal p-value per detector, (0, 1]."""
    reason: str = ""
    """Why FAILED (a DetectorFailed reason), or which detector weighs most."""
    alarm: bool = False
    """The sample is part of a series of queries that looks like an attack."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Raw score per detector, of those in `p_values`; higher = more suspicious."""


_Metadata = Sequence[tuple[str, str | bytes]]


class Trace(Protocol):
    """Records where a request's time goes, for whoever follows it through several systems."""

    def stage(self, name: str, started_s: float) -> None:
        """A stage that has just ended, and when it began."""

    def queued(self, seconds: float) -> None:
        """Of the stage that is about to end, this much at its start was spent in a queue."""

    def note(self, key: str, value: str) -> None:
        """A fact of the request that the flow does not keep."""

    def failed(self, error: ProxyError) -> None:
        """What the request ends with."""

    def calling(self, purpose: str) -> AbstractContextManager[_Metadata]:
        """A call to the model server while inside; gives the metadata to send along."""

    def message(self, arrival_s: float) -> Trace | None:
        """Of one message of this stream; None where it is not recorded."""

    def beside(self, name: str) -> Trace | None:
        """Of work on the request that may outlast it; None where it is not recorded."""

    def finish(self, flow: Flow) -> None:
        """The request is over."""


@dataclass(slots=True)
class Flow:
    """One inference request on its way through the pipeline; times are `time.monotonic()`."""

    request_id: str
    """Made by the proxy; appears in the audit log and, with `annotate`, in trailing metadata."""
    arrival_s: float
    deadline_s: float | None
    principal: str
    streamed: bool = False
    model: str = ""
    version: str = ""
    client_id: str = ""
    """The request's own `id` field."""
    samples: tuple[SampleVerdict, ...] = ()
    chain: int = 0
    """Queries in the series that raised an alarm."""
    quarantined: bool = False
    """The principal's earlier queries raised an alarm."""
    action: Action = Action.NONE
    failure: str = ""
    """Why no verdict was reached (a DetectorFailed reason), if so."""
    unscored: str = ""
    """Why the request was passed without being scored, if that was so."""
    outcome: str = ""
    """`ok`, or the `kind` of the error the request ended with."""
    annotations: tuple[tuple[str, str], ...] = ()
    """Trailing metadata for the caller, where the policy wants it told."""
    pixels: Tensor | None = None
    """The samples as they were scored, (B, C, H, W), while thumbnails may be made of them."""
    request: bytes | None = None
    """The message as it was inspected, while it may be captured."""
    statistics: npt.NDArray[np.float32] | None = None
    """Of the samples' inputs, (B, S), where drift is watched; see `Glance.statistics`."""
    classes: npt.NDArray[np.int64] | None = None
    """The model's own answer by sample, (B,), where it was looked at; -1: not at this one's."""
    shadow: Mapping[int, str] = field(default_factory=dict)
    """What a shadow policy says of the samples that it disagrees on; perhaps after the end."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent by stage: read, queue, score, views, purify, upstream, pace, total."""
    waited_s: float = 0.0
    """Of these, those of the client's own call to the model server: of the message in its place
    where that was purified, since then the first would not have been made."""
    bytes_in: int = 0
    bytes_out: int = 0
    trace: Trace | None = None
    """Set while the request is being recorded, with tracing configured."""

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict over the samples, or None when the request was not scored."""
        verdicts = {sample.verdict for sample in self.samples}
        for worst in (Verdict.SUSPICIOUS, Verdict.FAILED, Verdict.PASS):
            if worst in verdicts:
                return worst
        return None

    def calling(
        self, purpose: str, metadata: _Metadata | None
    ) -> AbstractContextManager[_Metadata | None]:
        """A call to the model server while inside; gives the metadata to send along.

        Args:
            purpose: `upstream` for the client's own request; what a query of the proxy's is for.
            metadata: what goes along where the request is not recorded.
        """
        return nullcontext(metadata) if self.trace is None else self.trace.calling(purpose)

    def left_s(self, longest_s: float) -> float:
        """Seconds the model server may still take; `longest_s` where the client has no deadline."""
        if self.deadline_s is None:
            return longest_s
        return max(0.0, self.deadline_s - time.monotonic())
