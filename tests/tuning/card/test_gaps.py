"""Where a defence ends, in words."""

from __future__ import annotations

import detectors
import purifiers
from proxy.config import Config, Model
from tests.tuning.evaluate.reported import report, share
from tests.tuning.evaluate.test_conclusion import attack, benign
from tuning.card.gaps import breaks, missed, uncovered
from tuning.evaluate.conclusion import Findings


def test_every_built_in_part_names_its_break() -> None:
    parts = [detectors.build(n, _NEEDED.get(n)) for n in detectors.DETECTORS]
    chain = [purifiers.build(name) for name in purifiers.PURIFIERS]
    rows = breaks([*parts, *chain])
    silent = [row["part"] for row in rows if "names none" in row["published break"]]
    assert not silent
    told = {row["part"]: row for row in rows}
    assert "any low-frequency perturbation" in told["residual"]["published break"]
    assert told["residual"]["does not see"].startswith("weak PGD (2-4/255)")
    assert "\n" not in str(rows)


_NEEDED = {
    "ensemble": {"models": ["other"]},
    "purified_view": {"purifiers": [{"name": "jpeg"}]},
}


class Silent(detectors.build("residual").__class__):  # type: ignore[misc]
    """A part of one's own."""


def test_a_part_that_says_nothing_is_not_called_safe() -> None:
    (row,) = breaks([Silent()])
    assert row["does not see"] == "its author does not say"
    assert "does not mean that there is none" in row["published break"]


def test_what_an_evaluation_missed() -> None:
    rows = [attack("cw", 0.2), attack("pgd8", 0.9), attack("fgsm8", 0.9, tuned_on=True)]
    rows += [benign("webp", 0.05, "unseen"), benign("gamma", 0.001, "unseen")]
    told = missed(Findings.of({"policy": {"fpr": 0.01}, "rows": rows}))
    assert told[0].startswith("CW (oblivious): 20")
    assert any(text.startswith("webp, benign images of a kind never") for text in told)
    assert not any("gamma" in text or text.startswith("PGD 8") for text in told)
    assert "not measured: adaptive attackers" in told
    assert any("learned from attacks like FGSM 8" in text for text in told)


def test_figures_that_are_missing_are_no_findings() -> None:
    rows = [{"kind": "attack", "name": "cw"}, {"kind": "ood"}, {**share("tpr", 0, 0 + 1)}]
    assert all("nan" not in text for text in missed(Findings.of({"rows": rows})))
    assert missed(Findings.of(report()))


def test_what_the_configuration_leaves_open() -> None:
    told = " ".join(uncovered(Config(shared_memory="passthrough"), Model(annotate=True)))
    for words in ("mode is observe", "annotate is on", "passthrough", "unlisted_models: pass"):
        assert words in told
    closed = Model(on_failure="closed", mode="enforce", action="block")
    strict = " ".join(uncovered(Config(unlisted_models="refuse"), closed))
    for words in ("observe", "action is flag", "on_failure is open", "unlisted"):
        assert words not in strict
