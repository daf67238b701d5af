"""The component on Deployments that are not ours: what it changes, leaves and refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendered import (
    KUSTOMIZE,
    Object,
    RenderError,
    breakwater,
    config_of,
    containers,
    defended,
    flags,
    of_kind,
    render,
    target,
    triton,
    value_of,
)

COMPONENT = KUSTOMIZE / "component"


def foreign(
    folder: Path,
    container: Object,
    *components: Path,
    label: str = "enabled",
    pod: Object | None = None,
) -> list[Object]:
    """Render the component on a Deployment with one container, in a pod with these fields."""
    folder = folder.resolve()
    labels = {"app": "x"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"breakwater": label}},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], **(pod or {})},
            },
        },
    }
    (folder / "triton.yaml").write_text(yaml.safe_dump(deployment))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["triton.yaml"],
        "components": [os.path.relpath(c, folder) for c in components or (COMPONENT,)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def container(**fields: Any) -> Object:
    return {"name": "any", "image": "nvcr.io/nvidia/tritonserver:25.08-py3", **fields}


SHELL = ["/bin/sh", "-c", "tritonserver --model-repository=/models"]


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ["/bin/sh", "-c"], "args": ["tritonserver --model-repository=/models"]},
        {"command": SHELL},
        {"args": SHELL},
        {"command": ["tritonserver"], "args": ["--model-repository=/models"]},
        {"args": ["--model-repository=/models"]},
        {},
    ],
    ids=["shell", "shell-command", "shell-args", "both", "entry-point", "nothing"],
)
@pytest.mark.parametrize("where", ["args", "command"])
def test_flags_that_would_not_reach_triton_are_refused(
    tmp_path: Path, fields: Object, where: str
) -> None:
    parts = (COMPONENT / "sidecar", COMPONENT / f"flags-in-{where}")
    with pytest.raises(RenderError, match="containers/0"):
        foreign(tmp_path, container(**fields), *parts)


@pytest.mark.parametrize("where", ["args", "command"])
def test_a_pod_on_the_hosts_network_is_refused(tmp_path: Path, where: str) -> None:
    parts = (COMPONENT / "sidecar", COMPONENT / f"flags-in-{where}")
    with pytest.raises(RenderError, match="hostNetwork"):
        foreign(tmp_path, container(**{where: ["tritonserver"]}), *parts, pod={"hostNetwork": True})


def test_without_the_label_nothing_is_touched(tmp_path: Path) -> None:
    objects = foreign(tmp_path, container(args=SHELL), label="no")
    (deployment,) = of_kind(objects, "Deployment")
    assert [c["args"] for c in containers(deployment["spec"]["template"]["spec"])] == [SHELL]


def test_a_bare_container_gets_all_of_it(tmp_path: Path) -> None:
    _, pod = defended(foreign(tmp_path, container(args=["tritonserver"])))
    assert value_of(flags(triton(pod)), "--grpc-address") == "127.0.0.1"
    assert pod["terminationGracePeriodSeconds"] == 85


def test_what_they_run_is_replaced_where_it_must_be() -> None:
    objects = target("foreign/flags-in-args")
    _, pod = defended(objects)
    server = triton(pod)
    assert server["name"] == "inference-server"
    assert server["args"][:2] == ["tritonserver", "--model-repository=gs://bucket/models"]
    assert "httpGet" not in str(
        [server[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
    )
    assert [port["containerPort"] for port in server["ports"]] == [8002]
    (service,) = of_kind(objects, "Service")
    assert [(p["name"], p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [
        ("grpc", 8001, 8101)
    ]


def test_what_is_theirs_stays() -> None:
    workload, pod = defended(target("foreign/flags-in-args"))
    assert workload["spec"]["replicas"] == 3
    assert "strategy" not in workload["spec"]
    assert workload["spec"]["selector"] == {"matchLabels": {"app": "detector"}}
    assert workload["spec"]["template"]["metadata"]["labels"]["app"] == "detector"
    assert pod["securityContext"] == {"runAsUser": 1000, "fsGroup": 1000}
    assert "automountServiceAccountToken" not in pod
    assert [c["name"] for c in pod["initContainers"]] == ["breakwater", "warm-up"]
    assert triton(pod)["volumeMounts"] == [{"name": "dshm", "mountPath": "/dev/shm"}]
    assert triton(pod)["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_their_image_and_configuration_win() -> None:
    objects = target("foreign/flags-in-args")
    sidecar = breakwater(defended(objects)[1])
    assert sidecar is not None
    assert sidecar["image"].startswith("registry.example/security/breakwater@sha256:")
    assert yaml.safe_load(config_of(objects))["unlisted_models"] == "refuse"


def test_a_changed_configuration_is_another_config_map() -> None:
    names = {
        found["metadata"]["name"]
        for name in ("base", "cpu", "observe-first", "gpu-dra")
        for found in of_kind(target(name), "ConfigMap")
    }
    assert len(names) == 4


def test_names_with_a_prefix_are_followed() -> None:
    objects = target("foreign/flags-in-command")
    assert config_of(objects)
    _, pod = defended(objects)
    (secret,) = of_kind(objects, "Secret")
    (mounted,) = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
    assert mounted == secret["metadata"]["name"]
    assert value_of(flags(triton(pod)), "--http-port") == "8000"
