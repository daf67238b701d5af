from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import cityblock, jensenshannon
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.tails import Tails
from detectors.views import (
    ViewDisagreement,
    choice_log_probability,
    softmax_change,
    tempered_divergence,
    view_of,
)
from purifiers import BitDepth, Median

CPU = torch.device("cpu")
VIEWS = (BitDepth(), Median())


class Disagreement(ViewDisagreement):
    name = "disagreement"


def answers(count: int, seed: int = 1, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """An answer (B, 10), and the answers to two views of it (2, B, 10)."""
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(count, 10, generator=generator)
    return output, output + spread * torch.randn(2, count, 10, generator=generator)


def evidence(output: Tensor, views: Tensor) -> Evidence:
    keyed = {view.key: answer for view, answer in zip(VIEWS, views, strict=True)}
    return Evidence(torch.zeros(len(output), 1, 4, 4), output, keyed)


def fitted(measures: tuple[str, ...]) -> Disagreement:
    detector = Disagreement(VIEWS, measures=measures)
    detector.fit({"clean": evidence(*answers(400))})
    return detector


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_divergence_equals_scipys(temperature: float) -> None:
    output, views = answers(4)
    expected = [
        [
            math.log(jensenshannon(p, q) ** 2 + 1e-8)
            for p, q in zip(
                (output / temperature).softmax(1).double(),
                (view / temperature).softmax(1).double(),
                strict=True,
            )
        ]
        for view in views
    ]
    measured = tempered_divergence(output, views, temperature)
    torch.testing.assert_close(measured, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_softmax_change_equals_scipys_city_block_distance() -> None:
    output, views = answers(4)
    expected = [
        [
            math.log(cityblock(p, q) + 1e-4)
            for p, q in zip(output.softmax(1).double(), view.softmax(1).double(), strict=True)
        ]
        for view in views
    ]
    torch.testing.assert_close(
        softmax_change(output, views), torch.tensor(expected), rtol=1e-4, atol=1e-4
    )


def test_log_probability_of_the_models_own_choice() -> None:
    output = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    views = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    expected = torch.tensor([[math.log(1 / 2), math.log(1 / 4)]])
    torch.testing.assert_close(choice_log_probability(output, views), expected)


def test_a_probability_rounded_to_zero_is_no_failure() -> None:
    logs = torch.tensor([[0.0, -math.inf, -math.inf]])
    for measured in (
        softmax_change(logs, logs.roll(1, 1)[None]),
        tempered_divergence(logs, logs.roll(1, 1)[None], 10),
        choice_log_probability(logs, logs.roll(1, 1)[None]),
    ):
        assert bool(torch.isfinite(measured).all())


def test_the_score_is_the_sum_of_the_benign_tails_of_each_measure_and_view() -> None:
    detector, (output, views) = fitted(("softmax", "loss")), answers(5, seed=2)
    own = choice_log_probability(output, output[None])
    measures = torch.cat(
        (softmax_change(output, views), own - choice_log_probability(output, views))
    )
    expected = Tails.from_state(detector.state(), CPU)(measures.T).sum(1)
    torch.testing.assert_close(detector.score(evidence(output, views)), expected)


@pytest.mark.parametrize("measure", ["divergence", "loss", "softmax"])
def test_every_measure_sees_a_view_that_answers_otherwise(measure: str) -> None:
    detector, (output, _) = fitted((measure,)), answers(50, seed=3)
    usual = detector.score(evidence(*answers(400)))
    moved = detector.score(evidence(output, output.roll(1, dims=1).expand(2, -1, -1)))
    assert moved.median() > usual.quantile(0.98)


def test_only_a_high_temperature_sees_a_change_of_a_saturated_softmax() -> None:
    output, views = torch.zeros(1, 10), torch.zeros(1, 1, 10)
    output[0, 3], views[0, 0, 3] = 60.0, 30.0
    assert tempered_divergence(output, views, 1.0) < math.log(2e-8)
    assert tempered_divergence(output, views, 10.0) > math.log(1e-2)


def test_gradients_reach_input_and_view() -> None:
    output, views = answers(3, seed=4)
    output.requires_grad_()
    views.requires_grad_()
    detector = fitted(("divergence", "loss", "softmax"))
    detector.score(evidence(output, views), gradients=True).sum().backward()
    for part in (output, views):
        assert part.grad is not None
        assert bool(torch.isfinite(part.grad).all())
        assert float(part.grad.abs().sum()) > 0


@pytest.mark.parametrize("measures", [(), ("loss", "loss"), ("l1",), "loss"])
def test_measures_are_checked(measures: tuple[str, ...]) -> None:
    with pytest.raises(DetectorError, match="measures are some of divergence, loss, softmax"):
        Disagreement(VIEWS, measures=measures)


def test_the_state_of_other_measures_is_refused() -> None:
    state = fitted(("loss",)).state()
    with pytest.raises(DetectorError, match="other views or measures"):
        fitted(("loss", "divergence")).load_state(state, CPU)


def test_a_view_is_named_as_in_the_configuration() -> None:
    assert view_of("owner", {"name": "median", "params": {"size": 3}}).key == "median(size=3)"
    assert view_of("owner", {"name": "median"}).key == "median(size=2)"
    with pytest.raises(DetectorError, match="owner: view unknown purifier 'medium'"):
        view_of("owner", {"name": "medium"})
    with pytest.raises(DetectorError, match="owner: a view is"):
        view_of("owner", {"params": {}})
