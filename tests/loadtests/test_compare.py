"""The parts of `loadtests.compare` that need no server."""

import numpy as np
import pytest
import torch

from loadtests.compare.art_defence import ArtDefence, scores
from loadtests.compare.cases import (
    ART_PROXY,
    BLS,
    BREAKWATER,
    DIRECT,
    MLSERVER,
    PASS_THROUGH,
    Case,
    Checked,
    fastest,
)
from loadtests.compare.repository import VARIANTS, write_repository
from loadtests.compare.summary import Sample, ratio, summarise
from loadtests.compare.workload import Classifier, Workload, changes
from loadtests.harness import Report
from loadtests.peers import Load

RATES = {DIRECT: 400, PASS_THROUGH: 300, BREAKWATER: 100, MLSERVER: 5, BLS: 50, ART_PROXY: 25}


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _case(system: str, variant: str = "") -> Case:
    return Case(system, variant, "127.0.0.1:1", "model", None)


def _sample(rate: float) -> Sample:
    return Sample(Load(rate, 1.0, 2.0), 1.0, 0.5)


def test_peers_score_as_the_workload_was_chosen() -> None:
    x = _images(4)
    network = Classifier(x)
    defence = ArtDefence(threshold=0.5)
    with torch.inference_mode():
        answers = network(torch.from_numpy(defence.with_views(x.numpy()))).numpy()
    # SciPy's median mirrors the border where ours repeats it: for 3x3 that is the same.
    np.testing.assert_allclose(scores(answers), changes(network, x).numpy(), atol=1e-4)


def test_an_answer_that_moves_is_flagged_and_one_that_is_not_a_number_too() -> None:
    defence = ArtDefence(threshold=0.5)
    steady, moved = [5.0, 0.0], [0.0, 5.0]
    broken = [np.nan, 0.0]
    answers = np.array([steady, steady, steady, steady, moved, broken, steady, steady, steady])
    assert defence.flagged(answers).tolist() == [False, True, True]


def test_the_classifier_is_the_same_every_time_and_uses_its_range() -> None:
    x = _images(64)
    logits = Classifier(x)(x)
    assert torch.equal(logits, Classifier(x)(x))
    assert logits.std(0).detach().numpy() == pytest.approx(np.full(10, 3), rel=0.01)


def test_the_fastest_variant_of_each_system_is_kept_in_order() -> None:
    cases = [_case(BREAKWATER, "1"), _case(BREAKWATER, "2"), _case(BLS, "1"), _case(BLS, "2")]
    speed = {cases[0]: 9.0, cases[1]: 5.0, cases[2]: 3.0, cases[3]: 4.0}
    assert fastest(cases, speed.__getitem__) == [cases[0], cases[3]]


def test_a_system_without_variants_is_not_tried() -> None:
    cases = [_case(DIRECT)]
    assert fastest(cases, {}.__getitem__) == cases


def test_a_ratio_compares_what_ran_in_the_same_round() -> None:
    ours, theirs = [_sample(10), _sample(2), _sample(8)], [_sample(5), _sample(1), _sample(2)]
    assert ratio(ours, theirs, lambda s: s.load.throughput_per_s) == 2


def test_goals_are_judged_at_each_size_and_ceilings_are_told() -> None:
    cases = {"12 KB": [_case(system) for system in RATES]}
    samples = {(system, "12 KB", 8): [_sample(rate)] for system, rate in RATES.items()}
    report = Report("Peers")
    summarise(samples, cases, {case: Checked(21, 1) for case in cases["12 KB"]}, report)
    judged = {row["figure"]: (row["value"], row["met"]) for row in report.rows if "met" in row}
    assert judged == {
        f"defended throughput / {MLSERVER}": (20, True),
        f"defended throughput / {BLS}": (2, True),
        f"defended throughput / {ART_PROXY}": (4, False),
    }
    told = {row["figure"]: row["value"] for row in report.rows if "figure" in row}
    assert told[f"ceiling: undefended Triton / {BLS}"] == 8


def test_the_repository_has_the_classifier_and_every_variant_of_the_peer(tmp_path) -> None:
    x = _images(20)
    workload = Workload("12 KB", 32, x, x, Classifier(x).eval().requires_grad_(False), 0.5)
    write_repository(tmp_path, [workload])
    names = {"classifier_12kb", *(variant.model(workload) for variant in VARIANTS)}
    assert {folder.name for folder in tmp_path.iterdir()} == names
    assert all((tmp_path / name / "1" / "model.py").exists() for name in names)
    assert (tmp_path / "classifier_12kb" / "1" / "network.pt").exists()
