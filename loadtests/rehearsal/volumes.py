"""A pod's volumes as folders, and where the paths of its manifest are on this machine."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.harness import CHECKOUT
from loadtests.rehearsal.manifest import Manifest
from loadtests.rehearsal.network import Place

_SHARED_MEMORY = "/dev/shm"  # Triton's Python backend knows no other
MODELS = ("identity_fp32",)
SECRETS = {"control.token": secrets.token_hex(16), "breakwater.key": secrets.token_hex(32)}
"""What the operator makes before the first install (deploy/README.md)."""


class Volumes:
    """The folders of one pod."""

    def __init__(self, manifest: Manifest, folder: Path, place: Place) -> None:
        self._manifest = manifest
        self._folder = folder
        self._place = place
        self._config_maps: dict[str, Path] = {}
        for volume in manifest.pod.get("volumes", []):
            self._make(volume)

    def translator(self, container: Mapping[str, Any]) -> Callable[[str], str]:
        """What turns paths and ports of a container's manifest into those of this machine."""
        where = {
            mount["mountPath"]: str(self._folder / mount["name"])
            for mount in container.get("volumeMounts", [])
            if mount["mountPath"] != _SHARED_MEMORY
        }
        if not where:
            return self._place.ports_in
        paths = sorted(where, key=len, reverse=True)
        pattern = re.compile("(" + "|".join(map(re.escape, paths)) + r")(?=/|$|\s)", re.MULTILINE)
        return lambda text: self._place.ports_in(pattern.sub(lambda found: where[found[0]], text))

    def fill(self, translate: Callable[[str], str]) -> None:
        """Write the ConfigMaps, with the paths of the container that mounts them."""
        for name in self._config_maps:
            data = self._manifest.config_maps.get(name, {})
            self.swap(name, {key: translate(text) for key, text in data.items()})

    def swap(self, config_map: str, data: Mapping[str, str]) -> None:
        """Change a ConfigMap as the kubelet does: a new folder, then one atomic symbolic link."""
        folder = self._config_maps[config_map]
        fresh = folder / f"..{time.time_ns()}"
        fresh.mkdir()
        for key, text in data.items():
            (fresh / key).write_text(text)
            if not (folder / key).is_symlink():
                (folder / key).symlink_to(Path("..data") / key)
        link = folder / "..data_tmp"
        link.symlink_to(fresh.name)
        old = folder / os.readlink(folder / "..data") if (folder / "..data").is_symlink() else None
        link.replace(folder / "..data")
        if old is not None:
            shutil.rmtree(old)

    def config(self) -> tuple[str, str]:
        """Name of the ConfigMap with the proxy's configuration, and that as it is mounted."""
        for name, folder in self._config_maps.items():
            if (folder / "breakwater.yaml").exists():
                return name, (folder / "breakwater.yaml").read_text()
        raise ValueError("no ConfigMap has a key breakwater.yaml")

    def _make(self, volume: Mapping[str, Any]) -> None:
        folder = self._folder / volume["name"]
        folder.mkdir(parents=True)
        if "configMap" in volume:
            self._config_maps[volume["configMap"]["name"]] = folder
        elif "secret" in volume:
            mode = int(volume["secret"].get("defaultMode", 0o644))
            name = volume["secret"]["secretName"]
            made = {key: text.encode() for key, text in SECRETS.items()}
            for key, data in (self._manifest.secrets.get(name) or made).items():
                (folder / key).write_bytes(data)
                (folder / key).chmod(mode)
        elif volume["name"] == "models":
            for model in MODELS:
                (folder / model).symlink_to(CHECKOUT / "tests" / "models" / model)
