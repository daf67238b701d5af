"""The section about everybody else: how many alarms does ordinary traffic raise?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors import benign
from detectors.benign_sequences import CALIBRATED, KINDS, UNSEEN, sequence
from loadtests.query_attacks.grpc_oracle import Identities, Principal
from loadtests.query_attacks.scene import Site
from loadtests.query_attacks.stage import Stage
from loadtests.query_attacks.tally import share
from tuning.batches import seeded

SEED = 4
MANY = 200
"""Principals."""
STATIC = "sensor"
"""A static camera: only its noise differs from frame to frame."""
MIXED = 20
"""Sequences that one principal sends a frame of each in turn."""


@dataclass(frozen=True)
class _Sent:
    """A sequence, or several, and what the sidecar made of it."""

    kind: str
    frames: int
    alarms: int


def benign_traffic(stage: Stage) -> None:
    """Independent images, then sequences of all kinds, a static camera, and sequences mixed."""
    images = iter(stage.scene.victim.ordinary)
    with stage.scene.site(action="flag", quarantine_minutes=0) as site:
        _independent(stage, site, images)
        _similar(stage, site, images)
        _streams(stage, site, images)


def _independent(stage: Stage, site: Site, images: Iterator[Tensor]) -> None:
    """Images, and each once more in a benign variation: by many principals, and by one."""
    count = stage.sizes.independent
    tick = stage.task("false: independent", 4 * count)
    generator = seeded(SEED, "independent")
    flags: list[bool] = []
    for clients in (MANY, 1):
        x = _taken(images, count)
        _, *groups = benign.variations(x, generator).values()  # all but the images themselves
        varied = torch.stack([groups[i % len(groups)][i] for i in range(count)])
        for what, batch in (("images", x), ("their variations", varied)):
            sent = _send(site, what, batch, _one_of(clients), tick)
            told = _flags([sent])
            flags += told
            stage.report.add(
                section="false",
                independent=what,
                principals=clients,
                queries=sent.frames,
                alarms=sent.alarms,
                **share(told, "share"),
                seed=SEED,
            )
    stage.percent("false alarms, independent, %", flags, "<= 0.1")


def _similar(stage: Stage, site: Site, images: Iterator[Tensor]) -> None:
    """Sequences of every kind, each of an image and a principal of its own."""
    sizes = stage.sizes
    tick = stage.task("false: sequences", len(KINDS) * sizes.sequences * sizes.frames)
    everything: list[_Sent] = []
    for kind in KINDS:
        sent = []
        for number, image in enumerate(_taken(images, sizes.sequences)):
            frames = sequence(kind, image, sizes.frames, seeded(SEED, kind, number))
            sent.append(_send(site, kind, frames, Identities(f"{kind}-{number}"), tick))
        _report(stage, kind, "calibrated" if kind in CALIBRATED else "unseen", sent)
        everything += sent
    for label, kinds in (("calibrated", CALIBRATED), ("unseen", UNSEEN)):
        some = [sent for sent in everything if sent.kind in kinds]
        _report(stage, "all", label, some)
        stage.percent(f"false alarms, similar, {label} kinds, %", _flags(some), "<= 0.5")
    stage.percent("false alarms, similar, %", _flags(everything), "<= 0.5")


def _streams(stage: Stage, site: Site, images: Iterator[Tensor]) -> None:
    """A static camera that films for long, and sequences by one principal all at once."""
    sizes = stage.sizes
    tick = stage.task("false: streams", sizes.static + MIXED * sizes.frames)
    frames = sequence(STATIC, next(images), sizes.static, seeded(SEED, "static"))
    sent = _send(site, STATIC, frames, Identities("static"), tick)
    _report(stage, f"{STATIC}, long", "calibrated", [sent])
    names = random.Random(SEED).sample(sorted(KINDS), MIXED)
    mixed = torch.stack(
        [
            sequence(kind, image, sizes.frames, seeded(SEED, "mixed", kind))
            for kind, image in zip(names, _taken(images, MIXED), strict=True)
        ],
        dim=1,
    )  # (frames, MIXED, C, H, W)
    sent = _send(site, "mixed", mixed.flatten(0, 1), Identities("mixed"), tick)
    _report(stage, f"{MIXED} mixed, one principal", "both", [sent])


def _one_of(clients: int) -> Principal:
    """Principals in turn."""
    return lambda number: f"independent-{clients}-{number % clients}"


def _taken(images: Iterator[Tensor], count: int) -> Tensor:
    """The next images; nobody else is sent them."""
    return torch.stack(list(itertools.islice(images, count)))


def _send(
    site: Site, kind: str, images: Tensor, principal: Principal, tick: Callable[[], None]
) -> _Sent:
    """Send images one after the other."""
    before = site.alarms
    with site.oracle(principal) as oracle:
        for image in images:
            oracle.ask(image.numpy())
            tick()
    return _Sent(kind, len(images), site.alarms - before)


def _flags(sent: Iterable[_Sent]) -> list[bool]:
    """Whether each query raised an alarm; the order means nothing."""
    return [
        flag for one in sent for flag in [True] * one.alarms + [False] * (one.frames - one.alarms)
    ]


def _report(stage: Stage, kind: str, of: str, sent: Sequence[_Sent]) -> None:
    stage.report.add(
        section="false",
        kind=kind,
        of=of,
        sequences=len(sent),
        frames=sum(one.frames for one in sent),
        alarms=sum(one.alarms for one in sent),
        **share(_flags(sent), "share"),
        sequences_alarmed=sum(one.alarms > 0 for one in sent),
        seed=SEED,
    )
