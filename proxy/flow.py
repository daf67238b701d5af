"""The facts of one request, and the words for what is decided about it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
    shadow: Mapping[int, str] = field(default_factory=dict)
    """What a shadow policy says of the samples that it disagrees on; perhaps after the end."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent by stage: read, queue, score, views, purify, upstream, total."""
    waited_s: float = 0.0
    """Of these, those of the client's own call to the model server: of the message in its place
    where that was purified, since then the first would not have been made."""
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict over the samples, or None when the request was not scored."""
        verdicts = {sample.verdict for sample in self.samples}
        for worst in (Verdict.SUSPICIOUS, Verdict.FAILED, Verdict.PASS):
            if worst in verdicts:
                return worst
        return None

    def left_s(self, longest_s: float) -> float:
        """Seconds the model server may still take; `longest_s` where the client has no deadline."""
        if self.deadline_s is None:
            return longest_s
        return max(0.0, self.deadline_s - time.monotonic())
