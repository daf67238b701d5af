"""What the monitoring component brings: all rules, the dashboard as it is, ports that exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.deploy.prometheus_rule import RULES, manifest
from tests.deploy.rendered import KUSTOMIZE, containers, defended, of_kind, target


def test_the_rules_are_those_of_the_rule_files() -> None:
    there = (KUSTOMIZE / "monitoring" / "prometheusrule.yaml").read_text()
    assert there == manifest(), "see the first lines of that file"
    (rule,) = of_kind(target("monitoring"), "PrometheusRule")
    plain = [
        g for f in sorted(RULES.glob("*.yaml")) for g in yaml.safe_load(f.read_text())["groups"]
    ]
    assert rule["spec"]["groups"] == plain


def test_a_changed_rule_file_is_noticed(tmp_path: Path) -> None:
    group = {"name": "other", "rules": [{"alert": "A", "expr": "up\n== 0"}]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    assert yaml.safe_load(manifest(tmp_path))["spec"]["groups"] == [group]


def test_the_dashboard_is_found_by_grafana() -> None:
    (found,) = [
        c for c in of_kind(target("monitoring"), "ConfigMap") if "breakwater.json" in c["data"]
    ]
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(found["data"]["breakwater.json"])["title"]


@pytest.mark.parametrize("name", ["monitoring", "foreign/flags-in-args"])
def test_scraped_ports_are_declared(name: str) -> None:
    objects = target(name)
    (monitor,) = of_kind(objects, "PodMonitor")
    _, pod = defended(objects)
    declared = {port["name"] for c in containers(pod) for port in c.get("ports", [])}
    assert {e["port"] for e in monitor["spec"]["podMetricsEndpoints"]} <= declared
