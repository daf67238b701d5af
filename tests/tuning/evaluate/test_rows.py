from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detectors.fusion import Fusion
from detectors.rule import Rule, Threshold
from tuning.evaluate.recording import Recording, Scored, evaluation
from tuning.evaluate.rows import Points, attack_rows, benign_rows, summary_rows
from tuning.evaluate.samples import Images
from tuning.evaluate.sizes import ADAPTIVE, OBLIVIOUS

BENIGN = torch.linspace(0, 1, 300)


def rule(level: float) -> Rule:
    """One detector; a benign share decides: the score that `level` of benign ones are below."""
    fusion = Fusion(("d",), {"clean": BENIGN[:, None]})
    at = float(fusion({"d": torch.tensor([level])})[0])
    return Rule([fusion], [], Threshold(at, 0.01, 0.02, 300, "clean"))


def scored(scores: list[float], right: list[tuple[int, int]], **told: object) -> Scored:
    x = torch.zeros(len(scores), 1, 2, 2)
    y: Tensor | None = torch.zeros(len(scores), dtype=torch.int64)
    images = Images(x, y, x, **told)  # type: ignore[arg-type]
    return Scored(images, torch.tensor(scores)[:, None], torch.tensor(right).bool())


HOSTILE = scored(
    [2.0, 3.0, 0.1, 0.2, 5.0],
    # fooled and put right by purifying; fooled for good; fooled, unseen; not fooled; not fooled
    # but flagged, and purifying makes it wrong
    [(0, 1), (0, 0), (0, 1), (1, 1), (1, 0)],
    threat=OBLIVIOUS,
    attack="pgd8",
    family="gradient_linf",
    tuned_on=True,
)
RECORDING = Recording(
    ("d",),
    ("none", "median"),
    {
        "benign/clean": scored([0.1] * 98 + [2.0, 3.0], [(1, 1)] * 90 + [(0, 0)] * 10),
        "unseen/webp": scored([0.1, math.nan], [(1, 1), (1, 1)]),
        "attack/pgd8": HOSTILE,
        "attack/adaptive": scored([0.1], [(0, 0)], threat=ADAPTIVE),
    },
)


def test_actions_by_hand() -> None:
    judge = rule(1.0)
    points = Points.of(RECORDING, judge)
    (row,) = attack_rows(RECORDING, judge, points)
    assert (row["tried"], row["samples"], row["success"]) == (5, 3, 0.6)
    assert row["tpr"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["robust_none"] == row["robust_flag"] == 0.4
    # Purified where flagged: right, wrong, (unseen) wrong, right, wrong.
    assert row["robust_purify"] == 0.4
    # Refused: the first two and the last; served wrong: the unseen one.
    assert row["robust_block"] == 0.8
    assert row["wrong_served_block"] == 0.2
    assert row["tuned_on"] is True
    assert row["kind"] == "attack"


def test_benign_images_that_are_refused_are_not_right() -> None:
    judge = rule(1.0)
    rows = benign_rows(RECORDING, judge, Points.of(RECORDING, judge))
    clean, webp = rows
    assert clean["fpr"] == 0.02
    assert clean["accuracy_none"] == clean["accuracy_block"] == 0.9  # both flagged ones were wrong
    assert (webp["kind"], webp["failed"], webp["fpr"]) == ("unseen", 1, 0.0)


def test_rates_that_the_images_do_not_support_are_not_told() -> None:
    few = Recording(("d",), ("none",), {"benign/clean": scored([0.1] * 30, [(1, 1)] * 30)})
    points = Points.of(few, rule(1.0))
    assert points.fresh[0] == math.inf
    row = points.shares("fpr", torch.tensor([9.0]))
    assert row["fpr_at_1"] is None
    assert row["fpr_at_5"] == 1.0


def test_summaries_keep_what_was_learned_from_apart() -> None:
    judge = rule(1.0)
    points = Points.of(RECORDING, judge)
    rows = [*benign_rows(RECORDING, judge, points), *attack_rows(RECORDING, judge, points)]
    rows.append({**rows[-1], "tuned_on": False, "tpr": 1.0})
    learned, others, *benign = summary_rows(rows, RECORDING, judge)
    assert (learned["tuned_on"], others["tuned_on"], others["tpr"]) == (True, False, 1.0)
    assert {row["of"]: row["fpr"] for row in benign} == {"benign": 0.02, "unseen": 0.0}


def test_variations_of_an_image_are_not_more_images() -> None:
    """Copies under other names change no figure and narrow no interval."""
    judge = rule(1.0)
    clean = scored([0.1] * 55 + [1.4, 2.0, 2.5, 2.8, 3.0], [(1, 1)] * 60)
    once = Recording(("d",), ("none", "median"), {"benign/clean": clean, "attack/pgd8": HOSTILE})
    copies = {f"benign/copy{i}": clean for i in range(5)}
    often = Recording(once.detectors, once.ways, {**copies, **once.sets})
    found = []
    for recording in (once, often):
        points = Points.of(recording, judge)
        (row,) = attack_rows(recording, judge, points)
        rows = benign_rows(recording, judge, points)
        (mean,) = summary_rows(rows, recording, judge)
        areas = {name: row[name] for name in ("auroc", "auroc_low", "auroc_high")}
        found.append(areas | {name: mean[name] for name in ("fpr", "images")})
        assert float(mean["fpr_low"] or 0) == pytest.approx(
            float(rows[0]["fpr_low"] or 0), abs=0.01
        )
    assert found[0] == found[1]


def test_what_is_stored_is_finite_and_succeeded() -> None:
    stored = evaluation(RECORDING, rule(1.0), {}, {})
    sizes = {f"{kind.role}/{kind.name}": len(kind.scores) for kind in stored.kinds}
    assert sizes == {
        "benign/clean": 100,
        "unseen/webp": 1,
        "attack/pgd8": 3,
        "attack/adaptive": 1,
    }
    assert stored.of("attack")["pgd8"].right is not None
