"""What an evaluation found, in two sentences."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuning.evaluate.reported import report, share
from tuning.evaluate.conclusion import Findings, sentences
from tuning.page.rows import Row


def attack(name: str, tpr: float, threat: str = "oblivious", **fields: Any) -> Row:
    row: Row = {"kind": "attack", "name": name, "threat": threat, "tuned_on": False}
    right: Row = {"robust_none": 0.2, "robust_purify": 0.5, "robust_block": 0.9}
    return row | {"samples": 100} | share("tpr", tpr, 100) | right | fields


def benign(name: str, fpr: float, kind: str = "benign") -> Row:
    return {"kind": kind, "name": name, "samples": 1000} | share("fpr", fpr, 1000)


def found(*rows: Row) -> Findings:
    return Findings.of({"policy": {"fpr": 0.01}, "rows": list(rows)})


def told(*rows: Row) -> str:
    return " ".join(sentences(found(*rows))).replace("\u00a0", " ")


def test_false_alarms_are_told_against_what_was_wanted() -> None:
    text = told(benign("noise", 0.02), benign("clean", 0.008), benign("webp", 0.05, "unseen"))
    assert text.startswith("Of clean images 0.8 % (0.35 % to 1.57 %) are flagged, wanted at most 1")
    assert "webp fares worst, 5 % (3.73 % to 6.54 %), a kind never calibrated on." in text


def test_what_is_caught_is_told_by_threat_model_with_the_weakest() -> None:
    text = told(attack("pgd8", 0.9), attack("cw", 0.5), attack("grey8", 0.4, "grey-box"))
    assert "on average, 70 % oblivious (2 attacks), 40 % grey-box (1 attack)" in text
    assert "least EOT PGD 8 (grey-box) at 40 % (30.3 % to 50.3 %)" in text
    assert text.endswith("no attack measured succeeded more often than against no defence.")


def test_what_a_part_learned_from_is_no_evidence() -> None:
    text = told(attack("pgd8", 1.0, tuned_on=True), attack("cw", 0.5))
    assert "50 % oblivious (1 attack)" in text
    assert "100 % oblivious" in told(attack("pgd8", 1.0, tuned_on=True))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            attack("cw", 0.5, robust_purify=0.1),
            "CW, oblivious, purify (right answers 10 % instead of 20 %)",
        ),
        (
            {"kind": "adaptive", "branch": "unflagged", "eps_255": 8, "strongest": 0.5}
            | {"undefended_strongest": 0.25},
            "an attacker who knows all, unflagged, 8/255 (50 % instead of 25 %)",
        ),
    ],
)
def test_harm_is_told(row: Row, words: str) -> None:
    text = told(attack("pgd8", 0.9), row)
    assert f"it makes things worse for {words}." in text
    assert "more often" not in text


def test_an_attacker_who_knows_all_is_told_of() -> None:
    row: Row = {"kind": "adaptive", "branch": "either", "eps_255": 8, "undefended_strongest": 1.0}
    small = row | {"eps_255": 2} | share("strongest", 0.9, 10)
    text = told(attack("pgd8", 0.9), small, row | share("strongest", 0.5, 10))
    assert "gets a wrong answer served for 50 % (18.7 % to 81.3 %) of images within 8/255" in text
    assert ", of the undefended model for 100 %;" in text


def test_who_asks_with_more_success_is_harm() -> None:
    asked: Row = {"kind": "query", "name": "square_queries"}
    bare = asked | {"action": "pass-through"} | share("success", 0.5, 10)
    same = asked | {"action": "block"} | share("success", 0.5, 10)
    worse = asked | {"action": "purify"} | share("success", 0.7, 10)
    told = (
        "Square by queries, purify (succeeds for 70\u00a0% instead of 50\u00a0%; intervals overlap)"
    )
    assert found(bare, same, worse).harm() == [told]
    assert found(worse).harm() == []


def test_figures_that_are_not_known_are_left_out() -> None:
    text = told(attack("pgd8", 0.9), {**attack("cw", 0.1), "tpr": None}, benign("clean", 0.0))
    assert "90 % oblivious (1 attack)" in text
    assert "least PGD 8 (oblivious) at" in text
    assert "nan" not in text


def test_attacks_that_hardly_succeed_are_no_evidence() -> None:
    rare = {**attack("transfer_pgd8", 0.0, "transfer"), "samples": 3}
    text = told(attack("pgd8", 0.9), rare)
    assert (
        "90 % oblivious (1 attack) (too few transfer attacks succeed to say), least PGD 8" in text
    )
    assert "too rarely to say" in told(rare)


def test_harm_within_the_intervals_says_so() -> None:
    row = attack("cw", 0.5) | share("robust_none", 0.2, 40) | share("robust_purify", 0.15, 40)
    assert "(right answers 15 % instead of 20 %; intervals overlap)" in told(row)


def test_an_empty_report() -> None:
    assert told() == (
        "How much of clean traffic is flagged was not measured. No attack was measured."
    )
    assert Findings.of({"rows": None, "policy": 3}).rows == []


def test_a_whole_report() -> None:
    text = " ".join(sentences(Findings.of(report())))
    assert text.count(". ") == 1
