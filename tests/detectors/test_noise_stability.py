from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.noise_stability import NoiseStability

CPU = torch.device("cpu")
CLASSES = 5


def evidence(output: Tensor, *noisy: Tensor) -> Evidence:
    keys = (view.key for view in NoiseStability(draws=len(noisy)).views)
    views = dict(zip(keys, noisy, strict=True))
    return Evidence(torch.zeros(len(output), 1, 4, 4), output, views)


def answers(count: int, seed: int, classes: int = CLASSES) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(count, classes, generator=generator)
    first, second = (output + torch.randn(output.shape, generator=generator) for _ in range(2))
    return output, first, second


def fitted(count: int = 4000) -> NoiseStability:
    detector = NoiseStability()
    detector.fit({"clean": evidence(*answers(count, seed=1))})
    return detector


def test_many_samples_give_the_moments_of_each_pair() -> None:
    output, first, second = (part.double().numpy() for part in answers(4000, seed=1))
    chosen = output.argmax(1)
    rows = np.arange(len(output))
    move = (first + second) / 2 - output
    drift = move - move[rows, chosen][:, None]
    state = fitted().state()
    for y in range(CLASSES):
        of_class = drift[chosen == y]
        for z in set(range(CLASSES)) - {y}:  # about 800 samples each: shrunk by 4 %
            assert state["mean"][y, z] == pytest.approx(of_class[:, z].mean(), abs=0.05)
            assert state["deviation"][y, z] == pytest.approx(of_class[:, z].std(), rel=0.05)


def test_the_score_is_the_largest_z_score() -> None:
    detector = NoiseStability(draws=1)
    detector.load_state(
        {"mean": torch.full((3, 3), 0.5), "deviation": torch.full((3, 3), 2.0)}, CPU
    )
    output = torch.tensor([[4.0, 1.0, 0.0]])
    noisy = torch.tensor([[3.0, 1.5, 2.0]])  # log-odds against class 0 rise by 1.5 and 3
    torch.testing.assert_close(
        detector.score(evidence(output, noisy)), torch.tensor([(3 - 0.5) / 2])
    )


def test_a_drift_towards_another_class_is_seen_however_sure_the_model_is() -> None:
    detector = fitted()
    output = torch.tensor([[0.0, 0, 40, 0, 0]])
    back = torch.tensor([[0.0, 0, 30, 0, 15]])
    usual = detector.score(evidence(*answers(1000, seed=2)))
    assert detector.score(evidence(output, back, back)) > usual.max()
    assert detector.score(evidence(output, output, output)) < usual.quantile(0.5)


def test_a_class_never_seen_takes_the_statistics_of_all() -> None:
    output, *noisy = answers(2000, seed=3)
    kept = output.argmax(1) != 4
    detector = NoiseStability()
    detector.fit({"clean": evidence(output[kept], *(part[kept] for part in noisy))})
    state = detector.state()
    assert state["mean"][4].unique().numel() == 1
    assert float(state["deviation"][4, 0]) == pytest.approx(
        float(state["deviation"][:4].mean()), rel=0.2
    )


def test_log_probabilities_serve_as_well_as_logits() -> None:
    detector, given = fitted(), answers(50, seed=4)
    logs = evidence(*(part.log_softmax(1) for part in given))
    torch.testing.assert_close(
        detector.score(logs), detector.score(evidence(*given)), rtol=1e-4, atol=1e-4
    )


def test_gradients_reach_every_answer() -> None:
    detector, given = fitted(), answers(3, seed=5)
    for part in given:
        part.requires_grad_()
    detector.score(evidence(*given), gradients=True).sum().backward()
    assert all(part.grad is not None and float(part.grad.abs().sum()) > 0 for part in given)


def test_what_it_is_given_is_checked() -> None:
    with pytest.raises(DetectorError, match="draws must be 1 to 64"):
        NoiseStability(draws=0)
    with pytest.raises(DetectorError, match="sigma must be above 0"):
        NoiseStability(sigma=0)
    with pytest.raises(DetectorError, match="at least 20"):
        fitted(12)
    with pytest.raises(DetectorError, match="fitted on 5 classes, not 7"):
        fitted().score(evidence(*answers(2, seed=6, classes=7)))
