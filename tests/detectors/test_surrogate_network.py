from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from detectors import DetectorError, Evidence
from detectors.surrogate import Surrogate
from detectors.surrogate_network import STAGES, SurrogateNetwork, SurrogateRecipe
from purifiers.learned import Lesson
from tests.untrained import equip

SHAPES = [(1, 1, 1), (1, 8, 8), (1, 28, 28), (3, 32, 32), (4, 33, 47), (3, 224, 224)]


class Counting(SurrogateNetwork):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__((3, 16, 16), 10)
        self.passes = 0
        self.stem.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1


class Echo(nn.Module):
    """Answers with what the left upper pixels of the image say."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :4] * 9


def pictures(count: int, shape: tuple[int, ...] = (3, 16, 16), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_answers_and_features_of_any_image(shape: tuple[int, ...]) -> None:
    network = SurrogateRecipe().build(shape, 7).eval()
    with torch.inference_mode():
        x = pictures(3, shape).clone()
        logits, features = network.read(x)
        assert (logits.shape, features.shape) == ((3, 7), (3, sum(STAGES)))
        torch.testing.assert_close(network(x[1:2]), logits[1:2], rtol=1e-4, atol=1e-4)
        assert network.read(x[:0])[0].shape == (0, 7)


def test_large_images_are_halved_before_the_stages() -> None:
    sides = {}
    for side in (8, 28, 32, 64, 224):
        network = SurrogateRecipe().build((1, side, side), 2).eval()
        sides[side] = network.stem(torch.zeros(1, 1, side, side)).shape[2]
    assert sides == {8: 8, 28: 14, 32: 16, 64: 32, 224: 28}


def test_several_detectors_cost_one_pass() -> None:
    network = Counting().eval()
    x = pictures(70)
    with torch.inference_mode():
        first = network.read(x)
        assert network.passes == 2  # 64 images a time
        assert network.read(x) is first
        assert torch.equal(network.read(x.clone())[0], first[0])
    assert network.passes == 4


def test_an_image_written_to_is_read_again() -> None:
    network = Counting().eval()
    x = pictures(2)
    with torch.inference_mode():
        before = network.read(x)[0]
    x[0] = 0
    with torch.inference_mode():
        assert not torch.equal(network.read(x)[0], before)


def test_an_image_that_is_gone_is_not_confused_with_the_next() -> None:
    network = Counting().eval()
    with torch.inference_mode():
        answers = [network.read(pictures(1, seed=seed))[0] for seed in range(5)]
    assert network.passes == 5
    assert len({answer[0, 0].item() for answer in answers}) == 5


def test_gradients_are_never_remembered() -> None:
    network = Counting().eval()
    x = pictures(2)
    with torch.inference_mode():
        network.read(x)
    for _ in range(2):
        wanted = x.requires_grad_()
        (gradient,) = torch.autograd.grad(network.read(wanted)[0].sum(), wanted)
        assert gradient.abs().sum() > 0


def test_loss_by_hand() -> None:
    x = pictures(6, (1, 4, 4))  # too small to be shifted
    answers = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    loss = SurrogateRecipe().loss(Echo(), Lesson(x, x, answers), torch.Generator())
    own, wanted = (x[:, 0, 0] * 9).double().numpy(), answers.double().numpy()
    q, p = log_softmax(own / 4, 1), log_softmax(wanted / 4, 1)
    expected = 16 * (np.exp(p) * (p - q)).sum(1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_class_of_probability_zero_is_no_obstacle() -> None:
    x = pictures(6, (1, 4, 4))
    answers = torch.zeros(6, 4)
    answers[:, 3] = -torch.inf
    loss = SurrogateRecipe().loss(Echo(), Lesson(x, x, answers), torch.Generator())
    assert bool(torch.isfinite(loss))


def test_images_are_shifted_each_on_its_own() -> None:
    seen = []

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 2)

    ramp = torch.arange(32.0).expand(40, 1, 32, 32)
    lesson = Lesson(ramp, ramp, torch.zeros(40, 2))
    SurrogateRecipe().loss(Looking(), lesson, torch.Generator().manual_seed(3))
    moves = seen[0][:, 0, 16, 16] - 16
    assert moves.unique().tolist() == [-2, -1, 0, 1, 2]


def test_there_must_be_classes_and_answers() -> None:
    with pytest.raises(DetectorError, match="with classes, not 0"):
        SurrogateRecipe().build((3, 8, 8), 0)
    x = pictures(2)
    with pytest.raises(DetectorError, match="needs the model's answers"):
        SurrogateRecipe().loss(Echo(), Lesson(x, x), torch.Generator())


def test_a_network_that_does_not_fit_is_refused() -> None:
    detector = Surrogate()
    detector.use(Echo())
    evidence = Evidence(pictures(30), torch.zeros(30, 10))
    with pytest.raises(DetectorError, match="not a surrogate"):
        detector.fit({"clean": evidence})
    equip(detector, (3, 16, 16), classes=4)
    with pytest.raises(DetectorError, match=r"for 4 classes, .* fit again"):
        detector.fit({"clean": evidence})
