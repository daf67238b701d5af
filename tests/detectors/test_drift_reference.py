"""References: bins, what is saved and restored, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.calibration import Calibration
from detectors.drift_reference import (
    BINS,
    CLASSES,
    MOST_CLASSES,
    VERDICT,
    Reference,
    Scale,
    nominal,
    ordered,
)
from detectors.rule import CalibrationError


def calibration() -> Calibration:
    generator = torch.Generator().manual_seed(0)
    groups = {
        group: {name: torch.randn(150, generator=generator) + at for name in ("chroma", "srm")}
        for at, group in enumerate(("clean", "noise"))
    }
    return Calibration.fit(groups)


def stored() -> Reference:
    x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Reference.of_evidence({"clean": (x, x.mean((2, 3))), "dark": (x / 2, x.mean((2, 3)))})


def test_an_ordered_signal_has_bins_of_like_many_samples() -> None:
    values = np.arange(320.0)
    signal = ordered([values, values[:160]])
    assert signal.bins == BINS
    assert signal.counts.sum(axis=1).tolist() == [320, 160]
    assert signal.counts.sum(axis=0).max() <= 20
    assert signal.groups.sum(axis=1) == pytest.approx([1, 1])
    assert (signal.groups > 0).all()
    assert signal.samples == 160


def test_values_go_where_they_belong_and_those_that_are_not_finite_nowhere() -> None:
    signal = ordered([np.arange(320.0)])
    at = signal.place([-1e30, signal.edges[0], signal.edges[-1] + 0.1, 1e30, np.nan, np.inf])
    assert at.tolist() == [0, 0, BINS - 1, BINS - 1, -1, -1]


def test_a_constant_signal_tells_more_from_less() -> None:
    signal = ordered([np.full(50, 2.0)])
    assert signal.bins == 2
    assert signal.place([1.0, 2.0, 2.1]).tolist() == [0, 0, 1]


def test_rare_classes_share_a_bin_with_unknown_ones() -> None:
    classes = np.repeat(np.arange(100.0), np.arange(100, 0, -1))
    signal = nominal([classes])
    assert signal.bins == MOST_CLASSES + 1
    assert signal.place([0, 62, 63, 99, 12345, -3]).tolist() == [0, 62, 63, 63, 63, 63]


def test_everything_is_watched_that_is_known() -> None:
    known = Reference.of_calibration(calibration(), 0.05, stored())
    assert set(known.signals) == {
        *("input/brightness", "input/contrast", "input/saturation", "input/fine_detail"),
        *("input/clipped", CLASSES, "score/chroma", "score/srm", VERDICT),
    }
    old = Reference.of_calibration(calibration(), 0.05)
    assert set(old.signals) == {"score/chroma", "score/srm", VERDICT}
    rate = old.signals[VERDICT]
    assert rate.scale is Scale.RATE
    assert rate.groups.tolist() == [pytest.approx([0.95, 0.05])]


def test_classes_take_the_answers_of_every_group() -> None:
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    known = Reference.of_evidence({"clean": (x, x.mean((2, 3))), "dark": (x, None)})
    assert CLASSES not in known.signals


def test_what_is_saved_comes_back() -> None:
    before = stored()
    after = Reference.from_tensors(before.tensors(), before.meta())
    assert after.meta() == before.meta()
    for name, signal in before.signals.items():
        np.testing.assert_array_equal(after.signals[name].counts, signal.counts)
        np.testing.assert_array_equal(after.signals[name].edges, signal.edges)
        assert after.signals[name].scale is signal.scale


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("0.edges", torch.tensor([1.0, 1.0])),
        ("0.edges", torch.tensor([float("nan")])),
        ("0.counts", torch.zeros(2, 32)),
        ("0.counts", torch.full((2, 32), -1.0)),
        ("0.counts", torch.ones(32)),
        ("0.counts", torch.full((2, 32), float("inf"))),
    ],
)
def test_damage_is_refused(key: str, value: torch.Tensor) -> None:
    before = stored()
    with pytest.raises(CalibrationError, match="drift reference is damaged at input/brightness"):
        Reference.from_tensors({**before.tensors(), key: value}, before.meta())


def test_missing_parts_and_unknown_scales_are_refused() -> None:
    before = stored()
    with pytest.raises(CalibrationError, match="incomplete"):
        Reference.from_tensors({}, before.meta())
    with pytest.raises(CalibrationError, match="incomplete"):
        Reference.from_tensors(before.tensors(), {"input/brightness": "log"})


def test_a_statistic_that_was_never_finite_is_left_out() -> None:
    x = torch.full((4, 3), torch.nan)
    assert Reference.of_evidence({"clean": (x, None)}).signals == {}
