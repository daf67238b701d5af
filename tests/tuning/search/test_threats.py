"""Which attacks a policy is judged by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import ConfigError
from tests.tuning.search import scene
from tuning.search.recorded import Recorded, record
from tuning.search.threats import ADAPTIVE, threats_of


def recorded() -> Recorded:
    made = scene.made()
    return record(
        replace(made, about={**made.about, "threats": scene.THREATS | {"fgsm_8": ADAPTIVE}})
    )


def test_all_but_what_was_made_against_one_policy() -> None:
    first, *others = threats_of(recorded())
    assert first.name == "all attacks"
    assert "fgsm_8" not in first.attacks
    assert {threat.name for threat in others} <= {"oblivious", "black-box query", ADAPTIVE}


def test_the_wanted_one_comes_first() -> None:
    found = threats_of(recorded(), "black-box query")
    assert found[0].attacks == ("square_8",)
    assert found[1].name == "all attacks"
    assert len({threat.name for threat in found}) == len(found)


def test_one_that_was_not_recorded() -> None:
    with pytest.raises(ConfigError, match=r"--threat transfer: the evaluation has .*oblivious"):
        threats_of(recorded(), "transfer")
    with pytest.raises(ConfigError, match="no attacks at all"):
        threats_of(record(scene.made(attacked=0)), "transfer")


def test_without_attacks_there_is_one_that_is_empty() -> None:
    (only,) = threats_of(record(scene.made(attacked=0)))
    assert only.attacks == ()
