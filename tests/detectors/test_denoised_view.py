from __future__ import annotations

import pytest

from detectors import DetectorError
from detectors.denoised_view import DenoisedView
from purifiers.learned import Learned


def test_the_view_is_by_the_denoiser_or_the_purifier_named() -> None:
    assert [view.key for view in DenoisedView().views] == ["denoiser"]
    other = DenoisedView("median", {"size": 3})
    assert [view.key for view in other.views] == ["median(size=3)"]


def test_its_network_is_found_among_the_members_of_its_views() -> None:
    members = [member for view in DenoisedView().views for member in view.members]
    assert [type(member).__name__ for member in members if isinstance(member, Learned)] == [
        "Denoiser"
    ]


def test_an_unknown_purifier_is_refused() -> None:
    with pytest.raises(DetectorError, match="denoised_view: view unknown purifier 'denoise'"):
        DenoisedView("denoise")
