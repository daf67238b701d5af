"""What pods must keep to over their life: probes, draining, resources, and what they mount."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from proxy.config import Config
from tests.deploy.rendered import (
    FRONT,
    Object,
    breakwater,
    config_of,
    containers,
    defended,
    flags,
    of_kind,
    triton,
    value_of,
    workloads,
)

EXTERNAL = {
    ("Secret", "breakwater-secrets"),
    ("Secret", "breakwater-history"),
    ("Secret", "breakwater-history-tls"),
    ("ConfigMap", "breakwater-calibration"),
    ("ConfigMap", "breakwater-calibration-resnet50"),
    ("PersistentVolumeClaim", "triton-models"),
    ("PersistentVolumeClaim", "ocr-models"),
}
"""What users create themselves; README.md of the manifests says how."""

_PROBES = {"startupProbe": "liveness", "livenessProbe": "liveness", "readinessProbe": "readiness"}
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|)$")
_UNITS = {"m": 0.001, "": 1.0, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def probes_are_answered(objects: Sequence[Object]) -> Iterator[str]:
    """Breakwater is asked by gRPC under the right names, Triton from inside its container."""
    _, pod = defended(objects)
    sidecar, server = breakwater(pod) or {}, triton(pod)
    for kind, service in _PROBES.items():
        asked = sidecar.get(kind, {}).get("grpc")
        if asked != {"port": FRONT, "service": service}:
            yield f"breakwater's {kind} asks {asked}"
        command = server.get(kind, {}).get("exec", {}).get("command", [])
        path = "/v2/health/ready" if service == "readiness" else "/v2/health/live"
        if not command or command[-1] != f"http://127.0.0.1:8000{path}":
            yield f"triton's {kind} runs {command}"
    for container in (sidecar, server):
        # Else the restart of a hung process waits for as long as a drain may take.
        if "terminationGracePeriodSeconds" not in container.get("livenessProbe", {}):
            yield f"{container['name']} is given all the time in the world to hang"


def draining_is_in_time(objects: Sequence[Object]) -> Iterator[str]:
    """Clients are moved and answered within the drain, that within Triton's sleep, all in time."""
    _, pod = defended(objects)
    sidecar, server = breakwater(pod) or {}, triton(pod)
    config = _config(objects)
    sleep = server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    leave = float(value_of(flags(server), "--exit-timeout-secs") or 30)
    # A connection ends at its age, give or take a tenth, and the last call on it at its deadline.
    longest = 1.1 * config.max_connection_age_s + 1 + config.upstream_timeout_s
    if not config.max_connection_age_s or config.drain_seconds <= longest:
        yield f"to move clients may take {longest} s, the drain takes {config.drain_seconds}"
    if sleep <= config.drain_delay_seconds + config.drain_seconds:
        yield f"triton stays for {sleep} s, less than the drain takes"
    if pod.get("terminationGracePeriodSeconds", 30) <= sleep + leave:
        yield f"all is killed before triton's {sleep} and {leave} s are over"
    command = sidecar.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    if command[:3] != ["breakwater", "drain", "--wait"]:
        yield f"breakwater's preStop is {command}"
    token = config.control and config.control.token_file
    if token and value_of(command, "--token-file") != str(token):
        yield "the drain is refused: it has no token"


def sidecar_is_native(objects: Sequence[Object]) -> Iterator[str]:
    """Breakwater is up before Triton and down after it; for KServe it is a plain container."""
    workload, pod = defended(objects)
    inits = {container["name"]: container for container in pod.get("initContainers", [])}
    if workload["kind"] == "InferenceService":
        if [c["name"] for c in pod["containers"]] != ["kserve-container", "transformer-container"]:
            yield "KServe finds its containers by their names"
        if (
            workload["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
            != "RawDeployment"
        ):
            yield "Knative forbids lifecycle hooks"
    elif inits.get("breakwater", {}).get("restartPolicy") != "Always":
        yield "breakwater is no native sidecar"


def rollout_keeps_capacity(objects: Sequence[Object]) -> Iterator[str]:
    """A new pod is ready before an old one goes. Deployments that are ours; others know theirs."""
    workload, pod = defended(objects)
    spec = (
        pod["deploymentStrategy"] if "deploymentStrategy" in pod else workload["spec"]["strategy"]
    )
    if spec.get("rollingUpdate") != {"maxUnavailable": 0, "maxSurge": 1}:
        yield f"a rollout goes by {spec}"


def resources_are_bounded(objects: Sequence[Object]) -> Iterator[str]:
    """Requests and limits of processor and memory; no limit below its request."""
    for _, pod in workloads(objects):
        for container in containers(pod):
            requests = container.get("resources", {}).get("requests", {})
            limits = container.get("resources", {}).get("limits", {})
            for resource in ("cpu", "memory"):
                if resource not in requests or resource not in limits:
                    yield f"{container['name']}: no request or limit of {resource}"
                elif quantity(limits[resource]) < quantity(requests[resource]):
                    yield f"{container['name']}: limited to less {resource} than it asks for"


def quantity(text: Any) -> float:
    """A Kubernetes quantity as a number; a unit we do not use is an error."""
    found = _QUANTITY.match(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity we use")
    return float(found[1]) * _UNITS[found[2]]


def references_resolve(objects: Sequence[Object]) -> Iterator[str]:
    """What pods name is among the objects or documented; mounts and volumes belong together."""
    there = {(found["kind"], found["metadata"]["name"]) for found in objects} | EXTERNAL
    for found, pod in workloads(objects):
        name = found["metadata"]["name"]
        yield from (
            f"{name}: no {kind} {to}" for kind, to in _named(pod) if (kind, to) not in there
        )
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        used = set[str]()
        for container in containers(pod):
            mounts = container.get("volumeMounts", [])
            used |= {mount["name"] for mount in mounts}
            if len({mount["mountPath"] for mount in mounts}) < len(mounts):
                yield f"{container['name']}: two volumes in one place"
        yield from (f"{name}: {volume} is mounted or there, not both" for volume in volumes ^ used)
        claims = {claim["name"] for claim in pod.get("resourceClaims", [])}
        for container in containers(pod):
            if claims != {c["name"] for c in container["resources"].get("claims", [])}:
                yield f"{container['name']}: another device than its neighbour"


def _named(pod: Object) -> Iterator[tuple[str, str]]:
    """Kind and name of all that a pod refers to."""
    if "serviceAccountName" in pod:
        yield "ServiceAccount", pod["serviceAccountName"]
    for claim in pod.get("resourceClaims", []):
        yield "ResourceClaimTemplate", claim["resourceClaimTemplateName"]
    for volume in pod.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"]
            if "secret" in source:
                yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]
            if "persistentVolumeClaim" in source:
                yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]


def configured_files_are_mounted(objects: Sequence[Object]) -> Iterator[str]:
    """Each file that the configuration names lies in a volume of the sidecar, absolutely."""
    _, pod = defended(objects)
    mounts = [mount["mountPath"] for mount in (breakwater(pod) or {}).get("volumeMounts", [])]
    config = _config(objects)
    shared = config.history.shared
    files = [
        config.control and config.control.token_file,
        config.history.key_file,
        shared and shared.password_file,
        shared and shared.ca_file,
        *(model.calibration for model in config.models.values()),
    ]
    for file in files:
        if file and not any(PurePosixPath(file).is_relative_to(mount) for mount in mounts):
            yield f"{file} is in no volume"


def no_secret_is_kept(objects: Sequence[Object]) -> Iterator[str]:
    """No Secret among the objects, and Triton mounts none of the sidecar's."""
    for found in of_kind(objects, "Secret"):
        yield f"the Secret {found['metadata']['name']} is in the repository"
    _, pod = defended(objects)
    secret = {volume["name"] for volume in pod["volumes"] if _is_secret(volume)}
    for container in containers(pod):
        if container is not breakwater(pod):
            for mount in container.get("volumeMounts", []):
                if mount["name"] in secret:
                    yield f"{container['name']} can read {mount['name']}"


def _is_secret(volume: Object) -> bool:
    sources = (volume, *volume.get("projected", {}).get("sources", []))
    return any("secret" in source for source in sources)


def _config(objects: Sequence[Object]) -> Config:
    return Config.model_validate(yaml.safe_load(config_of(objects)))
