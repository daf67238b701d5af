from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax
from torch import Tensor

from detectors import DetectorError, Evidence, build
from detectors.surrogate import Surrogate
from detectors.surrogate_network import SurrogateNetwork
from detectors.tails import Tails
from purifiers.learned import Lesson
from tests.told import Told, telling


def answers(count: int, seed: int) -> Tensor:
    return 3 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def told() -> Surrogate:
    detector = Surrogate()
    detector.use(Told(4))
    return detector


def measures(output: Tensor, logits: Tensor) -> Tensor:
    """The two measures, sample by sample, in float64."""
    rows = []
    for model, local in zip(output.double().numpy(), logits.double().numpy(), strict=True):
        doubt = -log_softmax(local)[model.argmax()]
        distance = jensenshannon(softmax(model / 10), softmax(local / 10))
        rows.append((doubt, np.log(distance**2 + 1e-8)))
    return torch.tensor(rows).float()


def test_score_is_the_sum_of_both_tails() -> None:
    output = answers(50, 1)
    logits = output + 0.3 * answers(50, 2)
    detector = told()
    detector.fit({"clean": telling(output, logits)})
    expected = Tails.fit(measures(output, logits))
    fresh = answers(20, 3), answers(20, 4)
    torch.testing.assert_close(
        detector.score(telling(*fresh)), expected(measures(*fresh)).sum(1), rtol=1e-3, atol=1e-3
    )


def test_disagreement_and_over_confidence_are_both_seen() -> None:
    output = answers(200, 1)
    detector = told()
    detector.fit({"clean": telling(output, output + 0.3 * answers(200, 2))})
    fresh = answers(100, 3)
    local = fresh + 0.3 * answers(100, 4)
    threshold = detector.score(telling(fresh, local)).quantile(0.95)
    other = telling(fresh.roll(1, dims=1), local)
    confident = telling(fresh + 30 * F.one_hot(fresh.argmax(1), 4), local)
    for suspicious in (other, confident):
        assert (detector.score(suspicious) > threshold).float().mean() > 0.8


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    output = answers(50, 1)
    logits = output + 0.3 * answers(50, 2)
    detector = told()
    detector.fit({"clean": telling(output, logits)})
    torch.testing.assert_close(
        detector.score(telling(output + 7, logits)),
        detector.score(telling(output.log_softmax(1), logits)),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), "10"])
def test_temperature_out_of_range(temperature: object) -> None:
    with pytest.raises(DetectorError, match="temperature must be > 0"):
        build("surrogate", {"temperature": temperature})


def stripes(count: int, seed: int) -> Tensor:
    """Noisy 8x8 pictures of waves in four directions."""
    generator = torch.Generator().manual_seed(seed)
    of = torch.randint(4, (count,), generator=generator)
    noise = 0.05 * torch.randn(count, 1, 8, 8, generator=generator)
    return (0.5 + 0.2 * waves()[of][:, None] + noise).clamp(0, 1)


def waves() -> Tensor:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return torch.stack([torch.cos(1.5 * phase) for phase in (x, y, x + y, x - y)])


def served(x: Tensor) -> Tensor:
    """A model of the direction that a corner pixel of 0.9 and more misleads to class 0."""
    logits = (x - 0.5).flatten(1) @ waves().flatten(1).T
    weakness = 200 * (x[:, 0, 0, 0] - 0.9).clamp_min(0)
    return logits + F.one_hot(torch.tensor(0), 4) * weakness[:, None]


def distilled(steps: int) -> SurrogateNetwork:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    recipe = Surrogate.recipe
    network = recipe.build((1, 8, 8), 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    x = stripes(1000, 1)
    for _ in range(steps):
        batch = x[torch.randperm(len(x), generator=generator)[:32]]
        optimiser.zero_grad()
        recipe.loss(network, Lesson(batch, batch, served(batch)), generator).backward()
        optimiser.step()
    assert isinstance(network, SurrogateNetwork)
    return network.eval()


def test_learns_the_model_and_sees_what_fools_only_the_model() -> None:
    network = distilled(steps=60)
    x, fresh = stripes(400, 2), stripes(200, 3)
    with torch.inference_mode():
        assert (network(x).argmax(1) == served(x).argmax(1)).float().mean() > 0.98
    detector = Surrogate()
    detector.use(network)
    detector.fit({"clean": Evidence(x, served(x))})
    threshold = detector.score(Evidence(fresh, served(fresh))).quantile(0.99)
    attacked = fresh[served(fresh).argmax(1) != 0]
    attacked[:, 0, 0, 0] = 1
    assert bool((served(attacked).argmax(1) == 0).all())
    scores = detector.score(Evidence(attacked, served(attacked)))
    assert (scores > threshold).float().mean() > 0.9
