"""What every manifest of ours must keep to. A policy takes rendered objects and tells violations.

Written as functions, and not as assertions, so that each can be shown to catch a broken manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from tests.deploy.rendered import (
    FRONT,
    METRICS,
    TRITON_METRICS,
    Object,
    breakwater,
    config_of,
    containers,
    defended,
    flags,
    labels_of,
    of_kind,
    triton,
    value_of,
    workloads,
)

Policy = Callable[[Sequence[Object]], Iterator[str]]

_PINNED = re.compile(r"(@sha256:[0-9a-f]{64}|:v?\d+\.\d+[\w.-]*)$")
_UNSAFE = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_REACHABLE = {FRONT, METRICS, TRITON_METRICS}


def sidecar_is_confined(objects: Sequence[Object]) -> Iterator[str]:
    """Breakwater's container is as restricted as can be, whatever its pod says."""
    _, pod = defended(objects)
    yield from _confined(_sidecar(pod), {} if _is_foreign(objects) else pod)


def pods_are_confined(objects: Sequence[Object]) -> Iterator[str]:
    """Every container of pods that are ours is as restricted as can be."""
    for found, pod in workloads(objects):
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{found['metadata']['name']}: mounts a token of the Kubernetes API"
        for container in containers(pod):
            yield from _confined(container, pod)


def _confined(container: Object, pod: Object) -> Iterator[str]:
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    checks = {
        "privileged": not context.get("privileged", False),
        "may gain privileges": context.get("allowPrivilegeEscalation") is False,
        "keeps capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "writes to its root file system": context.get("readOnlyRootFilesystem") is True,
        "may be root": context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0,
        "without seccomp": context.get("seccompProfile") == {"type": "RuntimeDefault"},
        "a port of the node": not any("hostPort" in port for port in container.get("ports", [])),
    }
    yield from (f"{container['name']}: {what}" for what, is_right in checks.items() if not is_right)


def nothing_of_the_node(objects: Sequence[Object]) -> Iterator[str]:
    """No pod shares the node's network, processes or files; what it may write has a bound."""
    for found, pod in workloads(objects):
        name = found["metadata"]["name"]
        yield from (f"{name}: {key}" for key in _UNSAFE if pod.get(key))
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{name}: {volume['name']} is a folder of the node"
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{name}: {volume['name']} has no bound"


def images_are_pinned(objects: Sequence[Object]) -> Iterator[str]:
    """Every image has a digest or a version; Triton is one that survives cancelled calls."""
    for _, pod in workloads(objects):
        for container in containers(pod):
            if not _PINNED.search(container["image"]):
                yield f"{container['name']}: {container['image']} is not pinned"
    _, pod = defended(objects)
    release = re.search(r":(\d+\.\d+)", triton(pod)["image"])
    if release is None or [int(part) for part in release[1].split(".")] < [25, 5]:
        yield f"{triton(pod)['image']}: before 25.05"


def triton_listens_on_loopback(objects: Sequence[Object]) -> Iterator[str]:
    """Triton's two inference ports are bound to loopback, and that is where Breakwater asks."""
    _, pod = defended(objects)
    container = triton(pod)
    arguments = flags(container)
    config = yaml.safe_load(config_of(objects))
    wanted = {
        "--grpc-address": "127.0.0.1",
        "--http-address": "127.0.0.1",
        "--grpc-port": config.get("upstream", "127.0.0.1:8001").rpartition(":")[2],
        "--metrics-port": str(TRITON_METRICS),
    }
    for flag, value in wanted.items():
        if value_of(arguments, flag) != value:
            yield f"{flag} is {value_of(arguments, flag)}, not {value}"
    if arguments[0] != "tritonserver":
        yield f"{arguments[0]} may not hand its flags to Triton"
    for key, default in (("upstream", "127.0.0.1:8001"), ("admin", "127.0.0.1:9090")):
        if not config.get(key, default).startswith("127.0.0.1:"):
            yield f"{key} is {config[key]}"
    if not config.get("control", {}).get("listen", "127.0.0.1:9091").startswith("127.0.0.1:"):
        yield f"control.listen is {config['control']['listen']}"
    if config.get("metrics") != f"0.0.0.0:{METRICS}":
        yield f"metrics is {config.get('metrics')}"


def services_lead_to_the_front(objects: Sequence[Object]) -> Iterator[str]:
    """Every port of a Service in front of the pods is Breakwater's, and none a node's."""
    workload, pod = defended(objects)
    declared = {port["containerPort"] for c in containers(pod) for port in c.get("ports", [])}
    yield from (f"port {port} is declared" for port in declared - _REACHABLE)
    yield from (f"port {port} is not" for port in {FRONT, METRICS} - declared)
    services = [s for s in of_kind(objects, "Service") if _selects(s["spec"]["selector"], workload)]
    for service in services:
        if service["spec"].get("type", "ClusterIP") == "NodePort":
            yield "a Service opens a port of every node"
        for port in service["spec"]["ports"]:
            if port.get("targetPort") != FRONT:
                yield f"{service['metadata']['name']}:{port['port']} leads elsewhere"
    if workload["kind"] == "InferenceService":
        first = _sidecar(pod)["ports"][0]
        if first["containerPort"] != FRONT or "h2c" not in first["name"]:
            yield "KServe leads its Service to the first port, as HTTP/2 if it is called so"
    elif not services:
        yield "no Service leads to the pods"


def policies_close_the_rest(objects: Sequence[Object]) -> Iterator[str]:
    """A NetworkPolicy lets in the front and, from somewhere named, the metrics."""
    workload, _ = defended(objects)
    policies = [
        found["spec"]
        for found in of_kind(objects, "NetworkPolicy")
        if _selects(found["spec"]["podSelector"].get("matchLabels", {}), workload)
    ]
    if not any("Ingress" in policy.get("policyTypes", []) for policy in policies):
        yield "no NetworkPolicy closes the pods"
    for rule in (rule for policy in policies for rule in policy.get("ingress", [])):
        ports = {_port(port) for port in rule.get("ports", [])}
        if not ports or not ports <= _REACHABLE:
            yield f"a NetworkPolicy opens {ports or 'every port'}"
        if ports - {FRONT} and not rule.get("from"):
            yield "everybody may read the metrics"


def _port(port: Object) -> Any:
    """A rule's port, or what is no single TCP port as it is."""
    plain = port.get("protocol", "TCP") == "TCP" and "endPort" not in port
    return port.get("port") if plain else str(port)


def workloads_are_found(objects: Sequence[Object]) -> Iterator[str]:
    """Budget, autoscaler, spread and PodMonitor mean the very pods that the workload makes."""
    workload, pod = defended(objects)
    names = {container["name"] for container in containers(pod)}
    for found in of_kind(objects, "PodDisruptionBudget", "PodMonitor"):
        if not _selects(found["spec"]["selector"]["matchLabels"], workload):
            yield f"{found['kind']} selects other pods"
    for found in of_kind(objects, "HorizontalPodAutoscaler"):
        aim = found["spec"]["scaleTargetRef"]
        if (aim["kind"], aim["name"]) != (workload["kind"], workload["metadata"]["name"]):
            yield "the autoscaler scales something else"
        if "replicas" in workload["spec"]:
            yield "replicas are given to what is scaled"
        scaled = {m.get("containerResource", {}).get("container") for m in found["spec"]["metrics"]}
        yield from (f"the autoscaler looks at {name}" for name in scaled - names - {None})
    for spread in pod.get("topologySpreadConstraints", []):
        if not _selects(spread["labelSelector"]["matchLabels"], workload):
            yield "pods are spread over others"
    own = workload["spec"].get("selector", {}).get("matchLabels", labels_of(workload))
    if not _selects(own, workload):
        yield "the workload does not select its own pods"


def _selects(labels: Object, workload: Object) -> bool:
    return bool(labels) and labels.items() <= labels_of(workload).items()


def _is_foreign(objects: Sequence[Object]) -> bool:
    """Whether Triton's pod is somebody else's, told by its name."""
    return str(defended(objects)[0]["metadata"]["name"]) != "triton"


def _sidecar(pod: Object) -> Object:
    container = breakwater(pod)
    assert container is not None
    return container
