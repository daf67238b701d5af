"""The contract every part must keep, and what these two do."""

from __future__ import annotations

import torch
from breakwater_example.posterise import Posterise
from breakwater_example.saturation import Saturation

from detectors import Evidence, build
from tuning.contract import check_detector, check_purifier


def test_the_contract_of_detectors() -> None:
    check_detector(Saturation)
    check_detector(lambda: Saturation(margin=0.1), shape=(1, 8, 8))


def test_the_contract_of_purifiers() -> None:
    check_purifier(Posterise())
    check_purifier(Posterise(levels=2), shape=(1, 8, 8))


def test_clipped_images_stand_out() -> None:
    detector = Saturation()
    benign = torch.rand(50, 3, 16, 16)
    detector.fit({"clean": Evidence(benign)})
    clipped = benign[:1].clone()
    clipped[:, :, :8] = 1.0
    scores = detector.score(Evidence(torch.cat([benign[:1], clipped])))
    assert scores[1] > scores[0] + 1


def test_a_configuration_finds_them_once_installed() -> None:
    assert isinstance(build("saturation", {"margin": 0.01}), Saturation)
