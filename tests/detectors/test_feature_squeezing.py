from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.feature_squeezing import FeatureSqueezing
from detectors.tails import Tails

CPU = torch.device("cpu")
KEY = "bit_depth(bits=5)"
ONE_VIEW = [{"name": "bit_depth", "params": {"bits": 5}}]


def evidence(output: Tensor, view: Tensor) -> Evidence:
    return Evidence(torch.zeros(len(output), 1, 4, 4), output, {KEY: view})


def benign(count: int = 400) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    output = 3 * torch.randn(count, 10, generator=generator)
    return evidence(output, output + 0.3 * torch.randn(count, 10, generator=generator))


def fitted(temperature: float = 10.0) -> FeatureSqueezing:
    detector = FeatureSqueezing(ONE_VIEW, temperature)
    detector.fit({"clean": benign()})
    return detector


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_equals_scipys_divergence_and_the_log_probability_lost(temperature: float) -> None:
    detector = FeatureSqueezing(ONE_VIEW, temperature)
    # Tails with one unit slope from 0 make the score the plain sum of the measures.
    knots = torch.tensor([[-100.0, *[1e6] * 4]] * 2)
    slopes = torch.tensor([[1.0, 0, 0, 0, 0]] * 2)
    detector.load_state({"knots": knots, "slopes": slopes}, CPU)
    given = benign(5)
    assert given.output is not None
    p = (given.output / temperature).softmax(1).double()
    q = (given.views[KEY] / temperature).softmax(1).double()
    divergence = torch.tensor([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    top = given.output.argmax(1, keepdim=True)
    lost = given.output.log_softmax(1).gather(1, top) - given.views[KEY].log_softmax(1).gather(
        1, top
    )
    expected = (divergence + 1e-8).log() + lost.squeeze(1) + 200 - 2 * math.log(0.95)
    torch.testing.assert_close(detector.score(given).double(), expected, rtol=1e-3, atol=1e-2)


def test_an_unmoved_answer_scores_low_and_a_moved_one_high() -> None:
    detector, output = fitted(), benign().output
    assert output is not None
    still = detector.score(evidence(output, output))
    moved = detector.score(evidence(output, output.roll(1, dims=1)))
    usual = detector.score(benign())
    assert still.max() < usual.median()
    assert moved.median() > usual.quantile(0.99)


def test_over_confident_change_is_seen_although_the_softmax_is_saturated() -> None:
    detector = fitted()
    output = torch.zeros(1, 10)
    output[0, 3] = 60.0
    view = torch.zeros(1, 10)
    view[0, 3] = 30.0  # softmax is 1.0 in float32 either way
    torch.testing.assert_close(output.softmax(1), view.softmax(1), atol=1e-12, rtol=0)
    assert detector.score(evidence(output, view)) > detector.score(benign()).quantile(0.99)


def test_probabilities_serve_as_well_as_logits() -> None:
    detector, given = fitted(), benign(50)
    assert given.output is not None
    logs = evidence(given.output.log_softmax(1), given.views[KEY].log_softmax(1))
    torch.testing.assert_close(detector.score(logs), detector.score(given), rtol=1e-2, atol=1e-2)


def test_a_probability_rounded_to_zero_is_no_failure() -> None:
    logs = torch.tensor([[0.0, -math.inf, -math.inf]])
    detector = FeatureSqueezing(ONE_VIEW)
    detector.fit({"clean": benign()})
    assert bool(torch.isfinite(detector.score(evidence(logs, logs))).all())


def test_the_state_of_other_views_is_refused() -> None:
    with pytest.raises(DetectorError, match="other views"):
        FeatureSqueezing().load_state(fitted().state(), CPU)


def test_too_few_benign_samples() -> None:
    with pytest.raises(DetectorError, match="at least 20"):
        FeatureSqueezing(ONE_VIEW).fit({"clean": benign(12)})


def test_tails_are_those_of_all_groups_together() -> None:
    detector = FeatureSqueezing(ONE_VIEW)
    detector.fit({"a": benign(100), "b": benign(300)})
    state = detector.state()
    assert state["knots"].shape == (2, 5)
    assert isinstance(Tails.from_state(state, CPU), Tails)
