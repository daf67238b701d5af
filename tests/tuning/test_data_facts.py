"""What was found in a data file, in words; warnings are tested with what they are about."""

from __future__ import annotations

from tests.tuning.test_lineage import images, look
from tuning.data_facts import facts, summary


def test_the_summary_is_one_line() -> None:
    told = summary(look(images(30), [0] * 30))
    assert told.startswith(
        "benign.npz (licence: not stated), 30 images of 3x24x24 float32, 1 class"
    )
    assert "0 copies" in told
    assert "\n" not in told


def test_the_facts_say_how_each_was_judged() -> None:
    x = images(60)
    x[5] = x[2]
    told = dict(facts(look(x)))
    assert told["copies"].startswith("1 of 60 (1.7%, e.g. sample 5); judged by: equal to")
    assert "thumbnails of 16x16 pixels" in told["near copies"]
    assert told["classes"] == "no labels in the file, so the balance is not known"
    assert told["samples"] == "60 (images of 3x24x24 float32)"
    assert dict(facts(look(x, [0, 1] * 30)))["classes"].startswith("2, of 30 to 30 samples")
