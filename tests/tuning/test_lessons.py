from __future__ import annotations

import torch

from tests.learning import AnswerRecipe, RepairRecipe, SmoothRecipe
from tuning.attacked_images import Attacked
from tuning.lessons import Course, Material, course

CPU = torch.device("cpu")


def numbered(count: int, side: int) -> torch.Tensor:
    """Images of which each has a value of its own, with the place of every pixel."""
    x = torch.arange(count).view(-1, 1, 1, 1) / 255 * torch.ones(1, 3, side, side)
    x[:, 1] = torch.linspace(0, 1, side)[None, :, None]
    x[:, 2] = torch.linspace(0, 1, side)[None, None]
    return x


def guided(x: torch.Tensor) -> Course:
    attacked = Attacked(
        torch.tensor([2, 0, 1, 2]), (x[[2, 0, 1, 2]] * 255 + 1).clamp(max=255).to(torch.uint8)
    )
    return course(RepairRecipe(), Material(x, None, attacked, lambda z: z), 4, 0, CPU)


def test_a_lesson_depends_on_its_number_and_the_seed() -> None:
    x = numbered(50, 16)
    first = course(SmoothRecipe(), Material(x), 8, 0, CPU)
    again = course(SmoothRecipe(), Material(x), 8, 0, CPU)
    first(0)
    assert torch.equal(first(3).varied, again(3).varied)
    assert not torch.equal(first(3).x, first(4).x)
    assert not torch.equal(first(3).x, course(SmoothRecipe(), Material(x), 8, 1, CPU)(3).x)


def test_benign_lessons_hold_nothing_hostile() -> None:
    x = numbered(50, 16)
    attacked = Attacked(torch.arange(4), torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    material = Material(x, torch.zeros(50, 10), attacked, lambda z: z)
    lesson = course(SmoothRecipe(), material, 8, 0, CPU)(0)
    assert (lesson.answers, lesson.attacked, lesson.model) == (None, None, None)
    assert len({float(v) for v in lesson.x[:, 0, 0, 0]}) == 8  # none twice in a batch


def test_answers_are_those_to_the_images() -> None:
    x = numbered(50, 16)
    lesson = course(AnswerRecipe(), Material(x, x[:, 0, 0, :1] * 2), 8, 0, CPU)(0)
    assert lesson.answers is not None
    assert torch.equal(lesson.answers, lesson.x[:, 0, 0, :1] * 2)


def test_attacked_images_come_with_their_originals() -> None:
    lesson = guided(numbered(3, 16))(0)
    assert lesson.attacked is not None
    assert lesson.model is not None
    torch.testing.assert_close(
        lesson.attacked[:, 0] - lesson.x[:, 0], torch.full((4, 16, 16), 1 / 255), atol=1e-6, rtol=0
    )


def test_large_images_are_cut_at_the_same_place() -> None:
    lesson = guided(numbered(3, 120))(0)
    assert lesson.x.shape == lesson.varied.shape == (4, 3, 96, 96)
    assert lesson.attacked is not None
    assert lesson.model is None
    for channel in (1, 2):
        shift = (lesson.attacked - lesson.x)[:, channel]
        assert float(shift.abs().max()) <= 1.01 / 255
    tops = {round(float(v) * 119) for v in lesson.x[:, 1, 0, 0]}
    assert len(tops) > 1
    assert max(tops) <= 24


def test_recipes_may_ask_for_whole_images() -> None:
    lesson = course(AnswerRecipe(), Material(numbered(9, 120), torch.zeros(9, 2)), 8, 0, CPU)(0)
    assert lesson.x.shape == (8, 3, 120, 120)


def test_inputs_that_are_no_images_are_left_whole_and_unvaried() -> None:
    x = torch.randn(20, 300)
    lesson = course(SmoothRecipe(), Material(x), 8, 0, CPU)(0)
    assert lesson.x.shape == (8, 300)
    assert torch.equal(lesson.varied, lesson.x)
