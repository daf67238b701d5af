"""The knee: the highest throughput at which p99 does not exceed twice an idle server's p99.

`find_knee` is a search over any `measure(rate)`; `measure_capacity` is the real thing. Disturbance
on a shared machine only ever makes a step slower, so a step that fails is measured again before it
is believed, and the middle of its p99s counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tuning.load import Client, Load

LIMIT = 2.0
"""Times the idle p99."""
IDLE_REQUESTS = 300
"""A p99 of fewer rests on less than three requests."""
IDLE_PAUSE_S = 0.01
"""Long enough that threads sleep and caches cool, as they do between rare requests."""
LEAST_REQUESTS, MOST_REQUESTS = 300, 3000
"""Of one step, but that none takes longer than `LONGEST_STEP_S`."""
LONGEST_STEP_S = 6.0

_DOWN = 11
"""How many times `growth` below the first rate the search gives up."""
_KEEPS_UP = 0.9
"""Least share of the offered rate that must be answered; the rest is the Poisson spread."""


@dataclass(frozen=True, slots=True)
class Step:
    """The server at one rate."""

    offered_per_s: float
    throughput_per_s: float
    p50_ms: float
    p99_ms: float
    has_kept_up: bool
    """All were answered, without error and at the rate they came."""

    def is_within(self, limit_ms: float) -> bool:
        """Whether this rate can be sustained at this p99."""
        return self.has_kept_up and self.p99_ms <= limit_ms


Measure = Callable[[float], Awaitable[Step]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly to search."""

    first_per_s: float
    """The rate to begin with; any rate will do, one well below the knee is quickest."""
    growth: float = 1.5
    """By how much each step of the ramp is faster."""
    precision: float = 0.08
    """The knee is known to this share of itself."""
    repeats: int = 3
    """How often a step that fails is measured; its median counts."""
    most_steps: int = 30


@dataclass(slots=True)
class Knee:
    """What the search found."""

    limit_ms: float
    best: Step | None = None
    """The fastest step within the limit; None if there was none."""
    lowest_failure_per_s: float = float("inf")
    steps: list[Step] = field(default_factory=list)
    """All that was measured, in order."""

    @property
    def throughput_per_s(self) -> float:
        """Answers per second at the knee; 0 if no rate was within the limit."""
        return self.best.throughput_per_s if self.best is not None else 0.0

    @property
    def is_bounded(self) -> bool:
        """Whether a rate was reached that is too fast; otherwise the knee is at least this."""
        return self.lowest_failure_per_s != float("inf")


async def find_knee(measure: Measure, limit_ms: float, plan: Plan) -> Knee:
    """Ramp up until a step fails, then halve the gap until it is within the precision."""
    knee = Knee(limit_ms)
    rate = plan.first_per_s
    while len(knee.steps) < plan.most_steps:
        step = await _settled(measure, rate, knee, plan)
        if step.is_within(limit_ms):
            knee.best = step
        else:
            knee.lowest_failure_per_s = rate
        rate = _next(knee, plan)
        if not rate:
            break
    return knee


def _next(knee: Knee, plan: Plan) -> float:
    """The rate to try next; 0 when the knee is known."""
    high = knee.lowest_failure_per_s
    if knee.best is None:
        down = high / plan.growth**2
        return down if down > plan.first_per_s / plan.growth**_DOWN else 0.0
    low = knee.best.offered_per_s
    if not knee.is_bounded:
        return low * plan.growth
    return (low + high) / 2 if high / low > 1 + plan.precision else 0.0


async def _settled(measure: Measure, rate: float, knee: Knee, plan: Plan) -> Step:
    """One step, measured again while it fails: the median of its p99s decides."""
    taken: list[Step] = []
    for _ in range(plan.repeats):
        taken.append(await measure(rate))
        knee.steps.append(taken[-1])
        passed = sum(step.is_within(knee.limit_ms) for step in taken)
        if passed > len(taken) - passed or len(taken) - passed > plan.repeats // 2:
            break
    # A server that does not keep up has no p99 to speak of: such steps come last.
    ordered = sorted(taken, key=lambda step: (not step.has_kept_up, step.p99_ms))
    return ordered[len(ordered) // 2]


@dataclass(frozen=True, slots=True)
class Capacity:
    """An idle server's latency and how much it takes until it is twice as slow."""

    idle_p50_ms: float
    idle_p99_ms: float
    knee: Knee

    @property
    def curve(self) -> list[Step]:
        """Steps by rate, the best of each rate: the latency over the load."""
        best: dict[float, Step] = {}
        for step in self.knee.steps:
            best[step.offered_per_s] = min(
                step, best.get(step.offered_per_s, step), key=lambda s: s.p99_ms
            )
        return [best[rate] for rate in sorted(best)]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    idle_rounds: int = 3
    step_s: float = 2.0
    """A step takes so long where that is between 300 and 3000 requests."""
    repeats: int = 3
    precision: float = 0.08


QUICK = Effort(idle_rounds=1, step_s=0.7, repeats=2, precision=0.2)
"""A first impression."""


async def measure_capacity(client: Client, effort: Effort = Effort()) -> Capacity:
    """Measure a server: idle first, then the knee.

    Raises:
        RuntimeError: it answers requests with errors even one at a time.
    """
    await client.one_at_a_time(50, pause_s=0)  # first passes are many times dearer than later ones
    idle = [
        await client.one_at_a_time(IDLE_REQUESTS, pause_s=IDLE_PAUSE_S)
        for _ in range(effort.idle_rounds)
    ]
    failed = sum(load.errors for load in idle)
    if failed:
        raise RuntimeError(f"{failed} of {IDLE_REQUESTS * len(idle)} lone requests failed")
    p50_ms, p99_ms = _median(idle, 50), _median(idle, 99)

    async def measure(rate: float) -> Step:
        count = int(min(max(rate * effort.step_s, LEAST_REQUESTS), MOST_REQUESTS))
        count = min(count, int(rate * LONGEST_STEP_S) + 1)
        return _step(await client.open_loop(rate, count))

    # One request at a time can do 1000/p50 a second: a third of that is below any knee.
    plan = Plan(1000 / p50_ms / 3, repeats=effort.repeats, precision=effort.precision)
    return Capacity(p50_ms, p99_ms, await find_knee(measure, LIMIT * p99_ms, plan))


def _median(loads: Sequence[Load], percent: float) -> float:
    return statistics.median(load.percentile_ms(percent) for load in loads)


def _step(load: Load) -> Step:
    has_kept_up = not load.errors and not load.unsent
    return Step(
        offered_per_s=load.offered_per_s,
        throughput_per_s=load.throughput_per_s,
        p50_ms=load.percentile_ms(50),
        p99_ms=load.percentile_ms(99),
        has_kept_up=has_kept_up and load.throughput_per_s >= _KEEPS_UP * load.offered_per_s,
    )
