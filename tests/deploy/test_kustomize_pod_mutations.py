"""What a policy of a pod's life is there for, broken one thing at a time."""

from __future__ import annotations

import pytest

from tests.deploy import pod_policies as pods
from tests.deploy.changes import (
    Change,
    an,
    configured,
    flag,
    one,
    pod,
    server,
    sidecar,
    without,
)
from tests.deploy.policies import Policy
from tests.deploy.rendered import target
from tests.deploy.test_kustomize_policies import EVERYWHERE, OURS

SECRET = {"kind": "Secret", "metadata": {"name": "x"}}

BREAKS: list[tuple[Policy, str, Change]] = [
    (pods.probes_are_answered, "base", sidecar("livenessProbe")),
    (pods.probes_are_answered, "base", sidecar("readinessProbe", "grpc", "service", to="ready")),
    (pods.probes_are_answered, "base", sidecar("startupProbe", "grpc", "port", to=8001)),
    (
        pods.probes_are_answered,
        "base",
        server("readinessProbe", to={"httpGet": {"path": "/v2/health/ready", "port": 8000}}),
    ),
    (pods.probes_are_answered, "base", server("livenessProbe", "terminationGracePeriodSeconds")),
    (pods.draining_is_in_time, "base", pod("terminationGracePeriodSeconds", to=75)),
    (pods.draining_is_in_time, "base", pod("terminationGracePeriodSeconds")),
    (pods.draining_is_in_time, "base", server("lifecycle", "preStop", "sleep", "seconds", to=60)),
    (pods.draining_is_in_time, "base", server("lifecycle")),
    (pods.draining_is_in_time, "base", flag("--exit-timeout-secs=30")),
    (
        pods.draining_is_in_time,
        "base",
        sidecar("lifecycle", "preStop", "exec", "command", to=["sleep", "40"]),
    ),
    (
        pods.draining_is_in_time,
        "base",
        sidecar("lifecycle", "preStop", "exec", "command", to=["breakwater", "drain", "--wait"]),
    ),
    (pods.draining_is_in_time, "base", configured("drain_seconds: 55", "drain_seconds: 53")),
    (pods.draining_is_in_time, "base", configured("connection_age_s: 20", "connection_age_s: 0")),
    (pods.draining_is_in_time, "base", configured("connection_age_s: 20", "connection_age_s: 60")),
    (
        pods.draining_is_in_time,
        "base",
        configured("drain_delay_seconds: 5", "drain_delay_seconds: 15"),
    ),
    (
        pods.draining_is_in_time,
        "base",
        configured("upstream_timeout_s: 30", "upstream_timeout_s: 300"),
    ),
    (pods.sidecar_is_native, "base", sidecar("restartPolicy")),
    (pods.sidecar_is_native, "kserve", sidecar("name", to="breakwater")),
    (
        pods.sidecar_is_native,
        "kserve",
        one(
            "InferenceService",
            "metadata",
            "annotations",
            "serving.kserve.io/deploymentMode",
            to="Serverless",
        ),
    ),
    (
        pods.rollout_keeps_capacity,
        "base",
        one("Deployment", "spec", "strategy", "rollingUpdate", "maxUnavailable", to=1),
    ),
    (pods.rollout_keeps_capacity, "kserve", pod("deploymentStrategy", to={"type": "Recreate"})),
    (pods.resources_are_bounded, "base", server("resources", "limits", "memory")),
    (pods.resources_are_bounded, "base", sidecar("resources")),
    (pods.resources_are_bounded, "base", sidecar("resources", "limits", "cpu", to="500m")),
    (pods.references_resolve, "base", pod("serviceAccountName", to="nobody")),
    (pods.references_resolve, "base", pod("volumes", 0, "secret", "secretName", to="other")),
    (pods.references_resolve, "base", without("ConfigMap")),
    (pods.references_resolve, "base", pod("volumes", 0)),
    (pods.references_resolve, "base", sidecar("volumeMounts", 0, "mountPath", to="/tmp")),
    (pods.references_resolve, "gpu-dra", without("ResourceClaimTemplate")),
    (pods.references_resolve, "gpu-dra", sidecar("resources", "claims")),
    (
        pods.configured_files_are_mounted,
        "base",
        configured("/etc/breakwater/secrets/breakwater.key", "/etc/secrets/breakwater.key"),
    ),
    (
        pods.configured_files_are_mounted,
        "observe-first",
        configured("/var/lib/breakwater/calibration/resnet50", "calibration/resnet50"),
    ),
    (pods.no_secret_is_kept, "base", an(SECRET)),
    (pods.no_secret_is_kept, "base", server("volumeMounts", 0, "name", to="breakwater-secrets")),
    (pods.no_secret_is_kept, "redis", server("volumeMounts", 0, "name", to="breakwater-history")),
]


@pytest.mark.parametrize(
    ("policy", "name", "change"),
    BREAKS,
    ids=[f"{policy.__name__}-{at}" for at, (policy, _, _) in enumerate(BREAKS)],
)
def test_a_broken_manifest_is_caught(policy: Policy, name: str, change: Change) -> None:
    objects = target(name)
    assert not list(policy(objects))
    change(objects)
    assert list(policy(objects))


def test_every_policy_is_shown_to_catch_something() -> None:
    wanted = {policy for policy in (*EVERYWHERE, *OURS) if policy.__module__ == pods.__name__}
    assert {policy for policy, _, _ in BREAKS} == wanted
