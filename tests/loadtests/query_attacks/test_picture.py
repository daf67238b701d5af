"""The picture, from rows of all kinds and of none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.harness import Row
from loadtests.query_attacks.picture import FALSE, NAMES, draw

DETECTED: list[Row] = [
    {"section": section, "attack": attack, "detected_at": "2 5 - 40 1"} for section, attack in NAMES
]
RAISED: list[Row] = [
    {"figure": name, "value": 0.05, "interval": "0.010 to 0.200", "to_reach": "<= 0.5"}
    for name in FALSE
]


@pytest.mark.parametrize("rows", [[], DETECTED[:1], DETECTED, RAISED, DETECTED + RAISED])
def test_a_picture_of_what_there_is(rows: list[Row], tmp_path: Path) -> None:
    file = tmp_path / "docs" / "picture.png"
    draw([{"section": "set up", "seconds": 3}, *rows], file)
    with Image.open(file) as drawn:
        assert drawn.width == 1200
        assert len(np.unique(np.asarray(drawn.convert("L")))) > 10


def test_what_is_never_detected_has_a_line(tmp_path: Path) -> None:
    draw([{"section": "detect", "attack": "simba", "detected_at": "- - -"}], tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()
