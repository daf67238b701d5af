"""What is stored of a data file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.lineage import LONGEST, Finding, Lineage

NONE = Finding(count=0, looked_at=10, how="looked")
FIELDS = {
    "sha256": "ab" * 32,
    "source": "cameras of the north gate",
    "kind": "image",
    "samples": 10,
    "shape": (3, 8, 8),
    "dtype": "uint8",
    "duplicates": NONE,
    "near_duplicates": NONE,
    "effective": 10,
    "constant": NONE,
    "outliers": NONE,
    "date": "2026-01-02T03:04:05Z",
    "versions": {"breakwater": "0.1.0"},
}


def test_what_is_stored_comes_back() -> None:
    lineage = Lineage.model_validate(FIELDS)
    assert Lineage.model_validate_json(lineage.model_dump_json()) == lineage
    assert lineage.licence == "not stated"


def test_a_share_is_of_those_looked_at() -> None:
    assert Finding(count=3, looked_at=12, how="").share == 0.25
    assert Finding(count=0, looked_at=0, how="").share == 0.0


@pytest.mark.parametrize(
    "change",
    [{"source": "x" * (LONGEST + 1)}, {"samples": 0}, {"effective": 0}, {"surprise": 1}],
)
def test_what_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Lineage.model_validate(FIELDS | change)


def test_examples_are_few() -> None:
    with pytest.raises(ValidationError):
        Finding(count=11, looked_at=20, how="", examples=tuple(range(11)))
