"""Purified samples in their tensors, further copies, and one answer from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxy.case import Glance, Pixels, Suspects
from proxy.config import Model
from proxy.errors import ConfigError, DetectorFailed, InvalidTensor
from proxy.kinds import codec_of
from proxy.parts import build_purifiers
from proxy.purification import Purification
from purifiers import Median
from tests.builders import framed
from tests.images import as_file
from tests.proxy.test_scoring import CLEAN, pixels, scorer
from tests.proxy.test_tensors import FILES, SPEC

pytestmark = pytest.mark.triton

RANDOM = [{"name": "resize_pad"}]
LOGITS = np.array([[[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]], [[0.0, 5.0, 0.0], [1.0, 2.0, 0.0]]], "f4")
"""Two copies of two samples."""


def test_purified_samples_are_placed_within_their_tensor(calibrations: Path) -> None:
    subject = scorer(calibrations, purifiers=[{"name": "median", "params": {"size": 3}}])
    glances = subject.look([pixels(CLEAN[:3]), pixels(CLEAN[3:])])
    items = [
        Suspects(glance, x.tobytes(), chosen)
        for glance, x, chosen in zip(glances, (CLEAN[:3], CLEAN[3:]), ((0, 2), (1,)), strict=True)
        if isinstance(glance, Glance)
    ]
    width = 4 * 3 * 32 * 32
    expected = Median(3).purify(torch.from_numpy(CLEAN)).numpy()
    first, second = subject.purification.purify(items)
    assert first == [(0, expected[0].tobytes()), (2 * width, expected[2].tobytes())]
    assert second == [(width, expected[4].tobytes())]


def test_purified_files_are_a_whole_new_tensor(calibrations: Path) -> None:
    subject = scorer(calibrations, "encoded", replace(FILES, size=(32, 32), max_pixels=2000))
    files = [as_file(x) for x in CLEAN[:2]]
    (glance,) = subject.look([Pixels(framed(files), (2, 1), copies=False)])
    assert isinstance(glance, Glance)
    (found,) = subject.purification.purify([Suspects(glance, framed(files), (1,))])
    assert isinstance(found, bytes)
    assert found.startswith(framed(files[:1]))
    assert found != framed(files)
    broken = framed([files[0], b"gone"])
    (refused,) = subject.purification.purify([Suspects(glance, broken, (1,))])
    assert isinstance(refused, InvalidTensor)


def aggregating(
    calibrations: Path, rule: str = "mean", chain: Sequence[dict[str, Any]] = RANDOM
) -> Purification:
    return scorer(
        calibrations,
        purifiers=chain,
        action="purify",
        aggregate={"copies": 9, "rule": rule},
    ).purification


def test_further_copies_hold_the_suspicious_samples_each_drawn_anew(calibrations: Path) -> None:
    look = scorer(calibrations).look
    glances = look([pixels(CLEAN[:3]), pixels(CLEAN[3:])])
    items = [
        Suspects(glance, x.tobytes(), chosen)
        for glance, x, chosen in zip(glances, (CLEAN[:3], CLEAN[3:]), ((0, 2), (1,)), strict=True)
        if isinstance(glance, Glance)
    ]
    found = aggregating(calibrations).redraw(items)
    width = 4 * 3 * 32 * 32
    assert [[len(copy) for copy in copies] for copies in found if isinstance(copies, tuple)] == [
        [2 * width] * 8,
        [width] * 8,
    ]
    copies = found[0]
    assert isinstance(copies, tuple)
    assert len({bytes(copy) for copy in copies}) > 1
    first = copies[0]
    drawn = np.frombuffer(first, np.float32).reshape(2, 3, 32, 32)
    assert np.abs(drawn - CLEAN[[0, 2]]).mean() < 0.1 < np.abs(drawn[::-1] - CLEAN[[0, 2]]).mean()


def test_what_is_the_same_for_every_copy_comes_before_what_is_not(calibrations: Path) -> None:
    grey = [{"name": "bit_depth", "params": {"bits": 1}}]
    subject = aggregating(calibrations, chain=[*grey, *RANDOM])
    glance = Glance(torch.from_numpy(CLEAN[:1]), {})
    (copies,) = subject.redraw([Suspects(glance, CLEAN[:1].tobytes(), (0,))])
    assert isinstance(copies, tuple)
    # Resized after it, not before; a draw may also keep the size.
    assert max(len(np.unique(np.frombuffer(copy, np.float32))) for copy in copies) > 2
    subject = aggregating(calibrations, chain=[*RANDOM, *grey])
    (copies,) = subject.redraw([Suspects(glance, CLEAN[:1].tobytes(), (0,))])
    assert isinstance(copies, tuple)
    assert all(np.unique(np.frombuffer(copy, np.float32)).tolist() == [0, 1] for copy in copies)


def test_further_copies_of_files_are_files(calibrations: Path) -> None:
    spec = replace(FILES, size=(32, 32), max_pixels=2000)
    files = [as_file(x) for x in CLEAN[:3]]
    glance = Glance(torch.from_numpy(CLEAN[:3]), {})
    subject = scorer(
        calibrations, "encoded", spec, purifiers=RANDOM, action="purify", aggregate={"copies": 3}
    ).purification
    (copies,) = subject.redraw([Suspects(glance, framed(files), (0, 2))])
    assert isinstance(copies, tuple)
    assert len(set(copies)) == 2
    (refused,) = subject.redraw([Suspects(glance, framed([b"gone", *files]), (0,))])
    assert isinstance(refused, InvalidTensor)


def test_the_mean_is_that_of_probabilities_on_the_models_own_scale(calibrations: Path) -> None:
    (found,) = aggregating(calibrations).combine([LOGITS])
    assert isinstance(found, np.ndarray)
    odds = np.exp(LOGITS.astype("f8"))
    share = (odds / odds.sum(2, keepdims=True)).mean(0)
    np.testing.assert_allclose(np.exp(found) / np.exp(found).sum(1, keepdims=True), share, 1e-5)
    # As large as the model's logits are: log-probabilities would stand out among them.
    np.testing.assert_allclose(np.log(np.exp(found).sum(1)), np.log(odds.sum(2)).mean(0), rtol=1e-5)


def test_probabilities_stay_probabilities(calibrations: Path) -> None:
    spec = replace(SPEC, output_kind="probabilities")
    subject = scorer(
        calibrations,
        "digits_like",
        spec,
        purifiers=RANDOM,
        action="purify",
        aggregate={"copies": 2, "rule": "vote"},
    ).purification
    logs = LOGITS - np.log(np.exp(LOGITS).sum(2, keepdims=True))
    (found,) = subject.combine([logs])
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    assert found.argmax(1).tolist() == [1, 1]  # one vote each on the first: the surer one wins


def test_answers_that_are_no_numbers_are_not_combined(calibrations: Path) -> None:
    broken = LOGITS.copy()
    broken[0, 0, 0] = np.nan
    good, bad = aggregating(calibrations).combine([LOGITS, broken])
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, DetectorFailed)
    assert bad.reason == "non_finite"


def test_a_model_that_masks_classes_is_combined(calibrations: Path) -> None:
    masked = LOGITS.copy()
    masked[:, :, 2] = -np.inf
    (found,) = aggregating(calibrations, "vote").combine([masked])
    assert isinstance(found, np.ndarray)
    assert np.isfinite(found).all()


def test_a_model_that_cannot_be_asked_is_refused() -> None:
    model = Model.model_validate({"purifiers": RANDOM, "action": "purify", "aggregate": {}})
    spec = replace(SPEC, decoupled=True)
    with pytest.raises(ConfigError, match="cannot be asked about several copies"):
        Purification(spec, codec_of(spec), model, build_purifiers(model), torch.device("cpu"))
