from __future__ import annotations

import pytest
import torch

from tests.learning import AnswerRecipe, SmoothRecipe
from tuning.batches import affordable, batch_of, seeded, window


def test_streams_depend_on_every_part() -> None:
    drawn = [
        torch.rand(4, generator=seeded(*parts)).tolist()
        for parts in ((0, "a", 1), (0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 11))
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(d) for d in drawn}) == 4


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 28, 28), 64),
        ((3, 64, 64), 64),
        ((3, 96, 96), 28),  # 786,432 / 27,648
        ((3, 224, 224), 8),  # 786,432 / 150,528 would be 5
        ((40,), 64),
    ],
)
def test_large_samples_make_small_batches(shape: tuple[int, ...], expected: int) -> None:
    assert affordable(64, shape) == expected
    assert affordable(4, shape) == 4


def test_only_large_images_are_cut_and_only_where_that_is_allowed() -> None:
    cut, whole = SmoothRecipe(), AnswerRecipe()
    assert window(cut, (3, 224, 60)) == (3, 96, 60)
    assert window(whole, (3, 224, 60)) == (3, 224, 60)
    assert window(cut, (1, 16000)) == (1, 16000)
    assert (batch_of(cut, (3, 224, 224)), batch_of(whole, (3, 224, 224))) == (16, 8)
