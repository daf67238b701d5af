"""Halves of an evaluation share no image, and some attacks are kept from the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proxy.errors import ConfigError
from proxy.evaluation import ATTACK, Evaluation, Kind
from tests.tuning.search import scene
from tuning.search.recorded import family, record


def numbered(kind: Kind, start: int = 0) -> Kind:
    """The same with the row's number for its first score."""
    scores = kind.scores.copy()
    scores[:, 0] = np.arange(start, start + len(scores))
    return replace(kind, scores=scores)


def test_a_variation_is_in_the_half_of_its_image() -> None:
    made = scene.made()
    made = replace(made, kinds=tuple(numbered(kind) for kind in made.kinds))
    found = record(made)
    sides = [
        {name: set(each.scores[:, 0].tolist()) for name, each in half.benign.items()}
        for half in (found.searched, found.held)
    ]
    assert sides[0]["clean"] == sides[0]["noise"] == sides[0]["blur"]
    assert not sides[0]["clean"] & sides[1]["noise"]
    assert len(sides[0]["clean"]) == len(sides[1]["clean"]) == 400


def test_attacks_made_from_one_image_are_on_one_side_where_rows_are_told() -> None:
    made = scene.made()
    rows = {"attack/pgd_8": list(range(0, 400, 2)), "attack/pgd_2": list(range(0, 600, 3))}
    kinds = []
    for kind in made.kinds:
        told = rows.get(f"{kind.role}/{kind.name}")
        scores = kind.scores.copy()
        if told is not None:
            scores[:, 0] = told
        kinds.append(replace(kind, scores=scores))
    about = {**made.about, "rows": rows, "families": {n: n for n in scene.SHIFTS}}
    found = record(replace(made, kinds=tuple(kinds), about=about), seed=3)
    assert not set(found.kept_back) & set(rows)
    one = set(found.searched.attacks["pgd_8"].scores[:, 0].tolist())
    other = set(found.held.attacks["pgd_2"].scores[:, 0].tolist())
    assert one
    assert other
    assert not one & other


@pytest.mark.parametrize("rows", [[-1], ["0"], [True], 3, list(range(7))])
def test_rows_that_make_no_sense_are_not_taken(rows: object) -> None:
    made = scene.made()
    about = {**made.about, "rows": {"attack/pgd_8": rows}}
    found = record(replace(made, about=about))
    assert all(each.base is None for each in found.held.attacks.values())


def test_a_family_is_kept_back_whole_and_no_threat_is_left_without() -> None:
    for seed in range(8):
        found = record(scene.made(), seed=seed)
        assert found.kept_back
        assert not set(found.kept_back) & set(found.searched.attacks)
        assert set(found.kept_back) < set(found.held.attacks)
        assert len({"pgd_8", "pgd_2"} & set(found.kept_back)) in (0, 2)
        assert "square_8" in found.searched.attacks  # the only one of its threat model


def test_names_tell_families_where_nothing_else_does() -> None:
    made = scene.made()
    assert family("PGD_8", made) == family("pgd4", made) == "pgd"
    assert family("deepfool", made) == "deepfool"
    told = replace(made, about={"families": {"pgd_8": "gradient"}})
    assert family("pgd_8", told) == "gradient"


def test_what_some_part_learned_from_is_marked() -> None:
    assert record(scene.made()).tuned_on == {"fgsm_8"}


def test_no_attacks_are_no_error() -> None:
    found = record(scene.made(attacked=0))
    assert not found.searched.attacks
    assert not found.kept_back


def test_too_few_benign_samples() -> None:
    with pytest.raises(ConfigError, match="fewer than 40 samples of blur, clean, noise"):
        record(scene.made(benign=30))
    made = scene.made()
    attacks = tuple(kind for kind in made.kinds if kind.role == ATTACK)
    with pytest.raises(ConfigError, match="no benign samples"):
        record(Evaluation(made.detectors, attacks))
