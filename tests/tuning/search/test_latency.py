"""Latency predicted from anchors, on costs whose law is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.tuning.search import scene
from tuning.search.latency import BARE, Paths, anchors, cost, light_set
from tuning.search.outcome import Outcome
from tuning.search.space import Action, Candidate, Dispatch

SPACE = scene.space()
BENCH = scene.bench(over=SPACE)
PATHS = scene.paths(SPACE)


def candidate(
    names: tuple[str, ...] = scene.PALETTE,
    action: Action = "flag",
    dispatch: Dispatch = "speculative",
    **changes: Any,
) -> Candidate:
    chain = "jpeg" if action == "purify" else "none"
    return replace(Candidate(names, 0.01, None, action, chain, dispatch), **changes)


def outcome(of: Candidate, *, flagged: float = 0.0, reached: tuple[float, ...] = ()) -> Outcome:
    found = BENCH.outcome(of)
    clean = replace(found.alarms["clean"], count=round(flagged * 1e6), total=10**6)
    return replace(
        found,
        alarms={"clean": clean},
        calibrated={},
        reached=np.array(reached or found.reached),
    )


def test_every_path_is_measured_once() -> None:
    found = anchors(SPACE, scene.SCORE_MS)
    assert found[0] is BARE
    assert len(set(found)) == len(found) == len({anchor.name for anchor in found})
    assert len(found) <= 15
    assert {a.candidate.chain for a in found if a.flagged and a.candidate} == set(scene.CHAINS)


def test_a_measured_policy_costs_what_was_measured() -> None:
    for anchor, measured in PATHS.measured.items():
        if anchor.candidate is None or anchor.flagged or anchor.candidate.stops:
            continue
        found = PATHS.predict(anchor.candidate, outcome(anchor.candidate))
        assert found.p99_ms == pytest.approx(np.quantile(measured[0], 0.99), rel=0.01)
        assert found.cpu_ms == pytest.approx(measured[1, 0])


@pytest.mark.parametrize("dispatch", ["speculative", "sequential"])
@pytest.mark.parametrize(
    "names", [("srm",), ("high_frequency", "margin"), ("srm", "jpeg_view"), scene.PALETTE[1:]]
)
def test_a_policy_in_between_costs_what_its_detectors_do(
    names: tuple[str, ...], dispatch: Dispatch
) -> None:
    found = PATHS.predict(made := candidate(names, dispatch=dispatch), outcome(made))
    wanted = 0.3 + sum(scene.SCORE_MS[name] for name in names)
    assert found.added_p50_ms == pytest.approx(wanted, abs=0.15)
    assert found.added_p99_ms == pytest.approx(wanted, abs=0.15)


def test_few_flagged_requests_show_in_the_p99_once_they_are_one_in_a_hundred() -> None:
    made = candidate(action="purify")
    few, many = (PATHS.predict(made, outcome(made, flagged=f)) for f in (0.002, 0.03))
    assert many.p50_ms == pytest.approx(few.p50_ms, abs=0.05)
    assert many.p99_ms > few.p99_ms + 3
    blocked = candidate(action="block")
    assert PATHS.predict(blocked, outcome(blocked, flagged=0.03)).p99_ms < few.p99_ms + 0.5


def test_a_cascade_costs_what_its_levels_do() -> None:
    made = candidate(stops=(0.5, 0.001))
    levels = len(BENCH.outcome(made).levels)
    early, late = (
        PATHS.predict(made, outcome(made, reached=shares))
        for shares in ((1.0, *[0.0] * (levels - 1)), (*[0.0] * (levels - 1), 1.0))
    )
    whole = PATHS.predict(candidate(), outcome(candidate()))
    assert early.added_p99_ms < 1.7
    assert late.added_p99_ms == pytest.approx(whole.added_p99_ms, abs=0.05)
    assert early.copies == 0 < late.copies == whole.copies == 2


def test_what_is_only_observed_waits_for_little() -> None:
    made = candidate(("margin",), action="observe")
    assert PATHS.predict(made, outcome(made)).added_p99_ms < 0.3


def test_copies_of_flagged_requests_count() -> None:
    made = candidate(("margin",), action="purify")
    assert PATHS.predict(made, outcome(made, flagged=0.01)).copies == pytest.approx(0.01)


def test_a_detector_alone_at_its_stage_is_no_interval() -> None:
    over = scene.space(detectors=[{"name": "srm"}])
    assert light_set(over, over.stages(["srm"])[0], scene.SCORE_MS) == ("srm",)
    made = Candidate(("srm",), 0.01, None, "flag", "none", "sequential")
    assert scene.paths(over).predict(made, outcome(made)).added_p50_ms == pytest.approx(
        1.1, abs=0.1
    )


def test_quantiles_of_one_measurement() -> None:
    made = cost([1.0], 0.5)
    assert made.min() == 0.5
    assert Paths(SPACE, scene.SCORE_MS, {}).measured == {}
    assert np.quantile(cost(np.arange(101.0), 0.0)[0], 0.99) == pytest.approx(99, abs=0.1)
