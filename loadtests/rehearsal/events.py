"""What happens to the pods, and what of the load may notice it."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import yaml

from loadtests.rehearsal.deployment import Deployment
from loadtests.rehearsal.load import Asked, Load
from loadtests.rehearsal.pod import Pod

NOTHING = "no failed request"
ITS_OWN = "only calls on that pod's connections"
WORKERS = 2
_UP = "proxy.server: listening on"


@dataclass(frozen=True)
class Outcome:
    """One event under load."""

    event: str
    promised: str
    requests: int
    failed: int
    failed_elsewhere: int
    """On connections that did not go to the pod of the event."""
    longest_gap_s: float
    """Longest that any client was without a right answer."""
    last_failure_s: float
    """From the event's begin to the last failure's end; 0 without one."""
    kept: bool
    failures: tuple[str, ...] = field(default=())
    """The first few, as clients saw them."""


class Events:
    """Makes things happen to a Deployment under load, and tells what came of it."""

    def __init__(
        self, deployment: Deployment, load: Load, settle_s: float, tell: Callable[[str], None]
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._deployment = deployment
        self._load = load
        self._settle_s = settle_s
        self._tell = tell

    def run(self) -> None:
        """All of them."""
        deployment = self._deployment
        self._see("nothing", NOTHING, lambda: None)
        self._see("rolling restart of both replicas", NOTHING, self._roll)
        self._see("config changed (..data swapped)", NOTHING, self._change)
        self._see("bad config", NOTHING, self._spoil)
        pod = deployment.pods[0]
        self._see("SIGKILL of a breakwater worker", ITS_OWN, lambda: self._kill_worker(pod), pod)
        pod = deployment.pods[1]
        self._see("SIGKILL of the sidecar", ITS_OWN, lambda: self._kill(pod, "breakwater"), pod)
        pod = deployment.pods[0]
        self._see("SIGKILL of Triton", ITS_OWN, lambda: self._kill(pod, "triton"), pod)

    # -- the events ------------------------------------------------------------------------------

    def _roll(self) -> None:
        """A rollout of another version: with several workers, one of which is killed later."""
        took_s = self._deployment.roll(self._deployment.manifest.with_workers(WORKERS))
        self._tell("  pods were gone after " + ", ".join(f"{each:.0f} s" for each in took_s))

    def _change(self) -> None:
        self._configure(lambda old: {**old, "max_in_flight": 512}, "configuration generation 2")

    def _spoil(self) -> None:
        """A typing error, and its correction: a process that starts anew would refuse the file."""
        good = [pod.volumes.config() for pod in self._deployment.pods]
        self._configure(lambda old: {**old, "max_in_flihgt": 3}, "the old one stays in force")
        for pod, (name, text) in zip(self._deployment.pods, good, strict=True):
            pod.volumes.swap(name, {"breakwater.yaml": text})

    def _configure(self, change: Callable[[dict[str, object]], object], said: str) -> None:
        for pod in self._deployment.pods:
            name, text = pod.volumes.config()
            new = yaml.safe_dump(change(yaml.safe_load(text)))
            pod.volumes.swap(name, {"breakwater.yaml": new})
        for pod in self._deployment.pods:
            self._deployment.wait(lambda pod=pod: pod.said(said) > 0, f"{pod.name} to say: {said}")

    def _kill_worker(self, pod: Pod) -> None:
        container = pod.containers["breakwater"]
        before = pod.said(_UP)
        os.kill(container.children()[0], signal.SIGKILL)
        took_s = self._deployment.wait(lambda: pod.said(_UP) > before, "another worker")
        self._tell(f"  another one was there after {took_s:.1f} s")

    def _kill(self, pod: Pod, name: str) -> None:
        container = pod.containers[name]
        before = container.restarts
        container.kill()
        took_s = self._deployment.wait(lambda: container.restarts > before, "a restart")
        took_s += self._deployment.wait(lambda: pod.is_ready, f"{pod.name} to be ready again")
        self._tell(f"  ready again after {took_s:.1f} s")

    # -- what came of it -------------------------------------------------------------------------

    def _see(
        self, event: str, promised: str, happen: Callable[[], None], pod: Pod | None = None
    ) -> None:
        self._tell(f"{event} ...")
        began_s = time.monotonic()
        happen()
        time.sleep(self._settle_s)
        asked = [each for each in list(self._load.asked) if each.ended_s >= began_s]
        outcome = _outcome(event, promised, asked, began_s, None if pod is None else pod.name)
        self.outcomes.append(outcome)
        self._tell(
            f"  {outcome.requests} requests, {outcome.failed} failed, longest gap "
            f"{outcome.longest_gap_s:.2f} s: {'as promised' if outcome.kept else 'NOT as promised'}"
        )
        for failure in outcome.failures:
            self._tell(f"    {failure}")


def _outcome(
    event: str, promised: str, asked: Sequence[Asked], began_s: float, pod: str | None
) -> Outcome:
    failed = [each for each in asked if each.failure]
    elsewhere = [each for each in failed if pod is None or pod not in each.pods]
    return Outcome(
        event,
        promised,
        len(asked),
        len(failed),
        len(elsewhere),
        round(longest_gap(asked, began_s), 3),
        round(max((each.ended_s - began_s for each in failed), default=0.0), 3),
        bool(asked) and not elsewhere,
        tuple(sorted({each.failure for each in failed})[:4]),
    )


def longest_gap(asked: Sequence[Asked], began_s: float) -> float:
    """Longest that any client was without a right answer, from the begin to its last request."""
    longest = 0.0
    for client in {each.client for each in asked}:
        own = [each for each in asked if each.client == client]
        right = [began_s, *(each.ended_s for each in own if not each.failure), own[-1].ended_s]
        longest = max(longest, *(b - a for a, b in itertools.pairwise(right)))
    return longest
