from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.base import DetectorError, Evidence
from detectors.chains import FEATURES
from detectors.query_history import QueryHistory

COLUMNS = ("strangest", "anomaly", "halving", "mirrored", "flips")


def chains(count: int, **columns: float | Tensor) -> Tensor:
    made = torch.zeros(count, len(FEATURES))
    for name, values in columns.items():
        made[:, FEATURES.index(name)] = torch.as_tensor(values)
    return made


def evidence(chain: Tensor) -> Evidence:
    return Evidence(torch.zeros(len(chain), 1), chain=chain)


def fitted(**groups: Tensor) -> QueryHistory:
    detector = QueryHistory()
    detector.fit({name: evidence(chain) for name, chain in groups.items()})
    return detector


def scores(detector: QueryHistory, chain: Tensor) -> list[float]:
    return detector.score(evidence(chain)).tolist()


QUIET = chains(400, strangest=1.0, anomaly=0.5, halving=0.5, mirrored=0.5, flips=0.5)


def test_a_query_that_follows_on_none_scores_nothing() -> None:
    assert scores(fitted(quiet=QUIET), chains(2)) == [0, 0]


def test_what_is_ordinary_is_all_alike() -> None:
    assert scores(fitted(quiet=QUIET), QUIET[:3] * torch.tensor([[0.0], [0.5], [1.0]])) == [0, 0, 0]


def test_where_benign_sequences_are_quiet_the_floors_are_the_units() -> None:
    detector = fitted(quiet=QUIET)
    units = detector.state()["units"].tolist()
    for name, unit in zip(COLUMNS, units, strict=True):
        assert unit > 0.5
        found = scores(detector, chains(3, **{name: unit * torch.tensor([0.5, 1.0, 3.0])}))
        assert found == pytest.approx([0.0, 0.0, 2.0])


def test_the_largest_statistic_counts_and_the_length_does_not() -> None:
    detector = fitted(quiet=QUIET)
    unit = dict(zip(COLUMNS, detector.state()["units"].tolist(), strict=True))
    chain = chains(1, strangest=unit["strangest"], halving=2 * unit["halving"], length=1e6)
    assert scores(detector, chain) == pytest.approx([1.0])


def test_what_is_ordinary_in_the_worst_kind_is_the_unit() -> None:
    loud = chains(1000, flips=torch.linspace(0, 50, 500).repeat(2))
    detector = fitted(quiet=QUIET, loud=loud)
    assert scores(detector, chains(1, flips=2 * 50 * 0.995)) == pytest.approx([1.0], rel=1e-3)
    assert detector.alarm_level(0.1) == 0.0  # the second half is exceeded as seldom


def test_the_alarm_level_is_a_quantile_of_benign_frames_or_their_largest() -> None:
    detector = fitted(quiet=QUIET)
    unit = detector.state()["units"][2]
    rest = 1 + torch.arange(99) / 98
    detector = fitted(kind=torch.cat((chains(99), chains(99, halving=unit * rest))))
    assert detector.alarm_level(0.05) == pytest.approx(float(rest[94]) - 1)
    assert detector.alarm_level(0.01) == pytest.approx(1.0)
    assert detector.alarm_level(1e-6) == pytest.approx(1.0)
    assert detector.alarm_level(0.999) == 0.0


def test_chains_are_needed() -> None:
    detector = QueryHistory()
    with pytest.raises(DetectorError, match="chains of benign sequences"):
        detector.fit({"clean": Evidence(torch.zeros(50, 3, 8, 8))})
    for call in (lambda: detector.alarm_level(0.01), lambda: scores(detector, chains(1))):
        with pytest.raises(DetectorError, match="not fitted"):
            call()


def test_the_state_has_the_alarm_level_too() -> None:
    detector, restored = fitted(quiet=QUIET), QueryHistory()
    restored.load_state(detector.state(), torch.device("cpu"))
    assert restored.alarm_level(0.01) == detector.alarm_level(0.01)
    with pytest.raises(DetectorError, match="expected units, benign"):
        restored.load_state(detector.state() | {"units": torch.ones(2)}, torch.device("cpu"))


def test_an_input_that_cannot_be_judged_has_no_score() -> None:
    detector = fitted(quiet=QUIET)
    x = torch.tensor([[0.5, 0.5], [0.5, torch.nan]])
    found = detector.score(Evidence(x, chain=chains(2, halving=9.0)))
    assert torch.isfinite(found).tolist() == [True, False]


def test_what_another_version_learned_is_refused() -> None:
    state = fitted(quiet=QUIET).state()
    with pytest.raises(DetectorError, match="other statistics"):
        QueryHistory().load_state(state | {"version": torch.tensor([0])}, torch.device("cpu"))
