"""Captured requests once more, under another policy: what it would say and do.

Scored as the data plane scores them, by the same gatherer, one after the other. Nothing is sent
for the caller; the model server is asked what the detectors need to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy import policy
from proxy.batcher import Batcher
from proxy.budget import Budget
from proxy.capture.files import LONGEST_FACTS, unpack
from proxy.config import Config
from proxy.defences import Defences
from proxy.device import Device
from proxy.errors import ConfigError, DetectorFailed, ProxyError
from proxy.evidence import Gatherer
from proxy.flow import Flow
from proxy.history.history import History
from proxy.inspection import Inspection
from proxy.metrics import Metrics
from proxy.reader import Reader
from proxy.tasks import Tasks
from proxy.upstream import Upstream

LONGEST_S = 60.0
"""For one request; nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One request under both policies."""

    file: str
    request_id: str
    model: str
    before: tuple[str, str]
    """Verdict and action, as captured."""
    after: tuple[str, str]
    reason: str = ""
    """Why there is no verdict now, if so."""

    @property
    def differs(self) -> bool:
        """Whether the request would be treated otherwise."""
        return self.before != self.after


@dataclass(slots=True)
class Outcome:
    """What became of a folder."""

    replayed: list[Replayed] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be replayed, and why."""

    def to_json(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        names = ("file", "request_id", "model", "before", "after", "reason", "differs")
        return {
            "requests": [{n: getattr(each, n) for n in names} for each in self.replayed],
            "differing": sum(each.differs for each in self.replayed),
            "skipped": [{"file": file, "reason": reason} for file, reason in self.skipped],
        }


@dataclass(frozen=True, slots=True)
class _Request:
    file: str
    data: bytes
    facts: dict[str, Any]

    def said(self, name: str) -> str:
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


async def replay(folder: Path, config: Config, only: str | None) -> Outcome:
    """Judge the captured requests of a folder anew.

    Args:
        folder: of captures; files that are none are skipped and named.
        config: with the policies to try, and where the model server is.
        only: a model's name; None: all.

    Raises:
        ConfigError: the folder or a policy cannot be used, or the model server not be asked.
    """
    outcome = Outcome()
    names = _models(folder, config, only, outcome)
    if not names:
        return outcome
    models = {n: config.models[n].model_copy(update={"shadow": None}) for n in names}
    # Its own memory: what is replayed must not be held against callers.
    apart = config.history.model_copy(update={"shared": None})
    async with _judge(config.model_copy(update={"models": models, "history": apart})) as judge:
        for request in _requests(folder, config, None):
            if request.facts["model"] in names:
                await judge.look(request, outcome)
    return outcome


def _models(folder: Path, config: Config, only: str | None, outcome: Outcome) -> set[str]:
    """The models there is something to replay of; what cannot be replayed is noted."""
    names = set()
    for request in _requests(folder, config, outcome.skipped):
        name = request.said("model")
        if only is not None and name != only:
            continue
        if name not in config.models or not config.models[name].detectors:
            outcome.skipped.append((request.file, f"models.{name[:64]!r} has no detectors"))
        else:
            names.add(name)
    return names


def _requests(
    folder: Path, config: Config, skipped: list[tuple[str, str]] | None
) -> Iterator[_Request]:
    """Whole requests of a folder, oldest first."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}") from error
    for path in paths:
        try:
            yield _read(path, config.max_message_bytes)
        except (OSError, ValueError) as error:
            if skipped is not None:
                skipped.append((path.name, str(error) or "cannot be read"))


def _read(path: Path, longest: int) -> _Request:
    if path.suffix != ".capture" or path.is_symlink() or not path.is_file():
        raise ValueError("not a captured request")
    if path.stat().st_size > longest + LONGEST_FACTS:
        raise ValueError("larger than max_message_bytes")
    captured = unpack(path.read_bytes())
    if captured.kind != "full":
        raise ValueError(f"the request was not kept (inputs: {captured.kind})")
    return _Request(path.name, captured.payload, dict(captured.facts))


class _Judge:
    """Scores requests as the data plane does."""

    def __init__(self, defences: Defences, gatherer: Gatherer) -> None:
        self._defences, self._gatherer = defences, gatherer
        self._reader = Reader()

    async def look(self, request: _Request, outcome: Outcome) -> None:
        try:
            inspection = self._inspection(request)
        except ProxyError as error:
            outcome.skipped.append((request.file, f"not a request: {error}"))
            return
        flow, model, reason = inspection.flow, inspection.model, ""
        try:
            findings = await self._gatherer.gather(inspection, None)
            flow.samples = () if findings is None else findings.samples
            reason = policy.failure(flow.samples) or ""
        except DetectorFailed as failure:
            reason = failure.reason
        except ProxyError as error:
            reason = str(error)
        verdict = "failed" if reason and not flow.samples else str(flow.verdict or "none")
        action = "none"
        if model.mode == "enforce":
            decided = policy.decide(
                *(flow.samples, model),
                in_sequence=inspection.must_go_on,
                quarantined=flow.quarantined,
            )
            action = "refuse" if reason and model.on_failure == "closed" else str(decided)
        before = request.said("verdict"), request.said("action")
        outcome.replayed.append(
            Replayed(
                *(request.file, request.said("request_id"), flow.model, before),
                after=(verdict, action),
                reason=reason,
            )
        )

    def _inspection(self, captured: _Request) -> Inspection:
        request, known = self._reader.read(captured.data)
        name = captured.said("model")
        defence = self._defences.find(name)
        self._reader.validate(request, known=known, non_finite=defence.non_finite)
        assert defence.model is not None  # noqa: S101 (only configured models come here)
        flow = Flow(
            *(captured.said("request_id"), 0.0, None, captured.said("principal")),
            model=name,
            version=request.common.version,
        )
        budget = Budget(LONGEST_S)
        return Inspection(flow, defence, defence.model, request, None, budget, LONGEST_S)


@asynccontextmanager
async def _judge(config: Config) -> AsyncIterator[_Judge]:
    """What scores with these policies, in front of the model server."""
    metrics, tasks = Metrics(), Tasks()
    history = History(config.history, metrics)
    defences = Defences(config, metrics, history.salts)
    upstream = Upstream(
        config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
    )
    batcher = Batcher(
        max_batch=config.batching.max_batch,
        window_s=0.0,
        capacity=config.batching.queue,
        company=lambda: 0,
        on_batch=lambda samples, waiting: None,
    )
    try:
        await history.start()
        await _describe(defences, upstream, config)
        gatherer = Gatherer(Device(batcher), upstream, tasks)
        gatherer.history = history
        yield _Judge(defences, gatherer)
    finally:
        await tasks.stop()
        await history.close()
        await batcher.close()
        await upstream.close()


async def _describe(defences: Defences, upstream: Upstream, config: Config) -> None:
    where = f"the model server at {config.upstream} (--upstream)"
    try:
        await defences.refresh(upstream)
    except ProxyError as error:
        raise ConfigError(f"{where} cannot be asked about its models: {error}") from error
    lacking: Sequence[str] = [d.name for d in defences.models() if not d.is_ready]
    if lacking:
        raise ConfigError(f"{where} cannot be asked about {', '.join(lacking)}: see the log")
