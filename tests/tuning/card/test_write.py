"""The card of a model's defence, from the command line to Markdown and a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import artifacts, configfile
from proxy.cli import main
from proxy.config import Model
from tests.proxy.test_artifacts import STATES, calibration, provenance
from tests.tuning.evaluate.reported import HOSTILE, lineage, report
from tests.tuning.page.reader import fetches_nothing, read
from tuning.card.content import content
from tuning.card.state import doubts, gather

MODEL = "resnet20"
FIELDS: dict[str, Any] = {
    "calibration": "calibrated",
    "inputs": [{"name": "image", "layout": "NCHW"}, {"name": "id", "inspect": False}],
    "detectors": [{"name": "residual"}, {"name": "feature_squeezing"}],
    "purifiers": [{"name": "jpeg"}],
    "mode": "enforce",
    "action": "purify",
    "fpr": 0.05,
}
SECTIONS = [
    *("What is defended", "What makes this card doubtful", "Against what", "What was found"),
    *("Thresholds", "Known gaps", "Measured how", "Benign data"),
    *("What is stored, and for how long", "Whom to ask"),
]

Config = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Writes a configuration with fields changed, and its calibration."""

    def write(
        *, calibrated: bool = True, made: dict[str, Any] | None = None, **fields: Any
    ) -> Path:
        model = FIELDS | fields
        file = tmp_path / "breakwater.yaml"
        file.write_text(yaml.safe_dump({"models": {MODEL: model}}))
        if calibrated:
            defence = artifacts.defence_of(Model.model_validate(model))
            told = {"model": MODEL, "defence": defence, "data": lineage()} | (made or {})
            artifacts.save(
                tmp_path / "calibrated",
                calibration=calibration(),
                states=STATES,
                provenance=provenance(**told),
            )
        return file

    return write


def card(config: Path, *options: str) -> int:
    return main(["card", "--config", str(config), "--model", MODEL, *options])


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        file = tmp_path / "report.json"
        file.write_text(json.dumps(report(**changes)))
        return file

    return write


def test_a_card_without_a_report_says_that_nothing_was_measured(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert card(config()) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# Defence of {MODEL}\n")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert text.count("Nothing was measured: no evaluation was given") == 3
    assert "| owner of this defence |  |" in text
    assert "inputs that are not inspected: id" in text
    assert "cameras of the north gate" in text
    assert "| residual |" in text
    assert "a penalty on the score in the attack's loss" in text
    assert "the detector \\`history\\` is not configured" in text


def test_a_card_with_a_report_tells_results_and_gaps(
    config: Config, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "cards" / "card.md"
    assert card(config(), "--report", str(evaluated()), "--out", str(out)) == 0
    text = out.read_text()
    assert "Nothing was measured" not in text
    assert "| FGSM 8 | oblivious | 160 |" in text
    assert "PGD 2 (tuned on)" in text
    assert "an attacker who knows all gets a wrong answer served for 71.9 %" in text
    assert "| evaluation, command | breakwater evaluate" in text
    assert "5% of the samples are copies" in text
    assert "| views | residual, feature\\_squeezing |" in text


def test_a_page_says_the_same(
    config: Config, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "card.html"
    assert card(config(), "--report", str(evaluated().parent), "--out", str(out)) == 0
    text = out.read_text()
    assert read(text).headings == SECTIONS
    fetches_nothing(text)
    assert "FGSM 8" in text


def test_the_configured_evaluation_is_the_default(
    config: Config, evaluated: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated()
    assert card(config(evaluation=".")) == 0
    assert "Nothing was measured" not in capsys.readouterr().out


def test_a_calibration_that_cannot_be_used_is_told_not_fatal(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert card(config(calibrated=False)) == 0
    text = capsys.readouterr().out
    assert "the calibration cannot be used: calibration" in text
    assert "There is no usable calibration" in text


def test_a_model_that_is_only_validated(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fields: dict[str, Any] = {"detectors": [], "purifiers": [], "action": "flag"}
    assert card(config(calibrated=False, **fields)) == 0
    text = capsys.readouterr().out
    assert "nothing is scored" in text
    assert "No detectors and no purifiers are configured." in text


def test_an_older_calibration_has_only_its_digest(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert card(config(made={"data": None})) == 0
    text = capsys.readouterr().out
    assert f"Only the digest is known: {'ab' * 32}" in text
    assert "made before lineage was kept" in text


def test_doubts(config: Config, evaluated: Callable[..., Path]) -> None:
    file = evaluated(
        defence="of another",
        versions=["7"],
        quick=True,
        breakwater="0.0.1",
        notes=["calibrated on this very data"],
    )
    made = {"breakwater": "0.0.2", "date": "2026-01-02T03:04:05Z"}
    state = gather(configfile.load(config(made=made)), MODEL, file)
    told = "\n".join(doubts(state, datetime(2026, 6, 1, tzinfo=UTC)))
    for words in (
        "149 days old",
        "calibrated by breakwater 0.0.2",
        "calibrated on this very data",
        "a quick one",
        "evaluated by breakwater 0.0.1",
        "of model version 1, the evaluation of 7",
        "of another calibration or configuration",
        "at a false-positive rate of 0.01, not 0.05",
    ):
        assert words in told
    fresh = gather(configfile.load(config()), MODEL, evaluated(policy={"fpr": 0.05}))
    fresh_day = datetime(2026, 1, 3, tzinfo=UTC)
    assert doubts(fresh, fresh_day) == []
    assert fresh.artifact is not None
    same = evaluated(policy={"fpr": 0.05}, defence=fresh.artifact.digest)
    assert doubts(gather(configfile.load(config()), MODEL, same), fresh_day) == []


@pytest.mark.parametrize("date", ["yesterday", "2026-01-02", "2026-01-02T03:04:05"])
def test_dates_of_any_form(config: Config, date: str) -> None:
    state = gather(configfile.load(config(made={"date": date})), MODEL, None)
    assert len(doubts(state, datetime(2026, 1, 3, tzinfo=UTC))) == 0


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a report of `breakwater evaluate`"),
        ('{"model": "resnet20"}', "it has no rows"),
        ('{"model": "other", "rows": []}', "is of model 'other', not 'resnet20'"),
        ("\x00" * 100, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_reports_that_are_none(
    config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    written: str | None,
    message: str,
) -> None:
    file = tmp_path / "report.json"
    if written is not None:
        file.write_text(written)
    assert card(config(), "--report", str(file)) == 2
    assert message in capsys.readouterr().err


def test_words_that_do_not_fit(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert card(config(), "--out", "card.pdf") == 2
    assert "must end in .md or .html" in capsys.readouterr().err
    assert main(["card", "--config", str(config()), "--model", "other"]) == 2
    assert "no model 'other' in the configuration (there: resnet20)" in capsys.readouterr().err
    assert main(["card", "--model", MODEL]) == 2
    assert "card needs --config FILE" in capsys.readouterr().err
    assert card(config(), "--out", "/proc/none/card.md") == 2
    assert "--out /proc/none/card.md" in capsys.readouterr().err


def test_whatever_a_report_holds_is_text(
    config: Config,
    evaluated: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = f"{HOSTILE}\x1b[2J\n# heading\n| a | b |"
    file = evaluated(
        command=hostile,
        machine=hostile,
        notes=[hostile],
        data=lineage(source=hostile).model_dump(mode="json"),
    )
    assert card(config(), "--report", str(file)) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "<script" not in text
    assert "\n# heading" not in text
    out = tmp_path / "card.html"
    assert card(config(), "--report", str(file), "--out", str(out)) == 0
    fetches_nothing(out.read_text())
    assert "<script" not in out.read_text()
    assert "\x1b" not in capsys.readouterr().err


def test_what_is_kept_is_told(config: Config) -> None:
    loaded = configfile.load(config(calibrated=False))
    remembering = loaded.models[MODEL].model_copy(
        update={"detectors": (*loaded.models[MODEL].detectors, _part("history"))}
    )
    loaded = loaded.model_copy(update={"models": {MODEL: remembering}})
    told = str(content(gather(loaded, MODEL, None))["What is stored, and for how long"])
    assert "Salted fingerprints of up to 200000 queries in memory, for 60 minutes" in told


def _part(name: str) -> Any:
    return Model.model_validate({"calibration": "c", "detectors": [{"name": name}]}).detectors[0]
