"""What is drift and what is not: mixtures, frames, floods, and the numbers behind."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from detectors.drift_reference import CLASSES, VERDICT, Reference, Scale, Signal, nominal, ordered
from detectors.drift_sketch import Sketch, block_of
from detectors.drift_test import Decision, Finding, alarm, alpha_of, compare, mixture

KEY = b"key"
ALPHA = alpha_of(30 * 24 * 2)
LEAST = 0.15
GROUPS = (0.0, 1.0, 2.5)
"""Means of the benign groups of the score."""
Floats = npt.NDArray[np.float64]


def reference() -> Reference:
    rng = np.random.default_rng(0)
    return Reference(
        {
            "score/a": ordered([rng.normal(mean, 1, 900) for mean in GROUPS]),
            "input/b": ordered([rng.normal(0, 1, 900) for _ in GROUPS]),
            CLASSES: nominal([rng.integers(0, 10, 900).astype(float) for _ in GROUPS]),
            VERDICT: Signal(Scale.RATE, np.zeros(1), np.array([[891.0, 9.0]])),
        }
    )


REFERENCE = reference()


def benign(rng: np.random.Generator, count: int) -> dict[str, Floats]:
    """Independent samples of an odd mixture."""
    group = rng.choice(np.array(GROUPS), count, p=[0.1, 0.2, 0.7])
    return {
        "score/a": rng.normal(group, 1),
        "input/b": rng.normal(0, 1, count),
        CLASSES: rng.integers(0, 10, count).astype(float),
        VERDICT: (rng.random(count) < 0.01).astype(float),
    }


def findings(
    clients: npt.NDArray[np.int64], values: dict[str, Floats], *, stretches: int = 0
) -> list[Finding]:
    sketch = Sketch(REFERENCE)
    stretch = np.arange(len(clients)) * stretches // len(clients)
    named = zip(clients.tolist(), stretch.tolist(), strict=True)
    sketch.by_stretch = stretches > 0
    sketch.add([block_of(str(client), KEY, part) for client, part in named], values)
    return compare(REFERENCE, sketch)


def drift(found: list[Finding]) -> Decision:
    return alarm(found, ALPHA, LEAST)


def repeated(values: dict[str, Floats], order: npt.NDArray[np.int64]) -> dict[str, Floats]:
    return {name: each[order] for name, each in values.items()}


def test_an_unforeseen_mixture_of_the_benign_groups_is_no_drift() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = findings(rng.integers(0, 200, 3000), benign(rng, 3000))
        assert not alarm(found, 0.01, 0.0).is_drift
    assert {each.signal for each in found} == set(REFERENCE.signals)
    assert all(1500 < each.effective_samples <= 3000 == each.raw_samples for each in found)


@pytest.mark.parametrize("clients", [4, 25, 100])
@pytest.mark.parametrize("frames", [10, 30])
def test_like_frames_of_a_few_cameras_are_no_drift(clients: int, frames: int) -> None:
    rng = np.random.default_rng(2)
    camera = np.arange(3000) % clients
    scene = camera * 1000 + np.arange(3000) // clients // frames
    _, order = np.unique(scene, return_inverse=True)
    for stretches in (0, 64) if clients < 40 else (0,):
        for _ in range(10):
            values = repeated(benign(rng, int(order.max()) + 1), order)
            found = findings(camera, values, stretches=stretches)
            assert not alarm(found, 0.01, 0.0).is_drift


def test_four_cameras_that_never_move_are_no_drift_in_stretches_either() -> None:
    rng = np.random.default_rng(3)
    camera = np.arange(4000) % 4
    found = findings(camera, repeated(benign(rng, 4), camera), stretches=64)
    assert all(each.p_value == 1 for each in found)
    assert max(each.distance for each in found) > LEAST  # it is not for being near


def test_repeated_samples_are_not_worth_what_independent_ones_are() -> None:
    rng = np.random.default_rng(4)
    client = np.arange(6000) % 200
    found = findings(client, repeated(benign(rng, 200), client))
    assert all(each.raw_samples == 6000 for each in found)
    ordered_ones = [each for each in found if each.signal != VERDICT]
    assert all(each.effective_samples < 250 for each in ordered_ones)


@pytest.mark.parametrize("stretches", [0, 64])
def test_a_shift_of_everybody_is_drift_of_that_signal(stretches: int) -> None:
    rng = np.random.default_rng(5)
    values = benign(rng, 3000)
    values["input/b"] += 1.0
    clients = rng.integers(0, 1 if stretches else 200, 3000)
    decision = drift(findings(clients, values, stretches=stretches))
    assert decision.is_drift
    assert decision.signals == ("input/b",)


def test_fewer_classes_are_drift_and_the_distance_is_the_total_variation() -> None:
    rng = np.random.default_rng(6)
    values = benign(rng, 3000)
    values[CLASSES] = rng.integers(0, 3, 3000).astype(float)
    found = findings(rng.integers(0, 200, 3000), values)
    assert drift(found).signals == (CLASSES,)
    (classes,) = (each for each in found if each.signal == CLASSES)
    assert classes.distance == pytest.approx(0.7, abs=0.05)


def test_more_suspicious_samples_are_drift_and_fewer_are_not() -> None:
    rng = np.random.default_rng(7)
    values = benign(rng, 3000)
    clients = rng.integers(0, 200, 3000)
    values[VERDICT] = np.zeros(3000)
    assert not drift(findings(clients, values)).is_drift
    values[VERDICT] = (rng.random(3000) < 0.3).astype(float)
    assert drift(findings(clients, values)).signals == (VERDICT,)


def test_one_client_cannot_raise_an_alarm_however_much_it_sends() -> None:
    rng = np.random.default_rng(8)
    values = benign(rng, 8000)
    clients = rng.integers(0, 60, 8000)
    hostile = np.arange(8000) >= 3000
    clients[hostile] = 1000
    for name, each in values.items():
        each[hostile] = 1.0 if name == VERDICT else 50.0
    assert not drift(findings(clients, values)).is_drift
    # The same samples, were they everybody's:
    assert drift(findings(rng.integers(0, 60, 8000), values)).is_drift


def test_below_so_many_blocks_nothing_is_found() -> None:
    rng = np.random.default_rng(9)
    values = benign(rng, 3000)
    values["input/b"] += 5.0
    found = findings(rng.integers(0, 10, 3000), values)
    assert all(each.p_value == 1 for each in found)
    assert max(each.distance for each in found) > 0.9


def test_an_empty_window_is_no_drift() -> None:
    found = compare(REFERENCE, Sketch(REFERENCE))
    assert [each.signal for each in found] == list(REFERENCE.signals)
    assert all(each == Finding(each.signal, 1.0, 0.0, 0.0, 0, 0) for each in found)
    assert not drift(found).is_drift


def test_a_small_shift_is_none_however_sure() -> None:
    rng = np.random.default_rng(10)
    values = benign(rng, 50_000)
    values["input/b"] += 0.25
    found = findings(rng.integers(0, 2000, 50_000), values)
    assert alarm(found, ALPHA, 0.0).is_drift
    assert not drift(found).is_drift


def test_holm_stops_at_the_first_that_is_not_small_enough() -> None:
    found = [Finding(n, p, 0.5, 10, 10, 30) for n, p in (("a", 0.03), ("b", 0.01), ("c", 0.2))]
    assert alarm(found, 0.05, 0.1) == Decision(True, ("b",))  # 0.01 <= 0.05 / 3, 0.03 > 0.05 / 2
    assert alarm(found, 0.06, 0.1) == Decision(True, ("a", "b"))
    assert alarm(found, 0.06, 0.6) == Decision(False, ())
    assert alarm([], 0.05, 0.1) == Decision(False, ())


def test_levels_follow_from_the_windows_between_false_alarms() -> None:
    assert alpha_of(4320) == pytest.approx(1 / 4320)
    assert alpha_of(0) == 1.0


def test_a_mixture_is_found_again() -> None:
    groups = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    assert mixture(groups, 0.3 * groups[0] + 0.7 * groups[1]) == pytest.approx(
        0.3 * groups[0] + 0.7 * groups[1], abs=1e-3
    )
    assert mixture(groups, np.array([1.0, 0.0, 0.0])) == pytest.approx(groups[0], abs=1e-3)


def test_a_p_value_worked_out_by_hand() -> None:
    """A rate of 1 in 2 against 1 in 10, 30 blocks of one sample, a reference without bound."""
    signal = Signal(Scale.RATE, np.zeros(1), np.array([[9e12, 1e12]]))
    known = Reference({VERDICT: signal})
    sketch = Sketch(known)
    sketch.add(np.arange(30), {VERDICT: np.arange(30) % 2})
    (finding,) = compare(known, sketch)
    divergence = 0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    samples = 30 / (30 / 29)  # the variance between 30 blocks, of 30 / 29 times the binomial one
    assert finding.effective_samples == pytest.approx(samples)
    assert finding.p_value == pytest.approx((1 + 2 * samples * divergence / 29) ** -14.5)
    assert finding.distance == pytest.approx(0.4)
