"""Runs of an attack, each on an image of its own, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadtests.query_attacks.grpc_oracle import Identities, Principal, sybils
from loadtests.query_attacks.run import Outcome, attack
from loadtests.query_attacks.scene import Site
from loadtests.query_attacks.suite import Plan
from tuning.evaluate.attempt import Target
from tuning.evaluate.oracle import LocalOracle, Oracle

LEAST = 10
"""An attack that wins with fewer queries, undefended, is hardly a search."""
LUCKY = 3
"""Runs that win so soon are the business of the detectors of single requests."""


@dataclass(frozen=True)
class Run:
    """One run against a sidecar. Query numbers count from 1; 0 means never."""

    seed: int
    queries: int
    seconds: float
    detected_at: int
    """The first refusal; nothing but an alarm refuses."""
    won_at: int
    """The first query within the bound that the bare model gets wrong, however it was answered."""
    served_at: int
    """The first of those that was answered wrongly: the attack has succeeded."""
    alarms: int
    """Counted by the sidecar. Refusals because of quarantine alone are none."""
    undefended_at: int | None = None
    """Where the same attack wins against the bare model; None: it was not run."""

    @property
    def is_search(self) -> bool:
        """Whether it needs `LEAST` queries or more, undefended, or does not win at all.

        Where that is not known: whether it is not lucky.
        """
        if self.undefended_at is None:
            return not self.is_lucky
        return self.undefended_at == 0 or self.undefended_at >= LEAST

    @property
    def is_detected(self) -> bool:
        """Whether it was before it succeeded."""
        return self.detected_at > 0 and not 0 < self.served_at < self.detected_at

    @property
    def seen_for(self) -> int:
        """Queries until it was detected; all of them where it was not."""
        return self.detected_at if self.is_detected else self.queries

    @property
    def is_lucky(self) -> bool:
        """Whether it succeeded within its first `LUCKY` queries."""
        return 0 < self.served_at <= LUCKY


Planned = Callable[[Identities], Plan]
"""An attack, of one who may become somebody else."""


@dataclass(frozen=True)
class Attack:
    """An attack and who asks."""

    name: str
    plan: Planned
    is_sybil: bool = False
    """Every query comes from another principal."""

    def of(self, name: str) -> tuple[Plan, Principal]:
        """What a run with this name does, and who asks."""
        identities = Identities(name)
        return self.plan(identities), sybils(name) if self.is_sybil else identities


def run(
    spec: Attack,
    targets: Sequence[Target],
    site: Site,
    bare: LocalOracle,
    *,
    undefended: bool = False,
    tick: Callable[[], None],
) -> Iterator[Run]:
    """Run an attack once on each target, one after the other.

    A run's seed is its number; attackers with odd ones do not send the clean image.

    Args:
        site: asked. It remembers earlier runs, so that no two may attack one image.
        bare: judges, and is attacked alike if `undefended`.
        tick: called after each run.
    """
    for seed, target in enumerate(targets):
        plan, principal = spec.of(f"{spec.name}-{seed}")
        before = site.alarms
        with site.oracle(principal) as oracle:
            outcome = _attacked(plan, oracle, bare, target, seed)
        alarms = site.alarms - before
        free = _attacked(plan, bare, bare, target, seed) if undefended else None
        yield _run(seed, outcome, alarms, free)
        tick()


def _attacked(plan: Plan, oracle: Oracle, bare: LocalOracle, target: Target, seed: int) -> Outcome:
    habits = plan.habits(seed, skip_clean=seed % 2 == 1)
    return attack(plan.run, oracle, bare, target, plan.bound, seed=seed, habits=habits)


def _run(seed: int, outcome: Outcome, alarms: int, free: Outcome | None) -> Run:
    refused = (number for number, asked in enumerate(outcome.log, 1) if asked.answer.is_refused)
    return Run(
        seed=seed,
        queries=outcome.queries,
        seconds=outcome.seconds,
        detected_at=next(refused, 0),
        won_at=outcome.won_at,
        served_at=outcome.served_at,
        alarms=alarms,
        undefended_at=None if free is None else free.won_at,
    )
