"""The manifests as a cluster would get them: kustomizations rendered by kubectl, once a session."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

KUSTOMIZE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize"
FOREIGN = Path(__file__).resolve().parent / "foreign"
"""Deployments that are not ours, with the component put on them."""

OVERLAYS = sorted(folder.name for folder in (KUSTOMIZE / "overlays").iterdir())
TARGETS: Mapping[str, Path] = {
    "base": KUSTOMIZE / "base",
    **{name: KUSTOMIZE / "overlays" / name for name in OVERLAYS},
    **{f"foreign/{folder.name}": folder for folder in sorted(FOREIGN.iterdir())},
}
"""What is rendered and checked, by a short name."""

Object = dict[str, Any]

FRONT, METRICS, TRITON_METRICS = 8101, 9092, 8002
NAMES = ("breakwater", "transformer-container")
"""Containers that are Breakwater; of a pod that has one, the first of the others is Triton."""


@functools.cache
def _text(folder: Path) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


class RenderError(Exception):
    """kustomize refused; the text is its own."""


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, new ones at each call: a test may change them.

    Raises:
        RenderError: kustomize refused.
    """
    return [found for found in yaml.safe_load_all(_text(folder)) if found]


def target(name: str) -> list[Object]:
    """The objects of one of `TARGETS`."""
    return render(TARGETS[name])


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of a kind."""
    return [found for found in objects if found["kind"] in kinds]


def pod_of(found: Object) -> Object | None:
    """The pod specification of a workload; None for what runs nothing."""
    if found["kind"] == "InferenceService":
        predictor: Object = found["spec"]["predictor"]
        return predictor
    template = found.get("spec", {}).get("template", {})
    return template.get("spec") if isinstance(template, dict) else None


def labels_of(found: Object) -> dict[str, str]:
    """The labels that the pods of a workload have."""
    if found["kind"] == "InferenceService":
        return {"serving.kserve.io/inferenceservice": found["metadata"]["name"]}
    return dict(found["spec"]["template"]["metadata"]["labels"])


def workloads(objects: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    """Each object that runs pods, and its pod specification."""
    for found in objects:
        pod = pod_of(found)
        if pod is not None:
            yield found, pod


def defended(objects: Iterable[Object]) -> tuple[Object, Object]:
    """The one workload with a Breakwater in it, and its pod specification."""
    (only,) = [(w, pod) for w, pod in workloads(objects) if breakwater(pod)]
    return only


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, init containers first."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def breakwater(pod: Object) -> Object | None:
    """Breakwater's container."""
    return next((c for c in containers(pod) if c["name"] in NAMES), None)


def triton(pod: Object) -> Object:
    """Triton's container."""
    found: Object = next(c for c in pod["containers"] if c["name"] not in NAMES)
    return found


def config_of(objects: Iterable[Object]) -> str:
    """The text of Breakwater's configuration, found the way the pod would: by its volume."""
    objects = list(objects)
    _, pod = defended(objects)
    names = {
        volume["configMap"]["name"]
        for volume in pod["volumes"]
        if volume["name"] == "breakwater-config"
    }
    (text,) = [
        found["data"]["breakwater.yaml"]
        for found in of_kind(objects, "ConfigMap")
        if found["metadata"]["name"] in names
    ]
    return str(text)


def flags(container: Object) -> list[str]:
    """What a container is started with, after its image's entry point."""
    return [*container.get("command", []), *container.get("args", [])]


def value_of(arguments: Iterable[str], flag: str) -> str | None:
    """What a flag is set to: the last of `--flag=value` and `--flag value` counts, as in Triton."""
    found: str | None = None
    arguments = list(arguments)
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
        elif argument == flag and at + 1 < len(arguments):
            found = arguments[at + 1]
    return found
