"""A scrape as JSON, from the metrics themselves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from proxy.console.overview import age_hours, blank, calibration_date, summary
from proxy.metrics import Metrics

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def scraped(metrics: Metrics) -> dict[str, object]:
    shown = summary(metrics.exposition()[1])
    json.dumps(shown, allow_nan=False)
    return shown


def test_what_is_counted_arrives() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.configure({"cnn": ["residual", "margin"]})
    metrics.config_loaded(3)
    cnn = metrics.model("cnn")
    cnn.request("none", "ok")
    cnn.request("purify", "ok")
    cnn.request("none", "cancelled")
    cnn.sample("suspicious")
    cnn.stage("total", 0.003)
    cnn.circuit("margin", is_open=True)
    cnn.detector_failure("budget")
    cnn.fail_open("budget")
    cnn.history_alarm()
    cnn.dispatch(speculative=False)
    cnn.threshold("all", 2.5, 0.012)
    metrics.records({"cnn": 12}, 0)
    shown = summary(metrics.exposition()[1])
    model = shown["models"]["cnn"]
    assert (model["requests"], model["errors"]) == (3, 1)
    assert {name: n for name, n in model["actions"].items() if n} == {"none": 2, "purify": 1}
    assert model["verdicts"]["suspicious"] == 1
    assert model["circuits"] == {"residual": 0, "margin": 1}
    assert (model["failures"], model["fail_open"], model["alarms"]) == (1, 1, 1)
    assert model["speculative"] is False
    assert model["records"] == 12
    assert model["shadow"] == {"compared": 0, "disagreed": 0}
    assert (model["thresholds"], model["fpr_upper"]) == ({"all": 2.5}, {"all": 0.012})
    total = model["stages"]["total"]
    assert total["le"][-1] is None
    assert total["counts"][total["le"].index(2.5)] == 0
    assert total["counts"][total["le"].index(5)] == total["counts"][-1] == 1
    assert shown["totals"]["config_generation"] == 3
    assert shown["totals"]["config_last_reload_successful"] == 1


def test_only_models_with_traffic_or_a_name_are_shown() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.configure({"cnn": []})
    assert set(summary(metrics.exposition()[1])["models"]) == {"cnn"}
    metrics.model("whatever").request("none", "ok")
    assert set(summary(metrics.exposition()[1])["models"]) == {"cnn", "other"}


def test_a_retired_models_thresholds_are_no_numbers_and_not_shown() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.configure({"cnn": ["residual"]})
    metrics.model("cnn").threshold("all", 2.5, 0.01)
    metrics.configure({})
    shown = scraped(metrics)
    assert shown["models"]["cnn"]["thresholds"] == {}


def test_a_foreign_metric_and_an_empty_scrape_are_harmless() -> None:
    assert summary(b"") == {"models": {}, "totals": {}}
    body = b"# TYPE other counter\nother_total 1\n# TYPE breakwater_new gauge\n"
    assert summary(body + b"breakwater_new NaN\n") == {"models": {}, "totals": {}}


def test_blank_models_do_not_share_their_figures() -> None:
    blank()["actions"]["none"] = 1
    assert blank()["actions"] == {}


def test_the_age_of_a_calibration(tmp_path: Path) -> None:
    assert calibration_date(tmp_path) is None
    for text in ("", "[]", "{}", '{"provenance": []}', '{"provenance": {"date": 7}}'):
        (tmp_path / "calibration.json").write_text(text)
        assert age_hours(calibration_date(tmp_path), NOW) is None
    for date in ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00+00:00", "2026-11-22T12:00:00"):
        (tmp_path / "calibration.json").write_text(json.dumps({"provenance": {"date": date}}))
        assert age_hours(calibration_date(tmp_path), NOW) == 24
