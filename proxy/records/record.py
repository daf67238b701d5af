"""One scored sample as operators see it: facts and numbers, never the input itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from proxy.flow import Flow, SampleVerdict, Verdict

Label = Literal["", "benign", "adversarial"]
"""What an operator says a sample is; empty: nothing."""
LABELS: tuple[Label, ...] = get_args(Label)

MAX_TEXT = 256
"""Characters kept of any text a client chose."""
MAX_SAMPLES = 64
"""Samples of one request that become records; a batch must not crowd out everything else."""

_NUMBERS = ("score", "threshold")
_MAPPINGS = ("scores", "p_values")


@dataclass(frozen=True, slots=True)
class Record:
    """One scored sample."""

    id: str
    """`REQUEST_ID:INDEX`, the request's id as in the audit log and the sample's place in it."""
    time_s: float
    """When the request finished, Unix time."""
    model: str
    version: str
    """As the client asked for it; often empty."""
    principal: str
    client_id: str
    """The request's own `id` field."""
    verdict: str
    score: float
    """Fused score, NaN when the verdict is `failed`."""
    threshold: float
    scores: Mapping[str, float] = field(default_factory=dict)
    """Raw score per detector that looked."""
    p_values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Which detector weighs most, or why there is no verdict."""
    chain: int = 0
    """Queries in the series that raised an alarm."""
    alarm: bool = False
    """The sample is part of such a series."""
    quarantined: bool = False
    """Earlier queries of the principal raised an alarm."""
    failure: str = ""
    """Why the request got no verdict, if so."""
    action: str = "none"
    outcome: str = ""
    """`ok`, `observed`, or the kind of the error the request ended with."""
    streamed: bool = False
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by stage; with mode observe there is no `total`."""
    label: Label = ""
    shadow: str = ""
    """Verdict of the shadow policy where it would decide otherwise; with the same verdict, it would
    act otherwise. Empty where it agrees, was not asked, or there is none."""
    thumbnail: str = ""
    """PNG of at most 64 x 64 pixels in base64; empty unless `records.thumbnails` is on."""

    def to_json(self) -> dict[str, Any]:
        """The fields, ready for JSON: what it has no number for is None."""
        found = asdict(self)
        for name in _NUMBERS:
            found[name] = _number(found[name])
        for name in _MAPPINGS:
            found[name] = {key: _number(value) for key, value in found[name].items()}
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; fields of later versions are ignored.

        Raises:
            ValueError: a field is missing.
        """
        known = {each.name: value[each.name] for each in fields(cls) if each.name in value}
        for name in _NUMBERS:
            known[name] = _float(known.get(name))
        for name in _MAPPINGS:
            known[name] = {key: _float(each) for key, each in known.get(name, {}).items()}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from None


def is_notable(flow: Flow) -> bool:
    """Whether an operator should hear of a finished request at once."""
    if not flow.samples:
        return False
    return flow.verdict is not Verdict.PASS or is_marked(flow)


def is_marked(flow: Flow) -> bool:
    """Whether a request belongs to a series of queries, whatever its samples look like."""
    return bool(flow.chain or flow.quarantined)


def notable_samples(flow: Flow) -> list[int]:
    """Which samples of a notable request to show; all where it is the request that is notable."""
    found = [
        index
        for index, sample in enumerate(flow.samples)
        if sample.verdict is not Verdict.PASS or sample.alarm
    ]
    return (found or list(range(len(flow.samples))))[:MAX_SAMPLES]


def record_of(flow: Flow, index: int, time_s: float, *, thumbnail: str = "") -> Record:
    """The record of one sample of a finished request."""
    sample: SampleVerdict = flow.samples[index]
    return Record(
        id=f"{flow.request_id}:{index}",
        time_s=round(time_s, 3),
        model=flow.model[:MAX_TEXT],
        version=flow.version[:MAX_TEXT],
        principal=flow.principal[:MAX_TEXT],
        client_id=flow.client_id[:MAX_TEXT],
        verdict=sample.verdict.value,
        score=sample.score,
        threshold=sample.threshold,
        scores=dict(sample.scores),
        p_values=dict(sample.p_values),
        reason=sample.reason[:MAX_TEXT],
        chain=flow.chain,
        alarm=sample.alarm,
        quarantined=flow.quarantined,
        failure=flow.failure,
        action=flow.action.value,
        outcome=flow.outcome,
        streamed=flow.streamed,
        stage_ms={stage: round(1000 * seconds, 3) for stage, seconds in flow.stage_s.items()},
        shadow=flow.shadow.get(index, ""),
        thumbnail=thumbnail,
    )


def label_of(text: object) -> Label:
    """The label that a text names.

    Raises:
        ValueError: it names none.
    """
    if text not in LABELS:
        raise ValueError('label must be "benign", "adversarial", or "" to take it back')
    return text


def total_ms(stage_s: Mapping[str, float]) -> float:
    """A request's whole time, or where it was scored beside the traffic, that of its scoring."""
    whole = stage_s.get("total")
    return 1000 * (sum(stage_s.values()) if whole is None else whole)


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
