"""What a policy of reachability and confinement is there for, broken one thing at a time."""

from __future__ import annotations

import pytest

from tests.deploy import policies
from tests.deploy.changes import (
    Change,
    configured,
    flag,
    more,
    one,
    pod,
    server,
    sidecar,
    without,
)
from tests.deploy.policies import Policy
from tests.deploy.rendered import target
from tests.deploy.test_kustomize_policies import EVERYWHERE, OURS

OPEN = {"ports": [{"protocol": "TCP", "port": 8001}]}
RANGE = {"ports": [{"protocol": "TCP", "port": 8101, "endPort": 9000}]}
NOBODY = {"matchLabels": {"app": "nobody"}}
UNBOUND = [{"name": "x", "emptyDir": {}}]
NODE = [{"name": "x", "hostPath": {"path": "/"}}]
ROOTLESS = ("template", "spec", "securityContext", "runAsUser")


BREAKS: list[tuple[Policy, str, Change]] = [
    (policies.sidecar_is_confined, "base", sidecar("securityContext", "privileged", to=True)),
    (policies.sidecar_is_confined, "base", sidecar("securityContext", "runAsUser", to=0)),
    (policies.sidecar_is_confined, "base", sidecar("securityContext", "runAsNonRoot", to=False)),
    (
        policies.sidecar_is_confined,
        "foreign/flags-in-args",
        sidecar("securityContext", "seccompProfile"),
    ),
    (
        policies.sidecar_is_confined,
        "foreign/flags-in-args",
        sidecar("securityContext", "runAsUser"),
    ),
    (policies.sidecar_is_confined, "kserve", sidecar("ports", 0, "hostPort", to=8101)),
    (policies.pods_are_confined, "base", server("securityContext", "allowPrivilegeEscalation")),
    (policies.pods_are_confined, "base", server("securityContext", "capabilities", "drop", to=[])),
    (
        policies.pods_are_confined,
        "base",
        server("securityContext", "capabilities", "add", to=["SYS_ADMIN"]),
    ),
    (policies.pods_are_confined, "base", server("securityContext", "readOnlyRootFilesystem")),
    (policies.pods_are_confined, "kserve", pod("automountServiceAccountToken")),
    (policies.pods_are_confined, "redis", one("StatefulSet", "spec", *ROOTLESS, to=0)),
    (policies.nothing_of_the_node, "base", pod("hostNetwork", to=True)),
    (policies.nothing_of_the_node, "base", pod("shareProcessNamespace", to=True)),
    (policies.nothing_of_the_node, "base", pod("volumes", to=UNBOUND)),
    (policies.nothing_of_the_node, "base", pod("volumes", to=NODE)),
    (policies.images_are_pinned, "base", sidecar("image", to="breakwater:latest")),
    (policies.images_are_pinned, "base", sidecar("image", to="breakwater")),
    (policies.images_are_pinned, "base", sidecar("image", to="breakwater@sha256:123")),
    (policies.images_are_pinned, "base", server("image", to="nvcr.io/tritonserver:24.10-py3")),
    (policies.triton_listens_on_loopback, "base", flag("--grpc-address=0.0.0.0")),
    (policies.triton_listens_on_loopback, "base", flag("--http-address=0.0.0.0")),
    (policies.triton_listens_on_loopback, "base", flag("--grpc-port=8005")),
    (policies.triton_listens_on_loopback, "base", server("args", 0, to="sh")),
    (
        policies.triton_listens_on_loopback,
        "base",
        configured("admin: 127.0.0.1:9090", "admin: 0.0.0.0:9090"),
    ),
    (
        policies.triton_listens_on_loopback,
        "base",
        configured("listen: 127.0.0.1:9091", "listen: 0.0.0.0:9091"),
    ),
    (
        policies.triton_listens_on_loopback,
        "base",
        configured("upstream: 127.0.0.1:8001", "upstream: triton:8001"),
    ),
    (policies.triton_listens_on_loopback, "base", configured("metrics: 0.0.0.0:9092", "")),
    (
        policies.services_lead_to_the_front,
        "base",
        one("Service", "spec", "ports", 0, "targetPort", to=8001),
    ),
    (
        policies.services_lead_to_the_front,
        "base",
        more("Service", "spec", "ports", item={"port": 9090}),
    ),
    (policies.services_lead_to_the_front, "base", one("Service", "spec", "type", to="NodePort")),
    (policies.services_lead_to_the_front, "base", without("Service")),
    (policies.services_lead_to_the_front, "base", server("ports", 0, "containerPort", to=8001)),
    (policies.services_lead_to_the_front, "base", sidecar("ports", 1, "containerPort", to=9090)),
    (policies.services_lead_to_the_front, "kserve", sidecar("ports", 0, "name", to="http1")),
    (policies.policies_close_the_rest, "base", without("NetworkPolicy")),
    (policies.policies_close_the_rest, "base", more("NetworkPolicy", "spec", "ingress", item=OPEN)),
    (policies.policies_close_the_rest, "base", more("NetworkPolicy", "spec", "ingress", item={})),
    (
        policies.policies_close_the_rest,
        "base",
        more("NetworkPolicy", "spec", "ingress", item=RANGE),
    ),
    (policies.policies_close_the_rest, "base", one("NetworkPolicy", "spec", "ingress", 1, "from")),
    (
        policies.policies_close_the_rest,
        "base",
        one("NetworkPolicy", "spec", "podSelector", to=NOBODY),
    ),
    (
        policies.policies_close_the_rest,
        "base",
        one("NetworkPolicy", "spec", "policyTypes", to=["Egress"]),
    ),
    (
        policies.workloads_are_found,
        "base",
        one("PodDisruptionBudget", "spec", "selector", to=NOBODY),
    ),
    (policies.workloads_are_found, "monitoring", one("PodMonitor", "spec", "selector", to=NOBODY)),
    (
        policies.workloads_are_found,
        "base",
        one("HorizontalPodAutoscaler", "spec", "scaleTargetRef", "name", to="x"),
    ),
    (
        policies.workloads_are_found,
        "base",
        one(
            "HorizontalPodAutoscaler",
            "spec",
            "metrics",
            0,
            "containerResource",
            "container",
            to="x",
        ),
    ),
    (policies.workloads_are_found, "base", one("Deployment", "spec", "replicas", to=2)),
    (policies.workloads_are_found, "base", one("Deployment", "spec", "selector", to=NOBODY)),
    (
        policies.workloads_are_found,
        "base",
        pod("topologySpreadConstraints", 0, "labelSelector", to=NOBODY),
    ),
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
    wanted = {policy for policy in (*EVERYWHERE, *OURS) if policy.__module__ == policies.__name__}
    assert {policy for policy, _, _ in BREAKS} == wanted
