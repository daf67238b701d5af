"""Two replicas behind the Service: rolled one by one, maxSurge 1, maxUnavailable 0."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from loadtests.rehearsal.balancer import Balancer
from loadtests.rehearsal.manifest import Manifest
from loadtests.rehearsal.network import Network
from loadtests.rehearsal.pod import Pod

_TICK_S = 0.1
_READY_S = 120.0


class Deployment:
    """The pods there are, and which of them get connections."""

    def __init__(
        self, manifest: Manifest, network: Network, balancer: Balancer, folder: Path
    ) -> None:
        self.manifest = manifest
        self.pods: list[Pod] = []
        self.killed: list[str] = []
        """Containers of deleted pods that the grace was too short for."""
        self._network = network
        self._balancer = balancer
        self._folder = folder
        self._made = 0
        self._leaving: set[str] = set()
        self._told: tuple[object, ...] = ()
        self._over = threading.Event()
        self._controller = threading.Thread(target=self._follow, daemon=True)
        self._controller.start()

    def _follow(self) -> None:
        """Tell the Service who is ready; pods that are being deleted are not."""
        while not self._over.wait(_TICK_S):
            ready = tuple(p.endpoint for p in list(self.pods) if self._serves(p))
            if ready != self._told:
                self._told = ready
                self._balancer.set(ready)

    def _serves(self, pod: Pod) -> bool:
        return pod.is_ready and pod.name not in self._leaving

    def add(self) -> Pod:
        """Start one more pod and return it when it is ready, and has been for minReadySeconds."""
        self._made += 1
        name = f"pod-{self._made}"
        pod = Pod(name, self.manifest, self._network.place(), self._folder / name)
        self.pods.append(pod)
        pod.start()
        self.wait(lambda: pod.is_ready, f"{name} to be ready")
        time.sleep(self.manifest.min_ready_s)
        return pod

    def remove(self, pod: Pod) -> float:
        """Delete a pod; how long it took, seconds."""
        self._leaving.add(pod.name)
        took_s = pod.delete()
        self.killed += [f"{pod.name}/{name}" for name in pod.killed]
        self.pods.remove(pod)
        return took_s

    def roll(self, manifest: Manifest) -> list[float]:
        """Replace every pod by one of this manifest; how long each deletion took, seconds."""
        self.manifest = manifest
        took_s = []
        for old in list(self.pods):
            self.add()
            took_s.append(self.remove(old))
        return took_s

    def wait(self, condition: Callable[[], bool], what: str) -> float:
        """Wait until something is so; how long it took, seconds.

        Raises:
            RuntimeError: it did not come to pass.
        """
        began_s = time.monotonic()
        while not condition():
            if time.monotonic() - began_s > _READY_S:
                logs = [log for pod in self.pods for log in pod.tails()]
                raise RuntimeError("\n".join([f"waited in vain for {what}", *logs]))
            time.sleep(_TICK_S)
        return time.monotonic() - began_s

    def close(self) -> None:
        """End everything at once."""
        self._over.set()
        self._controller.join()
        for pod in self.pods:
            pod.close()
