from __future__ import annotations

import pytest
import torch

from detectors import DetectorError
from detectors.base import Evidence
from detectors.feature_squeezing import FeatureSqueezing
from detectors.jpeg_view import JpegView
from tests.detectors.test_views import answers


def test_it_is_feature_squeezing_with_one_view() -> None:
    output, views = answers(200)
    given = Evidence(torch.zeros(200, 1, 4, 4), output, {"jpeg(quality=60)": views[0]})
    same = [
        JpegView(quality=60),
        FeatureSqueezing([{"name": "jpeg", "params": {"quality": 60}}]),
    ]
    for detector in same:
        detector.fit({"clean": given})
    assert torch.equal(same[0].score(given), same[1].score(given))


def test_the_quality_is_checked() -> None:
    with pytest.raises(DetectorError, match="jpeg_view: view jpeg: quality must be 1 to 100"):
        JpegView(quality=0)
