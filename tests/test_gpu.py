"""The same numbers on a GPU: purifiers, detectors, calibration and the whole scorer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch

from detectors import DETECTORS, Evidence, build
from detectors.benign import variations
from detectors.calibration import Calibration
from proxy.memory_ladder import MemoryLadder, Pass
from purifiers import PURIFIERS
from purifiers import build as build_purifier

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")


def images(count: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def evidence(x: torch.Tensor, keys: list[str], device: torch.device) -> Evidence:
    generator = torch.Generator().manual_seed(1)

    def answer() -> torch.Tensor:
        return (4 * torch.randn(len(x), 10, generator=generator)).to(device)

    return Evidence(x.to(device), answer(), {key: answer() for key in keys})


@pytest.mark.parametrize("name", sorted(PURIFIERS))
def test_purifiers(name: str) -> None:
    purifier = build_purifier(name)
    x = images()
    clean = purifier.purify(x.to(CUDA))
    assert clean.device.type == "cuda"
    # A coefficient on the edge between two quantisation steps may fall to either side.
    differing = (clean.cpu() - purifier.purify(x)).abs() > 1e-4
    assert differing.float().mean() < 0.01


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detectors(name: str) -> None:
    detector, moved = build(name), build(name)
    keys = [view.key for view in detector.views]
    groups = variations(images(), torch.Generator().manual_seed(0))
    detector.fit({g: evidence(x, keys, torch.device("cpu")) for g, x in groups.items()})
    moved.load_state(detector.state(), CUDA)
    x = images(7, seed=3)
    there = moved.score(evidence(x, keys, CUDA))
    assert there.device.type == "cuda"
    here = detector.score(evidence(x, keys, torch.device("cpu")))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


def test_calibration() -> None:
    rng = np.random.default_rng(0)
    groups = {
        group: {name: torch.from_numpy(rng.normal(size=300)).float() for name in ("a", "b")}
        for group in ("clean", "noise")
    }
    here = Calibration.fit(groups)
    there = Calibration.from_tensors(here.tensors(), here.meta(), CUDA)
    scores = {name: torch.linspace(-3, 6, 9) for name in ("a", "b")}
    moved = {name: score.to(CUDA) for name, score in scores.items()}
    rules = [subject.rule([["a"], ["a", "b"]], 0.05) for subject in (there, here)]
    torch.testing.assert_close(rules[0].score(moved).cpu(), rules[1].score(scores))
    for name, p in there.p_values(moved).items():
        torch.testing.assert_close(p.cpu(), here.p_values(scores)[name])
    assert rules[0].threshold == rules[1].threshold


def test_a_batch_that_does_not_fit_is_halved_and_runs_on_the_cpu_in_the_end() -> None:
    told: list[str] = []
    now_s = [0.0]
    ladder = MemoryLadder(told.append, cool_down_s=30.0, now=lambda: now_s[0])
    purifier = build_purifier("median")

    def clean_on(device: torch.device, items: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [purifier.purify(x.to(device)).sum().cpu() for x in items]

    work: Pass[torch.Tensor, torch.Tensor] = Pass(
        "purify", len, partial(clean_on, CUDA), partial(clean_on, torch.device("cpu"))
    )
    small, large = images(2), torch.rand(64, 3, 512, 512)
    try:
        torch.cuda.set_per_process_memory_fraction(1e-3)
        found = ladder.run(work, [small, large])
        assert set(told) == {"smaller_batch", "cpu"}
        torch.testing.assert_close(found[0], purifier.purify(small).sum(), rtol=1e-3, atol=1e-3)
        told.clear()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    now_s[0] = 30.0
    ladder.run(work, [small, large])
    assert told == []
