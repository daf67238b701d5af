"""What of live traffic can be compared with a calibration that looked at everything."""

from __future__ import annotations

import numpy as np
import torch

from detectors.drift_inputs import input_statistics
from detectors.drift_reference import Reference, ordered
from detectors.energy import Energy
from detectors.feature_squeezing import FeatureSqueezing
from detectors.query_history import QueryHistory
from detectors.residual import Residual
from detectors.rule import Cascade
from proxy.drift.signals import STATISTICS, comparable
from tests.proxy.drift.samples import reference

PARTS = (Residual(), Energy(), FeatureSqueezing(), QueryHistory())
SIGNALS = {
    **{f"score/{part.name}": ordered([np.arange(100.0)]) for part in PARTS},
    **{name: signal for name, signal in reference().signals.items() if "score" not in name},
}


def kept(*names: str, cascade: Cascade | None = None) -> set[str]:
    parts = [part for part in PARTS if part.name in names]
    return set(comparable(Reference(SIGNALS), parts, cascade).signals)


ALWAYS = {"input/contrast", "verdict"}


def test_all_but_the_history_without_a_cascade() -> None:
    assert kept(*(part.name for part in PARTS)) == set(SIGNALS) - {"score/history"}


def test_a_detector_that_is_not_configured_has_no_signal() -> None:
    assert kept("residual") == {*ALWAYS, "classes", "score/residual"}


def test_with_a_cascade_what_the_doubtful_alone_get_to_is_left_out() -> None:
    stops = Cascade(clean=0.5, suspicious=0.001)
    # The model's own answer comes by itself: only the suspicious stop before it.
    assert kept("residual", "energy", "feature_squeezing", cascade=stops) == {
        *(*ALWAYS, "classes", "score/residual", "score/energy"),
    }
    assert kept("residual", "feature_squeezing", cascade=stops) == {*ALWAYS, "score/residual"}


def test_the_names_are_in_the_order_of_the_statistics() -> None:
    inputs = {"image": torch.rand(2, 3, 8, 8), "vector": torch.rand(2, 9)}
    inputs["waveform"] = torch.rand(2, 1, 50)
    for kind, x in inputs.items():
        assert tuple(input_statistics(x)) == STATISTICS[kind]  # type: ignore[index]
