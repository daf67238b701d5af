from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from detectors import DetectorError
from detectors.mahalanobis import Mahalanobis
from detectors.surrogate_network import STAGES
from tests.told import Told, clouds, telling

LAST = STAGES[-1]


def fitted(features: Tensor, output: Tensor) -> Mahalanobis:
    detector = Mahalanobis()
    detector.use(Told(output.shape[1]))
    half = len(output) // 2
    detector.fit(
        {
            "clean": telling(output[:half], output[:half], features[:half]),
            "noise": telling(output[half:], output[half:], features[half:]),
        }
    )
    return detector


def test_score_against_scipy() -> None:
    features, output = clouds(classes=3, each=80, seed=1)
    detector = fitted(features, output)
    x, of = features[:, -LAST:].double().numpy(), output.argmax(1).numpy()
    centre = x.mean(0)
    # 5 samples' worth of the overall mean, and a twentieth of the covariance off its diagonal.
    means = [(x[of == c].sum(0) + 5 * centre) / (80 + 5) for c in range(3)]
    within = np.concatenate([x[of == c] - means[c] for c in range(3)])
    covariance = within.T @ within / len(x)
    covariance = 0.95 * covariance + 0.05 * np.diag(np.diag(covariance))
    inverse = np.linalg.inv(covariance + 1e-6 * np.diag(covariance).mean() * np.eye(LAST))
    fresh, answers = clouds(classes=3, each=5, seed=2, spread=2.0)
    wrong = answers.roll(1, dims=1)
    squares = np.array(
        [
            [mahalanobis(f, m, inverse) ** 2 for m in means]
            for f in fresh[:, -LAST:].double().numpy()
        ]
    )
    own = squares[np.arange(15), wrong.argmax(1).numpy()]
    expected = torch.from_numpy(own - squares.min(1)).float()
    scores = detector.score(telling(wrong, wrong, fresh))
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-2)


def test_features_of_another_class_are_seen() -> None:
    detector = fitted(*clouds(classes=4, each=60, seed=1))
    features, output = clouds(classes=4, each=20, seed=2)
    benign = detector.score(telling(output, output, features))
    assert torch.equal(benign, torch.zeros(80))
    wrong = output.roll(1, dims=1)
    assert detector.score(telling(wrong, wrong, features)).min() > 100


def test_a_class_without_samples_is_at_the_centre() -> None:
    features, output = clouds(classes=4, each=60, seed=1)
    wider = torch.cat((output, torch.zeros(240, 1)), dim=1)
    detector = fitted(features, wider)
    rare = torch.nn.functional.one_hot(torch.tensor([4]), 5).float()
    scores = detector.score(telling(rare, rare, features.mean(0, keepdim=True)))
    assert scores.item() == pytest.approx(0, abs=1e-3)


def test_too_few_samples() -> None:
    with pytest.raises(DetectorError, match="needs 20 benign samples"):
        fitted(*clouds(classes=2, each=9, seed=1))


def test_what_is_not_finite_is_refused() -> None:
    features, output = clouds(classes=2, each=20, seed=1)
    features[3, 200] = torch.nan
    with pytest.raises(DetectorError, match="all finite"):
        fitted(features, output)
