"""Everything rendered is valid: Kubernetes' own schemas, strictly, and ours of the CRDs used."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions, major_minor

from tests.deploy.rendered import OVERLAYS, TARGETS, Object, of_kind, target

VERSIONS = list(dict.fromkeys(major_minor(version) for version in all_versions()))[-3:]
"""The newest minor version there are schemas of, and two before."""
CRDS = {
    schema["title"]: schema
    for file in sorted((Path(__file__).parent / "crds").glob("*.json"))
    if (schema := json.loads(file.read_text()))
}
_EXTENSION = {
    *("annotations", "labels", "deploymentStrategy", "minReplicas", "maxReplicas", "scaleMetric"),
    *("scaleTarget", "containerConcurrency", "timeout", "canaryTrafficPercent"),
}
"""What KServe's predictor has besides the fields of a pod (ComponentExtensionSpec)."""

_APPLY_LIMIT = 262_144
"""Bytes of all annotations (Kubernetes, apimachinery/pkg/api/validation/objectmeta.go): `kubectl
apply` keeps a copy of the object in one, unless it is `--server-side`."""


def validate(found: Object, version: str) -> None:
    """Raise jsonschema.ValidationError where an object is not what its kind must be."""
    schema = CRDS.get(found["kind"])
    if schema is None:
        kubernetes_validate.validate(found, version, strict=True)
        return
    jsonschema.Draft202012Validator(schema).validate(found)
    if found["kind"] == "InferenceService":
        pod = {k: v for k, v in found["spec"]["predictor"].items() if k not in _EXTENSION}
        as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
        kubernetes_validate.validate(as_pod, version, strict=True)


@pytest.mark.parametrize(("name", "version"), list(product(TARGETS, VERSIONS)))
def test_what_is_rendered_is_valid(name: str, version: str) -> None:
    objects = target(name)
    assert objects
    for found in objects:
        validate(found, version)


def test_the_versions_are_those_with_shared_devices() -> None:
    assert len(set(VERSIONS)) == 3
    claims = of_kind(target("gpu-dra"), "ResourceClaimTemplate")
    assert [claim["apiVersion"] for claim in claims] == ["resource.k8s.io/v1"]


def test_nothing_is_named_twice() -> None:
    for name in TARGETS:
        names = [(found["kind"], found["metadata"]["name"]) for found in target(name)]
        assert len(names) == len(set(names)), name


def test_every_overlay_the_issue_names_is_there() -> None:
    wanted = {"cpu", "gpu-dra", "gpu-timeslice", "redis", "kserve", "observe-first"}
    assert wanted <= set(OVERLAYS)


@pytest.mark.parametrize("name", TARGETS)
def test_kubectl_apply_can_keep_its_copy(name: str) -> None:
    for found in target(name):
        copy = json.dumps(json.dumps(found))
        assert len(copy) < _APPLY_LIMIT, f"{found['kind']} {found['metadata']['name']}"


RULE = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "x"},
    "spec": {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up == 0", "for": "5m"}]}]},
}


def _every(kind: str) -> list[Object]:
    return [found for name in TARGETS for found in of_kind(target(name), kind)]


def _broken(kind: str, found: Object) -> list[Any]:
    """Specifications of a kind with something wrong in them."""
    spec = found["spec"]
    if kind == "PodMonitor":
        endpoint = {"port": "metrics", "intervall": "15s"}
        return [{**spec, "podMetricsEndpoints": [endpoint]}, {}]
    if kind == "PrometheusRule":
        both = {"alert": "A", "record": "b", "expr": "up"}
        group = {"name": "g", "rules": [both]}
        return [{"groups": [group]}, {**spec, "group": []}]
    predictor = spec["predictor"]
    typo = {**predictor, "minReplica": 2}
    pod = {**predictor, "volumes": [{"name": "x", "emptydir": {}}]}
    return [{"predictor": typo}, {"predictor": pod}, {}]


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_our_schemas_catch_what_is_wrong(kind: str) -> None:
    found = next(o for o in (*_every(kind), RULE) if o["kind"] == kind)
    validate(found, VERSIONS[-1])
    for spec in _broken(kind, found):
        with pytest.raises(jsonschema.ValidationError):
            validate({**found, "spec": spec}, VERSIONS[-1])


def test_kubernetes_own_schemas_are_strict_about_unknown_fields() -> None:
    (service,) = of_kind(target("base"), "Service")
    service["spec"]["sessionAfinity"] = "None"
    for version in VERSIONS:
        with pytest.raises(jsonschema.ValidationError):
            validate(service, version)
