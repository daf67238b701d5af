from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.strip import Strip
from purifiers import PurifierError

CPU = torch.device("cpu")


def images(count: int, *shape: int) -> Tensor:
    levels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(3))
    return levels / 255


def evidence(*answers: Tensor) -> Evidence:
    views = {f"blend(index={i})": answer for i, answer in enumerate(answers)}
    return Evidence(torch.zeros(len(answers[0]), 3, 4, 4), answers[0], views)


def prepared(count: int = 2) -> Strip:
    detector = Strip(count)
    detector.prepare(images(9, 3, 4, 4))
    return detector


def test_equals_scipys_mean_log_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    answers = [3 * torch.randn(5, 10, generator=generator) for _ in range(2)]
    logs = [np.log(entropy(a.softmax(1).double().numpy(), axis=1) + 1e-6) for a in answers]
    expected = torch.from_numpy(-np.mean(logs, axis=0)).float()
    torch.testing.assert_close(prepared().score(evidence(*answers)), expected, rtol=1e-4, atol=1e-4)


def test_an_answer_no_blend_moves_scores_highest() -> None:
    sure, unsure = torch.tensor([[12.0, 0, 0]]), torch.tensor([[1.0, 0.5, 0]])
    both = evidence(torch.cat((sure, unsure, sure)), torch.cat((sure, unsure, unsure)))
    immune, ordinary, half = prepared().score(both)
    assert immune > half > ordinary


def test_views_are_sums_with_evenly_spaced_benign_images() -> None:
    clean, x = images(9, 3, 4, 4), images(2, 3, 4, 4)
    detector = Strip(3)
    detector.prepare(clean)
    for view, row in zip(detector.views, (0, 3, 6), strict=True):
        torch.testing.assert_close(view.purify(x), (x + clean[row]).clamp(max=1))


def test_a_restored_detector_blends_with_the_same_images() -> None:
    detector, restored = prepared(), Strip(2)
    restored.load_state(detector.state(), CPU)
    x = images(3, 3, 4, 4)
    for one, other in zip(detector.views, restored.views, strict=True):
        assert torch.equal(one.purify(x), other.purify(x))


def test_inputs_of_another_size_see_the_image_resized() -> None:
    detector = Strip(2)
    detector.prepare(torch.full((4, 3, 8, 8), 0.6))
    view = detector.views[0]
    x = torch.zeros(1, 3, 5, 12)
    torch.testing.assert_close(view.purify(x), torch.full_like(x, 0.6))
    torch.testing.assert_close(view.purify(x[..., :5]), torch.full((1, 3, 5, 5), 0.6))


def test_gradients_pass_through_a_blend() -> None:
    x = images(1, 3, 4, 4).requires_grad_()
    view = prepared().views[0]
    view.purify(x)  # fills its cache without gradients
    blended = view.purify(x, gradients=True)
    blended.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (blended < 1).float())  # where it is white, no input matters


def test_a_blend_needs_an_image_of_the_inputs_channels() -> None:
    with pytest.raises(PurifierError, match=r"blend\(index=0\) has no benign image yet"):
        Strip().views[0].purify(images(1, 3, 4, 4))
    with pytest.raises(PurifierError, match="of 3 channels, the input of 1"):
        prepared().views[0].purify(images(1, 1, 4, 4))


def test_what_it_is_given_is_checked() -> None:
    with pytest.raises(DetectorError, match="1 benign images; 4 are needed"):
        Strip().prepare(images(1, 3, 4, 4))
    with pytest.raises(DetectorError, match="2 to 64"):
        Strip(1)
    with pytest.raises(DetectorError, match="2 images for 4 blends"):
        Strip().load_state(prepared().state(), CPU)


def test_a_probability_rounded_to_zero_is_no_failure() -> None:
    logs = torch.tensor([[0.0, -math.inf, -math.inf]])
    assert bool(torch.isfinite(prepared().score(evidence(logs, logs))).all())
