"""A scorer that is warm from the first, and gets by with little memory."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import detectors
from detectors import Evidence
from detectors.residual import Residual
from proxy.adapt import ModelSpec
from proxy.artifacts import Artifact, load
from proxy.batcher import Batcher
from proxy.case import Case, Glance, Pixels, Suspects
from proxy.config import Model
from proxy.engine import Engine, on_cpu
from proxy.memory_ladder import MemoryLadder
from proxy.weights import Plan, Trained, Training
from tests.defended import settings_of
from tests.images import benign, tampered
from tests.proxy.test_tensors import FILES, SPEC

pytestmark = pytest.mark.triton  # the calibrations come from the models it serves

CPU = torch.device("cpu")
SHAPE = (-1, 3, 32, 32)
CLEAN = benign(8, seed=77)


class Tight(Residual):
    """The residual on a device with room for few samples."""

    room: ClassVar[int] = 1000
    passes: ClassVar[list[int]] = []

    def _score(self, evidence: Evidence) -> Tensor:
        self.passes.append(len(evidence.x))
        if len(evidence.x) > self.room:
            raise torch.OutOfMemoryError(f"{len(evidence.x)} samples, room for {self.room}")
        return super()._score(evidence)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(detectors.DETECTORS, "residual", Tight)
    monkeypatch.setattr(Tight, "room", 1000)
    Tight.passes.clear()


def engine(
    calibrations: Path,
    spec: ModelSpec = SPEC,
    name: str = "digits_like",
    told: list[str] | None = None,
    timed: list[str] | None = None,
    **fields: Any,
) -> Engine:
    model = Model.model_validate(settings_of(calibrations, {name: fields})[name])
    return Engine(
        *(spec, model, load(calibrations / name, name, model, CPU), CPU),
        lambda detector, seconds: [] if timed is None else timed.append(detector),
        ladder=MemoryLadder(([] if told is None else told).append),
    )


def pixels(x: np.ndarray) -> Pixels:
    return Pixels(x.tobytes(), x.shape, copies=False)


async def test_requests_that_do_not_fit_together_are_scored_in_parts(calibrations: Path) -> None:
    told: list[str] = []
    subject = engine(calibrations, told=told)
    Tight.room = 3
    batcher = Batcher(
        max_batch=32,
        window_s=10.0,
        capacity=32,
        company=lambda: 8,
        on_batch=lambda samples, waiting: None,
    )
    try:
        found = await asyncio.gather(
            *(batcher.submit("look", pixels(x[None]), subject.look) for x in CLEAN)
        )
    finally:
        await batcher.close()
    glances = [glance for glance, _ in found]
    assert all(
        torch.equal(g.x[0], torch.from_numpy(x)) for g, x in zip(glances, CLEAN, strict=True)
    )
    assert Tight.passes == [8, 4, 2, 2, 4, 2, 2]
    assert set(told) == {"smaller_batch"}


def test_the_verdicts_are_those_of_the_whole_batch(calibrations: Path) -> None:
    subject = engine(calibrations)
    x = [*CLEAN[:3], *tampered(CLEAN)[3:6]]

    def verdicts() -> list[Any]:
        glances = subject.look([pixels(each[None]) for each in x])
        return subject.judge([Case(g, None, {}) for g in glances if isinstance(g, Glance)])

    whole = verdicts()
    Tight.room = 1
    parts = verdicts()
    for a, b in zip(whole, parts, strict=True):
        assert a[0].verdict == b[0].verdict
        assert a[0].score == pytest.approx(b[0].score, rel=1e-4)


def test_purifying_falls_too(calibrations: Path) -> None:
    subject = engine(calibrations, action="purify", purifiers=[{"name": "median"}])
    glances = subject.look([pixels(CLEAN[:2]), pixels(CLEAN[2:])])
    items = [
        Suspects(glance, x.tobytes(), (0, 1))
        for glance, x in zip(glances, (CLEAN[:2], CLEAN[2:]), strict=True)
        if isinstance(glance, Glance)
    ]
    first, second = subject.purification.purify(items)
    assert [offset for offset, _ in first] == [0, 4 * 3 * 32 * 32]
    assert len(second) == 2


# -- warming up ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        pytest.param({}, "digits_like", id="pixels"),
        pytest.param({"shape": SHAPE, "datatype": "FP16"}, "digits_like_fp16", id="half"),
    ],
)
def test_a_warm_engine_has_run_and_told_nothing(
    calibrations: Path, spec: dict[str, Any], name: str
) -> None:
    timed: list[str] = []
    subject = engine(calibrations, replace(SPEC, **{"shape": SHAPE, **spec}), name, timed=timed)
    subject.warm_up((1, 4))
    assert Tight.passes == [1, 4]
    assert timed == []
    half = name == "digits_like_fp16"
    subject.look([pixels(CLEAN[:1].astype("f2" if half else "f4"))])
    assert timed == ["residual"]


def test_models_that_take_files_are_warmed_with_files(calibrations: Path) -> None:
    subject = engine(calibrations, replace(FILES, size=(32, 32), max_pixels=2000), "encoded")
    subject.warm_up((2,))
    assert Tight.passes == [2]


def test_unknown_shapes_and_too_large_batches_stay_cold(calibrations: Path) -> None:
    engine(calibrations).warm_up()
    assert Tight.passes == []
    engine(calibrations, replace(SPEC, shape=SHAPE, max_batch=4)).warm_up((1, 8))
    assert Tight.passes == [1]


def test_what_fails_to_warm_up_is_no_reason_not_to_start(
    calibrations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Tight.room = 0
    engine(calibrations, replace(SPEC, shape=SHAPE)).warm_up((1,))
    assert "not warmed up: 1 samples, room for 0" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


# -- the calibration on the CPU --------------------------------------------------------------------


def test_networks_are_copied_without_memory_of_the_device(calibrations: Path) -> None:
    model = Model.model_validate(settings_of(calibrations, {"digits_like": {}})["digits_like"])
    artifact: Artifact = load(calibrations / "digits_like", "digits_like", model, CPU)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    plan = Plan.model_construct()
    trained = Trained(network, Training.model_construct(plan=plan))
    moved = on_cpu(replace(artifact, networks={"n": trained})).networks["n"].network
    assert moved is not network
    assert type(moved[1]) is nn.BatchNorm2d  # type: ignore[index]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(moved(x), network(x))
