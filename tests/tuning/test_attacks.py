from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.images import benign
from tests.learning import DigitsLike
from tuning.attacks import FAMILIES, attack
from tuning.batches import seeded

X = torch.from_numpy(benign(120, seed=3))


@pytest.fixture(scope="module")
def model() -> DigitsLike:
    return DigitsLike().requires_grad_(False)


@pytest.fixture(scope="module")
def changes(model: DigitsLike) -> Tensor:
    return attack(model, X, seeded(0)) - X


def test_the_model_is_moved_from_its_answers(model: DigitsLike, changes: Tensor) -> None:
    moved = model(X + changes).argmax(1) != model(X).argmax(1)
    assert moved.float().mean() > 0.7


def test_images_are_those_a_file_can_hold(changes: Tensor) -> None:
    levels = (X + changes) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert bool(((levels > -0.1) & (levels < 255.1)).all())


def test_every_family_is_there(changes: Tensor) -> None:
    """By what can be measured: a square of 8x8, a bound of 8/255, or less than that in L2."""
    touched = (changes.abs().amax(1) > 0.5 / 255).flatten(1).float().mean(1)
    most = changes.abs().flatten(1).amax(1) * 255
    patch = touched <= 64 / 1024 + 1e-6
    assert 10 < int(patch.sum()) < 40  # a fifth of 120
    assert bool((most[~patch] < 30).all())
    step = (changes[..., 1:] - changes[..., :-1]).abs().flatten(1).mean(1) / changes.abs().flatten(
        1
    ).mean(1)
    bounded = ~patch & (most <= 8.6)
    assert int((bounded & (step < 0.4)).sum()) > 10  # smooth and in blocks
    assert int((bounded & (step > 0.7)).sum()) > 20  # linf and l2
    assert len(FAMILIES) == 5


def test_the_seed_decides(model: DigitsLike, changes: Tensor) -> None:
    assert torch.equal(attack(model, X, seeded(0)) - X, changes)
    assert not torch.equal(attack(model, X, seeded(1)) - X, changes)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 1, 28, 28), (2, 3, 33, 47), (1, 3, 4, 5)])
def test_any_size_of_image(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=seeded("x"))
    before = x.clone()
    weights = torch.randn(x[0].numel(), 3, generator=seeded("w"))
    for seed in range(5):
        hostile = attack(lambda z: z.flatten(1) @ weights, x, seeded(seed))
        assert hostile.shape == x.shape
        assert bool(hostile.isfinite().all())
    assert torch.equal(x, before)
