"""The whole rehearsal of a manifest, from the first pod to the last event."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtests.rehearsal.balancer import Balancer
from loadtests.rehearsal.deployment import Deployment
from loadtests.rehearsal.events import Events, Outcome
from loadtests.rehearsal.load import Load
from loadtests.rehearsal.manifest import Manifest
from loadtests.rehearsal.network import Network
from loadtests.rehearsal.pod import OPEN, Pod

CLIENTS = 8


@dataclass(frozen=True)
class Rehearsed:
    """What came of it."""

    outcomes: tuple[Outcome, ...]
    namespaces: bool
    """Whether each pod had a network of its own; else ports of its own."""
    exposed: tuple[int, ...]
    """Private ports that could be reached from outside a pod; empty where that was not tried."""
    unreachable: tuple[int, ...]
    """Open ports that could not."""
    killed: tuple[str, ...]
    """Containers that did not end within terminationGracePeriodSeconds."""


def rehearse(manifest: Manifest, *, settle_s: float, tell: Callable[[str], None]) -> Rehearsed:
    """Run two replicas as the manifest says, and every event under load.

    Args:
        settle_s: how long the load goes on after each event.
        tell: told how it goes, a line at a time.

    Raises:
        RuntimeError: a pod did not become ready, or an event did not take place.
        TritonUnavailable: there is no Triton on this machine.
    """
    with Network() as network, tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        tell(f"pods in {'namespaces' if network.has_namespaces else 'one network, other ports'}")
        balancer = Balancer(CLIENTS)
        deployment = Deployment(manifest, network, balancer, Path(folder))
        try:
            for _ in range(2):
                tell(f"{deployment.add().name} is ready")
            deployment.wait(lambda: balancer.ready == 2, "both endpoints")
            load = Load(balancer)
            events = Events(deployment, load, settle_s, tell)
            events.run()
            load.stop()
            exposed, unreachable = _ports(deployment.pods, network.has_namespaces)
        finally:
            deployment.close()
            balancer.stop()
    return Rehearsed(
        tuple(events.outcomes),
        network.has_namespaces,
        exposed,
        unreachable,
        tuple(deployment.killed),
    )


def _ports(pods: list[Pod], has_namespaces: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Private ports that can be reached from outside, and open ones that cannot."""
    if not has_namespaces:
        return (), ()
    found = [(port, is_open) for pod in pods for port, is_open in pod.reachable().items()]
    exposed = sorted({port for port, is_open in found if is_open and port not in OPEN})
    shut = sorted({port for port, is_open in found if not is_open and port in OPEN})
    return tuple(exposed), tuple(shut)
