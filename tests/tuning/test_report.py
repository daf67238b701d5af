"""`breakwater check`: what would be enforced, and the exit status that says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from detectors import DETECTORS
from loadtests.harness import free_port
from proxy.artifacts import JSON_FILE
from proxy.cli import main
from purifiers import PURIFIERS
from tests.defended import settings_of
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def check(triton: EmbeddedTriton, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on a configuration; the exit status."""

    def command(models: dict[str, Any], **settings: Any) -> int:
        content = {"upstream": triton.grpc_address, "models": models, **settings}
        file = tmp_path / "breakwater.yaml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(content, default=str))))
        return main(["check", "--config", str(file)])

    return command


def cells(text: str) -> list[list[str]]:
    """The rows of all tables printed."""
    return [[c.strip() for c in line.strip("│┃ ").split("│")] for line in text.splitlines()]


def rows(text: str) -> dict[str, str]:
    """The cells of all two-column tables printed."""
    return {row[0]: row[1] for row in cells(text) if len(row) == 2}


def test_the_schema_is_the_one_in_the_repository(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((CHECKOUT / "deploy" / "config.schema.json").read_text())


def test_every_part_is_listed_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--list"]) == 0
    printed = {row[0]: row[1:] for row in cells(capsys.readouterr().out) if len(row) == 3}
    assert set(printed) == {*DETECTORS, *PURIFIERS}
    assert all(all(columns) for columns in printed.values())
    assert printed["residual"][0] == "image"
    assert printed["margin"][0] == "any"
    assert printed["quantise"][0] == "vector, waveform"


def test_without_a_file_it_is_a_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--upstream", "127.0.0.1:1"]) == 0
    printed = capsys.readouterr().out
    assert "no models configured: a hardened pass-through" in printed
    assert rows(printed)["RPC groups allowed"] == "health, inference, metadata"


def test_without_triton_it_is_shown_as_configured(
    check: Callable[..., int], calibrations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = settings_of(calibrations, {"digits_like": {}})
    assert check(models, upstream="127.0.0.1:1") == 0
    printed = capsys.readouterr().out
    assert "Triton at 127.0.0.1:1: the model server cannot be reached" in printed
    assert "versions served" not in rows(printed)
    assert rows(printed)["budget"] == "10000 ms, then fail open"
    assert rows(printed)["fail open"] == "a failing or overloaded detector lets requests pass"


def test_a_defended_model_is_shown_as_triton_completes_it(
    check: Callable[..., int], calibrations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = settings_of(calibrations, {"digits_like": {"action": "purify"}})
    assert check(models, unlisted_models="refuse", rpc={"allow": ["trace"]}) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["input"] == "image FP32 [-1, 3, 32, 32], NCHW"
    assert shown["holds"] == "images"
    assert shown["pixel 0 .. 1 on the wire"] == "0 .. 1"
    assert shown["output"] == "logits (logits)"
    assert shown["largest query"] == "64 samples"
    assert shown["versions served"] == "1"
    assert shown["mode"] == "enforce, purify"
    assert shown["detectors"] == "residual, margin, energy, feature_squeezing"
    assert shown["purifiers"] == "median"
    assert shown["unlisted models"] == "refuse"
    assert "trace" in shown["RPC groups allowed"]
    assert "on 150 samples, model version 1" in shown["calibrated"]
    assert "calibration" not in shown
    for level in ("input", "output", "views"):
        assert "for 5.00% false positives (at most" in shown[f"threshold ({level})"]


def test_what_is_off_by_default_is_shown_where_it_is_on(
    check: Callable[..., int],
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(settings_of(calibrations, {"digits_like": {}})) == 0
    assert not {"cascade", "secrecy", "aggregate"} & set(rows(capsys.readouterr().out))
    (tmp_path / "key").write_text("0123456789abcdef")
    fields = {
        "cascade": {"clean": 0.6},
        "secrecy": {"key_file": "key", "rotate_hours": 12},
        "action": "purify",
        "purifiers": [{"name": "resize_pad"}],
        "aggregate": {"copies": 5, "rule": "vote"},
    }
    assert check(settings_of(calibrations, {"digits_like": fields})) == 0
    shown = rows(capsys.readouterr().out)
    assert "60.0% of benign samples look more suspicious, or at most 0.1%" in shown["cascade"]
    assert shown["secrecy"].startswith("70% of the detectors, drawn anew every 12 h by ")
    assert shown["aggregate"] == "majority vote over 5 purified copies"
    fields["purifiers"] = [{"name": "median"}]
    assert check(settings_of(calibrations, {"digits_like": fields})) == 2
    assert "median would make 5 equal copies" in capsys.readouterr().err


@pytest.mark.parametrize("fields", [{"mode": "observe"}, {"on_failure": "closed"}])
def test_only_what_is_enforced_can_fail_open(
    check: Callable[..., int],
    calibrations: Path,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, str],
) -> None:
    assert check(settings_of(calibrations, {"digits_like": fields})) == 0
    assert "fail open" not in rows(capsys.readouterr().out)


def test_a_calibration_of_another_version_is_shown(
    check: Callable[..., int],
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(calibrations / "digits_like", tmp_path / "older")
    file = folder / JSON_FILE
    content = json.loads(file.read_text())
    content["provenance"]["model_version"] = "7"
    file.write_text(json.dumps(content))
    assert check(settings_of(calibrations, {"digits_like": {"calibration": folder}})) == 0
    shown = rows(capsys.readouterr().out)["calibration"]
    assert shown == "made on version 7, Triton serves 1: calibrate again"


def test_stateful_decoupled_and_encoded_models(
    check: Callable[..., int], calibrations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = settings_of(calibrations, {"sequence_sum": {}, "repeat": {"mode": "observe"}})
    assert check(models) == 0
    printed = capsys.readouterr().out
    assert "stateful: scored on the input only" in printed
    assert "decoupled: scored on the input only" in printed
    assert "observe" in printed
    assert check(settings_of(calibrations, {"encoded": {}})) == 0
    assert "image BYTES [-1, 1], encoded JPEG/PNG" in capsys.readouterr().out


def test_what_triton_contradicts_is_a_problem(
    check: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check({"absent": {"non_finite": "pass"}}) == 1
    assert "Triton does not describe it" in rows(capsys.readouterr().out)["problem"]


def test_a_model_that_is_only_validated_is_no_problem(
    check: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check({"all_types": {"non_finite": "pass"}}) == 0
    shown = rows(capsys.readouterr().out)
    assert "problem" not in shown
    assert shown["detectors"] == "none"


def test_what_cannot_be_used_at_all(
    check: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(settings_of(tmp_path, {"digits_like": {}})) == 2
    assert "calibration.json is missing" in capsys.readouterr().err
    assert check({}, surprise=1) == 2
    assert "surprise" in capsys.readouterr().err


def test_the_memory_of_queries_is_described(
    check: Callable[..., int], calibrations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = settings_of(calibrations, {"digits_like_again": {}})
    model["digits_like_again"]["query_attacks"] = {"action": "block", "quarantine_minutes": 5}
    assert check(model, history={"capacity": 1234}) == 0
    printed = rows(capsys.readouterr().out)
    assert "1234 queries" in printed["remembers"]
    assert printed["shared with"] == "nobody"
    assert "one principal" in printed["principals"]
    assert printed["query attacks"].startswith("block, 5 min of quarantine")


def test_a_shared_history_that_cannot_be_reached_is_told(
    check: Callable[..., int],
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    history = {"key_file": key, "shared": {"url": f"redis://127.0.0.1:{free_port()}"}}
    assert check(settings_of(calibrations, {"digits_like_again": {}}), history=history) == 0
    assert "down: unreachable" in rows(capsys.readouterr().out)["shared with"]


def test_a_secret_that_is_none_is_an_error(
    check: Callable[..., int],
    calibrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = tmp_path / "key"
    key.write_text("short")
    models = settings_of(calibrations, {"digits_like_again": {}})
    assert check(models, history={"key_file": key}) == 2
    assert "openssl rand" in capsys.readouterr().err
