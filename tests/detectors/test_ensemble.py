from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.base import peer_key
from detectors.ensemble import Ensemble
from detectors.tails import Tails

CPU = torch.device("cpu")
PEERS = ("one", "two")


def evidence(output: Tensor, *peers: Tensor) -> Evidence:
    views = {peer_key(name): answer for name, answer in zip(PEERS, peers, strict=True)}
    return Evidence(torch.zeros(len(output), 1, 4, 4), output, views)


def answers(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(count, 10, generator=generator)
    first, second = (output + torch.randn(output.shape, generator=generator) for _ in range(2))
    return output, first, second


def fitted() -> Ensemble:
    detector = Ensemble(PEERS)
    detector.fit({"clean": evidence(*answers(400, seed=1))})
    return detector


def test_the_score_is_the_sum_of_the_tails_of_two_means() -> None:
    detector, (output, *peers) = fitted(), answers(4, seed=2)
    tails = Tails.from_state(detector.state(), CPU)
    for i, score in enumerate(detector.score(evidence(output, *peers))):
        chosen = int(output[i].argmax())
        doubt = -sum(math.log(float(peer[i].softmax(0)[chosen])) for peer in peers) / 2
        divergence = sum(
            math.log(
                jensenshannon((output[i] / 10).softmax(0), (peer[i] / 10).softmax(0)) ** 2 + 1e-8
            )
            for peer in peers
        )
        expected = tails(torch.tensor([[doubt, divergence / 2]])).sum()
        torch.testing.assert_close(score, expected, rtol=1e-3, atol=1e-3)


def test_peers_that_choose_otherwise_raise_the_score() -> None:
    detector, (output, *peers) = fitted(), answers(50, seed=3)
    usual = detector.score(evidence(*answers(400, seed=1)))
    fooled = torch.zeros_like(output).scatter(1, output.argmin(1, keepdim=True), 12.0)
    assert detector.score(evidence(fooled, *peers)).median() > usual.quantile(0.99)


def test_it_asks_the_other_models_and_makes_no_views() -> None:
    assert Ensemble(PEERS).peers == PEERS
    assert Ensemble(PEERS).views == ()
    with pytest.raises(DetectorError, match="needs views"):
        fitted().score(Evidence(torch.zeros(1, 1, 4, 4), torch.zeros(1, 10)))


def test_models_of_other_classes_are_refused() -> None:
    output, first, second = answers(2, seed=4)
    with pytest.raises(DetectorError, match=r"answer with \[7\] classes, this one with 10"):
        fitted().score(evidence(output, first, second[:, :7]))


@pytest.mark.parametrize("models", [(), ("one", "one"), "one"])
def test_models_are_checked(models: tuple[str, ...]) -> None:
    with pytest.raises(DetectorError, match="a list of other models' names, each once"):
        Ensemble(models)


def test_its_state_and_temperature_are_checked() -> None:
    state = {key: part[:1] for key, part in fitted().state().items()}
    with pytest.raises(DetectorError, match="another detector"):
        Ensemble(PEERS).load_state(state, CPU)
    with pytest.raises(DetectorError, match="temperature must be > 0"):
        Ensemble(PEERS, temperature=0)


def test_gradients_reach_every_answer() -> None:
    given = answers(3, seed=5)
    for part in given:
        part.requires_grad_()
    fitted().score(evidence(*given), gradients=True).sum().backward()
    assert all(part.grad is not None and float(part.grad.abs().sum()) > 0 for part in given)
