"""The alerting and recording rules: they fire when they should, on metrics that there are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Metrics, SupervisorMetrics
from proxy.model_metrics import STALE_REASONS
from tests.deploy import rules
from tests.deploy.rules import FOLDER, RULES, TARGET_LABELS, TESTS, needs_promtool, promtool

RUNBOOK = "https://github.com/breakwater-project/breakwater/blob/main/deploy/README.md#"
ALERTS = rules.alerts()

Series = dict[str, dict[str, set[str]]]
"""By name of the samples: the values of each label."""


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What a proxy that has everything shows, and its supervisor."""
    metrics = Metrics()
    metrics.configure({"m": ["residual"]})
    model, shadow = metrics.model("m"), metrics.shadow("m")
    model.threshold("views", 1.0, 0.01)
    model.dispatch(speculative=True)
    model.calibration(0.0)
    shadow.compared("pass", "suspicious")
    shadow.disagreed("none", "block")
    metrics.history_store(True)
    metrics.drift.begin("m", ["verdict"])
    supervisor = SupervisorMetrics(tmp_path_factory.mktemp("workers"))
    text = metrics.exposition()[1] + supervisor.exposition()[1]
    found: Series = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return found


@pytest.mark.parametrize("rule", rules.rules(), ids=lambda rule: rule.get("alert", "record"))
def test_every_metric_and_label_of_a_rule_is_there(rule: dict, exposed: Series) -> None:
    there: set[str] = set(TARGET_LABELS)
    for name, matchers in rules.selected(rule["expr"]):
        assert name in exposed, f"{name} is not exposed"
        there |= exposed[name].keys()
        for label, operator, value in matchers:
            values = value.split("|") if operator.endswith("~") else [value]
            assert set(values) <= exposed[name].get(label, set()), f"{name}: {label}"
    recorded = {"model"} if "namespace_model:" in rule["expr"] else set()
    assert rules.grouped_by(rule["expr"]) <= there | recorded


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    alert, annotations = ALERTS[name], ALERTS[name]["annotations"]
    assert name.startswith("Breakwater")
    assert set(alert["labels"]) == {"severity"}
    assert alert["labels"]["severity"] in ("page", "ticket", "info")
    assert annotations["runbook_url"] == RUNBOOK + name.lower()
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert len(annotations["description"]) > 100
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(annotations.values())))
    expression = alert["expr"]
    kept = rules.grouped_by(expression)
    assert used <= (kept if re.search(r"\bby \(|on \(namespace", expression) else TARGET_LABELS)


def test_names_are_used_once() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules.rules()]
    assert len(names) == len(set(names))
    recorded = {rule["record"] for rule in rules.rules() if "record" in rule}
    wanted = re.findall(
        r"namespace_model:\w+:\w+", " ".join(rule["expr"] for rule in rules.rules())
    )
    assert set(wanted) == recorded, "one is not recorded, or not used"


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    said = [case["name"].partition(" ")[2] for case in rules.cases() if _alert(case) == name]
    assert any(text.startswith("fires: ") for text in said)
    assert any(text.startswith("silent: ") for text in said)


def test_every_case_tests_what_its_name_says() -> None:
    for case in rules.cases():
        name, says, _ = case["name"].replace(":", "").split(" ", 2)
        (asked,) = case["promql_expr_test"]
        assert asked["expr"] == f'ALERTS{{alertname="{name}",alertstate="firing"}}'
        assert (says == "fires") == bool(asked["exp_samples"]), case["name"]
        for sample in asked["exp_samples"]:
            assert f'severity="{ALERTS[name]["labels"]["severity"]}"' in sample["labels"]
    names = [case["name"] for case in rules.cases()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("reason", STALE_REASONS)
def test_every_reason_of_a_stale_calibration_has_a_case(reason: str) -> None:
    assert any(case["name"] == f"BreakwaterCalibrationStale fires: {reason}" for case in CASES)


CASES = rules.cases()


def _alert(case: dict) -> str:
    name: str = case["name"].partition(" ")[0]
    return name


# -- promtool --------------------------------------------------------------------------------------


@needs_promtool
def test_the_rules_are_valid() -> None:
    status, text = promtool("check", "rules", RULES)
    assert status == 0, text
    assert f"{len(rules.rules())} rules found" in text


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_tests(path: Path) -> None:
    status, text = promtool("test", "rules", path, folder=path.parent)
    assert status == 0, text


_FLIPS = {">=": "<", ">": "<", "== 1": "== 0", "== 0": "== 1", "absent": "count"}
_CONDITION = re.compile(r"(?<![\[(])(>=|>(?! 0\))|== 1|== 0|absent)")


def inverted(expression: str) -> str:
    """The same with its last condition turned round; guards against division by zero stay."""
    *_, last = _CONDITION.finditer(expression)
    return expression[: last.start()] + _FLIPS[last[1]] + expression[last.end() :]


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_an_inverted_threshold_fails_a_test_of_every_alert(path: Path, tmp_path: Path) -> None:
    mutated = yaml.safe_load(RULES.read_text())
    for group in mutated["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = inverted(rule["expr"])
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(mutated))
    tests = yaml.safe_load(path.read_text())
    tests["rule_files"] = [str(tmp_path / "rules.yaml")]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(tests))
    status, text = promtool("test", "rules", tmp_path / "test.yaml")
    assert status != 0
    failed = {name for name in ALERTS if f'alertname="{name}"' in text}
    assert failed == {_alert(case) for case in tests["tests"]}


@needs_promtool
def test_the_example_configuration_is_valid() -> None:
    status, text = promtool("check", "config", FOLDER / "prometheus.example.yaml")
    assert status == 0, text
    assert f"{len(rules.rules())} rules found" in text


@needs_promtool
def test_the_example_for_kubernetes_is_valid(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.kubernetes.example.yaml").read_text()
    config = yaml.safe_load(text)
    (job,) = config["scrape_configs"]
    # Debian builds its Prometheus without the discovery of pods.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["static_configs"] = [{"targets": ["127.0.0.1:9092"]}]
    os.symlink(FOLDER / "rules", tmp_path / "rules")
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    status, said = promtool("check", "config", tmp_path / "prometheus.yaml")
    assert status == 0, said
