from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from proxy.errors import ConfigError
from proxy.weights import Plan
from purifiers.learned import Learned, Lesson
from tests.images import benign
from tests.learning import Smooth, SmoothRecipe
from tuning.lessons import Material, course
from tuning.train import EVERY, Checkpoint, one_cycle, train

CPU = torch.device("cpu")
X = torch.from_numpy(benign(40, seed=3))[..., :16, :16]


class Counter:
    """Counts steps, and stops after so many of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self._stop_after = stop_after

    def __call__(self, step: int, loss: float | None) -> None:
        self.steps.append(step)
        self.losses += [] if loss is None else [loss]

    def is_stopped(self) -> bool:
        return self.steps[-1] == self._stop_after


def plan(seed: int = 0, steps: int = 12) -> Plan:
    return Plan(
        recipe="r",
        data_sha256="ab",
        samples=40,
        shape=(3, 16, 16),
        classes=0,
        seed=seed,
        steps=steps,
        batch=16,
    )


def trained(path: Path, counter: Counter, recipe: SmoothRecipe, wanted: Plan) -> nn.Module:
    return train(
        recipe,
        course(recipe, Material(X), wanted.batch, wanted.seed, CPU),
        wanted,
        Checkpoint(path, wanted),
        device=CPU,
        on_step=counter,
        is_stopped=counter.is_stopped,
    )


def test_it_learns(tmp_path: Path) -> None:
    counter = Counter()
    network = trained(tmp_path / "c", counter, SmoothRecipe(), plan(steps=100))
    assert counter.steps == list(range(101))
    assert len(counter.losses) == 10
    assert counter.losses[-1] < 0.2 * counter.losses[0]
    assert not network.training


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_interrupted_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a", Counter(), SmoothRecipe(), plan())
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", Counter(stop_after=5), SmoothRecipe(), plan())
    counter = Counter()
    torch.manual_seed(99)  # whatever was drawn in between
    resumed = trained(tmp_path / "b", counter, SmoothRecipe(), plan())
    assert counter.steps == list(range(5, 13))
    assert equal(whole, resumed)


def test_without_a_chance_to_stop_it_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    class Failing(SmoothRecipe):
        def loss(
            self, network: nn.Module, lesson: Lesson, generator: torch.Generator
        ) -> torch.Tensor:
            if self.calls == EVERY + 3:
                raise MemoryError
            return super().loss(network, lesson, generator)

    wanted = plan(steps=EVERY + 5)
    with pytest.raises(MemoryError):
        trained(tmp_path / "a", Counter(), Failing(), wanted)
    counter = Counter()
    resumed = trained(tmp_path / "a", counter, SmoothRecipe(), wanted)
    assert counter.steps[0] == EVERY
    assert equal(resumed, trained(tmp_path / "b", Counter(), SmoothRecipe(), wanted))


def test_another_plan_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a", Counter(stop_after=5), SmoothRecipe(), plan())
    counter = Counter()
    other = trained(tmp_path / "a", counter, SmoothRecipe(), plan(seed=1))
    assert counter.steps[0] == 0
    assert not equal(other, trained(tmp_path / "b", Counter(), SmoothRecipe(), plan()))


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_checkpoint_starts_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    counter = Counter()
    trained(tmp_path / "a", counter, SmoothRecipe(), plan())
    assert counter.steps[0] == 0


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    class Diverging(SmoothRecipe):
        def loss(
            self, network: nn.Module, lesson: Lesson, generator: torch.Generator
        ) -> torch.Tensor:
            return super().loss(network, lesson, generator) * float("nan")

    with pytest.raises(ConfigError, match="training smooth failed: the loss was nan after 10"):
        trained(tmp_path / "a", Counter(), Diverging(), plan())


def test_the_caller_draws_as_if_nothing_had_been_trained(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(tmp_path / "a", Counter(), SmoothRecipe(), plan())
    assert torch.equal(torch.rand(3), expected)


def test_the_rate_rises_and_falls_once() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[30] == 1.0
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_a_part_has_no_network_until_it_is_given_one() -> None:
    part: Learned = Smooth()
    assert part.network is None
    with pytest.raises(ValueError, match="smooth has no weights 'smooth'; `breakwater fit` makes"):
        part.trained(ValueError)
    network = nn.Identity()
    part.use(network)
    assert part.trained(ValueError) is part.network is network
