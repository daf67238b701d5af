"""One pod: its containers in the kubelet's order, up and down."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from loadtests.rehearsal.container import Container
from loadtests.rehearsal.manifest import Manifest
from loadtests.rehearsal.network import Place
from loadtests.rehearsal.volumes import Volumes

_TICK_S = 0.1
_START_S = 90.0
FRONT = 8101
OPEN = (8101, 9092)
"""Ports that others may reach."""
PRIVATE = (8000, 8001, 9090, 9091)


class Pod:
    """A pod of the manifest; `start` returns when its last container has been started."""

    def __init__(self, name: str, manifest: Manifest, place: Place, folder: Path) -> None:
        self.name = name
        self.containers: dict[str, Container] = {}
        self.killed: list[str] = []
        """Containers that did not end within the grace."""
        self._manifest = manifest
        self._place = place
        self._folder = folder
        self.volumes = Volumes(manifest, folder, place)

    @property
    def endpoint(self) -> tuple[str, int, str]:
        """Where the Service sends connections."""
        return self._place.host, self._place.port(FRONT), self.name

    @property
    def is_ready(self) -> bool:
        """Whether every container is."""
        expected = len(self._manifest.sidecars) + len(self._manifest.mains)
        return len(self.containers) == expected and all(
            each.ready for each in self.containers.values()
        )

    def start(self) -> None:
        """Start sidecars one by one, each when the one before has started, then the others.

        Raises:
            RuntimeError: a sidecar did not start; the text is the tail of its log.
        """
        for spec in self._manifest.sidecars:
            translate = self.volumes.translator(spec)
            self.volumes.fill(translate)
            container = self._run(spec)
            end_s = time.monotonic() + _START_S
            while not container.started:
                if time.monotonic() > end_s:
                    tail = container.log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.name}/{container.name} did not start:\n{tail}")
                time.sleep(_TICK_S)
        for spec in self._manifest.mains:
            self._run(spec)

    def _run(self, spec: Mapping[str, object]) -> Container:
        translate = self.volumes.translator(spec)
        log = self._folder / f"{spec['name']}.log"
        container = Container(spec, self._place, translate, log)
        self.containers[container.name] = container
        return container

    def delete(self) -> float:
        """Run all preStop hooks at once; SIGTERM to the main containers, then to the sidecars.

        Returns:
            How long it took, seconds.
        """
        began_s = time.monotonic()
        end_s = began_s + self._manifest.grace_s
        hooks = {
            name: threading.Thread(target=each.pre_stop, daemon=True)
            for name, each in self.containers.items()
        }
        for hook in hooks.values():
            hook.start()
        mains = [spec["name"] for spec in self._manifest.mains]
        sidecars = [spec["name"] for spec in reversed(self._manifest.sidecars)]
        for name in [*mains, *sidecars]:
            hooks[name].join(max(0.0, end_s - time.monotonic()))
            if self.containers[name].terminate(end_s):
                self.killed.append(name)
        return time.monotonic() - began_s

    def close(self) -> None:
        """End everything at once."""
        for container in self.containers.values():
            container.close()

    def tails(self) -> list[str]:
        """What its containers said last."""
        return [
            f"{self.name}/{each.name}: {each.log.read_text(errors='replace')[-1500:]}"
            for each in self.containers.values()
        ]

    def said(self, text: str) -> int:
        """How often the proxy has said so."""
        return (self._folder / "breakwater.log").read_text(errors="replace").count(text)

    def reachable(self) -> dict[int, bool]:
        """Which ports can be reached from outside the pod."""
        return {port: self._accepts(port) for port in (*OPEN, *PRIVATE)}

    def _accepts(self, port: int) -> bool:
        try:
            socket.create_connection((self._place.host, self._place.port(port)), 2).close()
        except OSError:
            return False
        return True
