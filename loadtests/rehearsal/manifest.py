"""What the rendered manifest says of a pod, as far as a kubelet acts on it."""

from __future__ import annotations

import base64
import copy
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Manifest:
    """One Deployment, and the ConfigMaps its pods mount."""

    pod: Mapping[str, Any]
    """The pod template's spec."""
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, bytes]]
    min_ready_s: float

    @property
    def sidecars(self) -> list[Mapping[str, Any]]:
        """Init containers that stay, in their order."""
        return [c for c in self.pod.get("initContainers", []) if c.get("restartPolicy") == "Always"]

    @property
    def mains(self) -> list[Mapping[str, Any]]:
        """The containers proper."""
        return list(self.pod["containers"])

    @property
    def grace_s(self) -> float:
        """`terminationGracePeriodSeconds`."""
        return float(self.pod.get("terminationGracePeriodSeconds", 30))

    def with_workers(self, workers: int) -> Manifest:
        """The next version of the Deployment: the proxy with several workers."""
        pod = copy.deepcopy(dict(self.pod))
        for container in pod["initContainers"]:
            if container["name"] == "breakwater":
                container["args"] = [*container["args"], "--workers", str(workers)]
        return Manifest(pod, self.config_maps, self.secrets, self.min_ready_s)

    def hastened(self) -> Manifest:
        """The same with short times, for `--quick`: their order is kept."""
        pod = copy.deepcopy(dict(self.pod))
        for container in [*pod["initContainers"], *pod["containers"]]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    container[probe] = {**container[probe], "periodSeconds": 1}
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep")
            if sleep:
                sleep["seconds"] = 9
        maps = {
            name: {key: _hastened(text) for key, text in data.items()}
            for name, data in self.config_maps.items()
        }
        return Manifest(pod, maps, self.secrets, 1.0)


def _hastened(text: str) -> str:
    config = yaml.safe_load(text)
    times = {"drain_delay_seconds": 1.5, "max_connection_age_s": 2, "drain_seconds": 6}
    return yaml.safe_dump({**config, **times, "upstream_timeout_s": 5}, sort_keys=False)


def render(folder: Path) -> str:
    """`kubectl kustomize` of a folder.

    Raises:
        RuntimeError: it cannot be rendered.
    """
    try:
        ran = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("kubectl renders the manifest, and is not installed") from None
    if ran.returncode:
        raise RuntimeError(f"kubectl kustomize {folder}: {ran.stderr.strip()}")
    return ran.stdout


def read(text: str) -> Manifest:
    """The Deployment in rendered YAML.

    Raises:
        ValueError: there is not exactly one.
    """
    documents = [each for each in yaml.safe_load_all(text) if each]
    deployments = [each for each in documents if each["kind"] == "Deployment"]
    if len(deployments) != 1:
        raise ValueError(f"the manifest has {len(deployments)} Deployments; one is rehearsed")
    spec = deployments[0]["spec"]
    return Manifest(
        spec["template"]["spec"],
        {d["metadata"]["name"]: d.get("data", {}) for d in documents if d["kind"] == "ConfigMap"},
        {d["metadata"]["name"]: _secret(d) for d in documents if d["kind"] == "Secret"},
        float(spec.get("minReadySeconds", 0)),
    )


def _secret(document: Mapping[str, Any]) -> dict[str, bytes]:
    plain = {key: text.encode() for key, text in document.get("stringData", {}).items()}
    return {k: base64.b64decode(v) for k, v in document.get("data", {}).items()} | plain
