"""The alert rules as the Prometheus operator's object, made from the plain rule files.

`python -m tests.deploy.prometheus_rule > deploy/kustomize/monitoring/prometheusrule.yaml` writes it
again; kustomize cannot put a file's content into an object's fields.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules"
_HEAD = """\
# Made from ../../prometheus/rules, where to change it, by
# python -m tests.deploy.prometheus_rule > deploy/kustomize/monitoring/prometheusrule.yaml
"""


class _Dumper(yaml.SafeDumper):
    """Expressions stay readable: texts of several lines as they were."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def manifest(rules: Path = RULES) -> str:
    """The PrometheusRule, as YAML."""
    files = sorted(rules.glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    found = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "breakwater", "labels": {"app.kubernetes.io/name": "breakwater"}},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=100)


if __name__ == "__main__":
    sys.stdout.write(manifest())
