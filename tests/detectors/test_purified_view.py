from __future__ import annotations

import pytest

from detectors import DetectorError
from detectors.purified_view import PurifiedView

MEDIAN = {"name": "median"}
JPEG = {"name": "jpeg", "params": {"quality": 50}}


def test_the_view_is_the_whole_chain() -> None:
    assert [view.key for view in PurifiedView([MEDIAN]).views] == ["median(size=2)"]
    chain = PurifiedView([MEDIAN, JPEG]).views
    assert [view.key for view in chain] == ["median(size=2) > jpeg(quality=50)"]


def test_without_purifiers_it_says_what_to_do() -> None:
    with pytest.raises(DetectorError, match="give the model some, or the detector"):
        PurifiedView()
