"""What running sidecars serve, how long it takes and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import uvloop
from torch import Tensor

from proxy import rpc
from proxy.errors import ProxyError
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Upstream
from tuning.evaluate.endpoint import Client, Site, message
from tuning.evaluate.figures import share
from tuning.evaluate.recording import Recording
from tuning.evaluate.samples import ATTACK, BENIGN, OOD
from tuning.evaluate.store import Row
from tuning.evaluate.subject import Subject
from tuning.load import Client as LoadClient
from tuning.load import Load
from tuning.processes import cpu_s

_ROUNDS = 3
"""The undefended and each action are timed in turn: what disturbs one disturbs the other."""
_WARM = 10


@dataclass(frozen=True)
class Chosen:
    """Some images of one set, to be sent."""

    name: str
    threat: str
    x: Tensor
    y: Tensor
    flagged: Tensor
    """By the scores recorded, (N,) bool."""


def chosen(recording: Recording, subject: Subject, count: int) -> list[Chosen]:
    """The first images of the clean set, and of each attack those that fool the model."""
    found = []
    for key, each in recording.sets.items():
        role, _, name = key.partition("/")
        if each.images.y is None or not (role == ATTACK or key == f"{BENIGN}/clean"):
            continue
        rows = each.kept.nonzero()[:count, 0]
        fused = each.fused(subject.rule, recording.detectors)[rows]
        flagged = fused > subject.rule.threshold.value
        images = each.images
        assert images.y is not None  # noqa: S101 (looked above)
        found.append(Chosen(name, images.threat, images.x[rows], images.y[rows], flagged))
    return [each for each in found if len(each.x)]


def served_rows(subject: Subject, site: Site, sets: Sequence[Chosen]) -> list[Row]:
    """What one site serves for each set, and how often it judges as the scores recorded say."""
    task = subject.progress.add_task(f"served: {site.action}", total=len(sets))
    rows: list[Row] = []
    agreed: list[bool] = []
    with Client(site, subject.spec, "evaluate") as client:
        for each in sets:
            replies = [client.send(x, f"evaluate-{each.name}-{i}") for i, x in enumerate(each.x)]
            answers = [-1 if r.scores is None else int(r.scores.argmax()) for r in replies]
            told = torch.tensor(answers)
            verdicts = [reply.verdict for reply in replies]
            row: Row = {"kind": "served", "action": site.action, "name": each.name}
            row |= {"threat": each.threat, "samples": len(told)}
            row |= share("right", told == each.y)
            row |= share("wrong_served", (told != each.y) & (told >= 0))
            row |= share("refused", told < 0)
            if any(verdicts):
                flags = torch.tensor([verdict == "suspicious" for verdict in verdicts])
                agreed += (flags == each.flagged).tolist()
                row |= share("flagged", flags) | share("agreement", flags == each.flagged)
                row["failed"] = verdicts.count("failed")
            rows.append(row)
            subject.progress.advance(task)
    if agreed:
        head: Row = {"kind": "served", "action": site.action, "name": "all", "samples": len(agreed)}
        rows.append(head | share("agreement", torch.tensor(agreed)))
    return rows


def latency_rows(
    subject: Subject, every: Sequence[Site], images: Mapping[str, Tensor], count: int
) -> list[Row]:
    """Latency, added latency, CPU and calls to the model of each action.

    Args:
        every: undefended first.
        images: `clean` and `attacked` -> what is sent, one image a request.
        count: requests of each kind.
    """
    rows: list[Row] = []
    task = subject.progress.add_task("latency", total=len(images) * (len(every) - 1))
    for traffic, x in images.items():
        messages = [message(subject.spec, one) for one in x]
        for site in every[1:]:
            subject.progress.update(task, description=f"latency: {site.action}, {traffic}")
            rows += _timed(subject, every[0], site, traffic, messages, count)
            subject.progress.advance(task)
    return rows


@dataclass
class _Tally:
    """What one site took over all rounds."""

    latency_ms: list[float]
    errors: int = 0
    cpu_s: float = 0.0
    calls: int | None = 0
    samples: int | None = 0

    def percentile(self, percent: float) -> float | None:
        return float(np.percentile(self.latency_ms, percent)) if self.latency_ms else None


def _timed(
    subject: Subject,
    bare: Site,
    site: Site,
    traffic: str,
    messages: Sequence[bytes],
    count: int,
) -> list[Row]:
    own, other = _Tally([]), _Tally([])
    for _ in range(_ROUNDS):
        for where, tally in ((bare, other), (site, own)):
            _round(subject, where, messages, -(-count // _ROUNDS), tally)
    asked = len(own.latency_ms) + own.errors
    head: Row = {"action": site.action, "traffic": traffic, "samples": asked}
    latency: Row = {"kind": "latency", **head}
    for percent in (50, 99):
        value, base = own.percentile(percent), other.percentile(percent)
        latency[f"p{percent}_ms"] = _rounded(value)
        latency[f"pass_through_p{percent}_ms"] = _rounded(base)
        known = value is not None and base is not None
        latency[f"added_p{percent}_ms"] = _rounded(value - base) if known else None  # type: ignore[operator]
    late = [ms > subject.model.budget_ms for ms in own.latency_ms]
    latency["over_budget"] = round(sum(late) / len(late), 4) if late else None
    latency["refused"] = round(own.errors / asked, 4)
    cost: Row = {"kind": "cost", **head}
    cost["cpu_ms"] = None if site.pid is None else _rounded(1000 * own.cpu_s / asked)
    cost["pass_through_cpu_ms"] = None if bare.pid is None else _rounded(1000 * other.cpu_s / asked)
    cost["upstream_calls"] = None if own.calls is None else round(own.calls / asked, 3)
    cost["upstream_samples"] = None if own.samples is None else round(own.samples / asked, 3)
    return [latency, cost]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _round(
    subject: Subject, site: Site, messages: Sequence[bytes], count: int, tally: _Tally
) -> None:
    before = subject.ask(lambda upstream: _counted(upstream, subject.name))
    spent = cpu_s(site.pid) if site.pid is not None else 0.0
    load = uvloop.run(_sent(site, messages, count))
    if site.pid is not None:
        tally.cpu_s += cpu_s(site.pid) - spent
    after = subject.ask(lambda upstream: _counted(upstream, subject.name))
    tally.latency_ms += load.latency_ms.tolist()
    tally.errors += load.errors
    if before is None or after is None or tally.calls is None or tally.samples is None:
        tally.calls = tally.samples = None
    else:
        tally.calls += after[0] - before[0]
        tally.samples += after[1] - before[1]


async def _sent(site: Site, messages: Sequence[bytes], count: int) -> Load:
    async with LoadClient(site.address, messages, connections=1) as client:
        return await client.one_at_a_time(count, pause_s=0.001)


async def _counted(upstream: Upstream, model: str) -> tuple[int, int] | None:
    """Calls and samples the model server has answered so far; None where it does not say."""
    try:
        answer = await upstream.call(
            rpc.RPCS["ModelStatistics"].path,
            pb.ModelStatisticsRequest(name=model).SerializeToString(),
            timeout_s=10.0,
        )
    except ProxyError:
        return None
    stats = pb.ModelStatisticsResponse.FromString(answer.data).model_stats
    return (
        sum(each.inference_stats.success.count for each in stats),
        sum(each.inference_count for each in stats),
    )


def timed_images(recording: Recording, count: int = 60) -> dict[str, Tensor]:
    """Clean images, and a mix of what fools the model; images of no class where nothing does."""
    clean = recording.sets[f"{BENIGN}/clean"].images.x[:count]
    attacks = [each.images.x[each.kept] for each in recording.of(ATTACK).values()]
    attacks = [x for x in attacks if len(x)]
    if not attacks:
        return {"clean": clean, "no class": next(iter(recording.of(OOD).values())).images.x}
    each = max(1, count // len(attacks))
    return {"clean": clean, "attacked": torch.cat([x[:each] for x in attacks])[:count]}
