from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors import DetectorError, build
from detectors.nearest_neighbours import NearestNeighbours
from detectors.surrogate_network import STAGES
from tests.told import Told, clouds, telling

LAST = STAGES[-1]


def fitted(features: Tensor, output: Tensor, k: int) -> NearestNeighbours:
    detector = NearestNeighbours(k=k)
    detector.use(Told(output.shape[1]))
    detector.fit({"clean": telling(output, output, features)})
    return detector


def brute(x: Tensor, answer: int, features: Tensor, classes: Tensor, k: int) -> float:
    """The score of one sample, neighbour by neighbour."""

    def direction(f: Tensor) -> np.ndarray:
        last = f[-LAST:].double().numpy()
        return last / np.linalg.norm(last)

    distances: dict[bool, list[float]] = {True: [], False: []}
    for feature, of in zip(features, classes.tolist(), strict=True):
        distances[of == answer].append(np.linalg.norm(direction(x) - direction(feature)))
    own, other = (sorted(distances[same])[:k][-1] for same in (True, False))
    return float(np.log(own**2 + 1e-6) - np.log(other**2 + 1e-6)) / 2


@pytest.mark.parametrize("k", [1, 10, 50])
def test_score_against_brute_force(k: int) -> None:
    features, output = clouds(classes=3, each=30, seed=1)  # 50 is more than a class has
    detector = fitted(features, output, k)
    fresh, answers = clouds(classes=3, each=4, seed=2, spread=3.0)
    scores = detector.score(telling(answers, answers, fresh))
    expected = [
        brute(x, int(answer), features, output.argmax(1), k)
        for x, answer in zip(fresh, answers.argmax(1), strict=True)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_features_of_another_class_are_seen() -> None:
    detector = fitted(*clouds(classes=4, each=60, seed=1), k=10)
    features, output = clouds(classes=4, each=20, seed=2)
    assert detector.score(telling(output, output, features)).max() < 0
    wrong = output.roll(1, dims=1)
    assert detector.score(telling(wrong, wrong, features)).min() > 0


def test_a_class_never_seen_is_neither_suspicious_nor_not() -> None:
    features, output = clouds(classes=3, each=30, seed=1)
    detector = fitted(features, F.pad(output, (0, 1)), k=10)
    rare = F.one_hot(torch.tensor([3]), 4).float()
    assert detector.score(telling(rare, rare, features[:1])).item() == 0


def test_what_is_kept_is_bounded() -> None:
    features, output = clouds(classes=3, each=2000, seed=1)
    detector = fitted(features, output, k=10)
    assert {len(tensor) for tensor in detector.state().values()} == {4000}


@pytest.mark.parametrize("k", [0, 101, 2.5, "3"])
def test_k_out_of_range(k: object) -> None:
    with pytest.raises(DetectorError, match="k must be 1 to 100"):
        build("nearest_neighbours", {"k": k})
