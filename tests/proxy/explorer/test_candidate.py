"""What may be asked about, and what is told of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import Cascade
from proxy.errors import ConfigError
from proxy.explorer.candidate import Candidate
from tests.proxy.explorer.scores import NAMES, a_model


def test_nothing_given_is_the_policy_in_force() -> None:
    model = a_model(cascade={})
    assert Candidate.read({}).applied(model) == model


def test_fields_replace_those_of_the_policy() -> None:
    given = {"fpr": 0.2, "detectors": [NAMES[2], NAMES[0]], "cascade": None}
    model = Candidate.read(given).applied(a_model(cascade={}))
    assert (model.fpr, model.cascade) == (0.2, None)
    assert [part.name for part in model.detectors] == [NAMES[0], NAMES[2]]
    assert Candidate.read({"cascade": {"clean": 0.7}}).applied(a_model()).cascade == Cascade(
        clean=0.7
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fpr": 0}, "'fpr': Input should be greater than 0"),
        ({"fpr": 1.0}, "'fpr': Input should be less than 1"),
        ({"fpr": "nan"}, "'fpr'"),
        ({"fpr": [1]}, "'fpr'"),
        ({"detectors": "residual"}, "'detectors'"),
        ({"detectors": ["x" * 201]}, r"'detectors\.0'"),
        ({"detectors": ["x"] * 101}, "'detectors'"),
        ({"cascade": {"clean": 0.1, "suspicious": 0.2}}, "suspicious must be less than clean"),
        ({"action": "block"}, "'action': Extra inputs"),
        ({"\x1b[2J": 1}, r"'\\x1b\[2J': Extra inputs"),
        ([], "the candidate"),
        (3, "the candidate"),
    ],
)
def test_what_cannot_be_used_is_told(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Candidate.read(given)


@pytest.mark.parametrize("names", [[], ["energy"], ["residual", "nonesuch"]])
def test_only_configured_detectors_are_calibrated(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="detectors must be some of"):
        Candidate.read({"detectors": names}).applied(a_model())
