"""The rehearsal: what it reads from a manifest, and the whole of it with short times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from loadtests.harness import CHECKOUT
from loadtests.rehearsal import manifest as manifests
from loadtests.rehearsal.events import longest_gap
from loadtests.rehearsal.load import Asked
from loadtests.rehearsal.network import Place
from loadtests.rehearsal.volumes import Volumes
from tuning.triton import TritonUnavailable, wheel_folder

HERE = Place("127.0.0.1", ())
CONFIG = {"listen": "0.0.0.0:8101", "drain_seconds": 35, "history": {"key_file": "/etc/b/s/key"}}
POD = {
    "terminationGracePeriodSeconds": 75,
    "initContainers": [
        {"name": "once"},
        {
            "name": "breakwater",
            "restartPolicy": "Always",
            "args": ["serve"],
            "readinessProbe": {"periodSeconds": 5, "failureThreshold": 2},
            "volumeMounts": [
                {"mountPath": "/etc/b", "name": "config"},
                {"mountPath": "/etc/b/s", "name": "secrets"},
                {"mountPath": "/dev/shm", "name": "shm"},
            ],
        },
    ],
    "containers": [{"name": "triton", "lifecycle": {"preStop": {"sleep": {"seconds": 45}}}}],
    "volumes": [
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secrets", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "shm", "emptyDir": {}},
    ],
}
DEPLOYMENT = {"kind": "Deployment", "spec": {"minReadySeconds": 5, "template": {"spec": POD}}}
CONFIG_MAP = {
    "kind": "ConfigMap",
    "metadata": {"name": "c"},
    "data": {"breakwater.yaml": yaml.safe_dump(CONFIG)},
}


def _read(*documents: object) -> manifests.Manifest:
    return manifests.read(yaml.safe_dump_all(documents))


def test_what_a_kubelet_acts_on_is_read() -> None:
    manifest = _read(DEPLOYMENT, CONFIG_MAP)
    assert [each["name"] for each in manifest.sidecars] == ["breakwater"]
    assert [each["name"] for each in manifest.mains] == ["triton"]
    assert (manifest.grace_s, manifest.min_ready_s) == (75, 5)
    assert manifest.with_workers(2).sidecars[0]["args"] == ["serve", "--workers", "2"]
    assert manifest.sidecars[0]["args"] == ["serve"]


@pytest.mark.parametrize("count", [0, 2])
def test_one_deployment_is_rehearsed(count: int) -> None:
    with pytest.raises(ValueError, match=f"has {count} Deployments"):
        _read(CONFIG_MAP, *[DEPLOYMENT] * count)


def test_short_times_keep_their_order() -> None:
    manifest = _read(DEPLOYMENT, CONFIG_MAP).hastened()
    config = yaml.safe_load(manifest.config_maps["c"]["breakwater.yaml"])
    sleep_s = manifest.mains[0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 1.1 * config["max_connection_age_s"] + 1 < config["drain_seconds"]
    assert config["drain_delay_seconds"] + config["drain_seconds"] < sleep_s < manifest.grace_s
    assert manifest.sidecars[0]["readinessProbe"] == {"periodSeconds": 1, "failureThreshold": 2}
    assert config["listen"] == CONFIG["listen"]


def test_paths_of_the_manifest_are_folders_here(tmp_path: Path) -> None:
    manifest = _read(DEPLOYMENT, CONFIG_MAP)
    volumes = Volumes(manifest, tmp_path, HERE)
    translate = volumes.translator(manifest.sidecars[0])
    assert translate("/etc/b/s/key") == f"{tmp_path}/secrets/key"
    assert translate("--config=/etc/b") == f"--config={tmp_path}/config"
    assert translate("/etc/bb and /dev/shm") == "/etc/bb and /dev/shm"
    assert (tmp_path / "secrets" / "control.token").stat().st_mode & 0o777 == 0o440


def test_a_config_map_changes_at_once_as_with_a_kubelet(tmp_path: Path) -> None:
    volumes = Volumes(_read(DEPLOYMENT, CONFIG_MAP), tmp_path, HERE)
    volumes.fill(lambda text: text.replace("/etc/b/s", "/else"))
    file = tmp_path / "config" / "breakwater.yaml"
    assert os.readlink(file) == "..data/breakwater.yaml"
    assert "/else/key" in file.read_text()
    first = os.readlink(tmp_path / "config" / "..data")
    name, _ = volumes.config()
    volumes.swap(name, {"breakwater.yaml": "new"})
    assert file.read_text() == "new"
    assert not (tmp_path / "config" / first).exists()


def test_where_pods_share_a_loopback_their_ports_are_apart() -> None:
    place = Place("127.0.0.1", (), 10200)
    text = "listen: 0.0.0.0:8101, --grpc-port=8001, max: 8001, 127.0.0.1:80010"
    moved = "listen: 0.0.0.0:18301, --grpc-port=18201, max: 8001, 127.0.0.1:80010"
    assert place.ports_in(text) == moved


def test_the_longest_gap_is_a_client_s_own() -> None:
    asked = [
        Asked(0, 0.0, 1.0, "", ("a", "a")),
        Asked(1, 0.0, 1.5, "", ("b", "b")),
        Asked(0, 1.0, 2.0, "UNAVAILABLE", ("a", "b")),
        Asked(0, 2.0, 4.5, "", ("b", "b")),
        Asked(1, 1.5, 3.0, "", ("b", "b")),
    ]
    assert longest_gap(asked, 0.0) == 3.5


@pytest.mark.triton
@pytest.mark.timeout(300)
def test_the_manifest_is_rehearsed(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl renders the manifest, and is not installed")
    try:
        wheel_folder()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    result = tmp_path / "rehearsal.json"
    command = [sys.executable, "-m", "loadtests.rehearsal", "--quick", "--json", str(result)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = {row["event"]: row for row in json.loads(result.read_text())["rows"] if "kept" in row}
    assert rows["rolling restart of both replicas"]["failed"] == 0
    assert rows["config changed (..data swapped)"]["failed"] == 0
    assert all(row["requests"] > 0 and row["kept"] for row in rows.values())
