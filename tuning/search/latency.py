"""Latency and cost of any policy, from those of a few that were measured.

A request takes one of few paths: it is settled at some level of the cascade, or it is flagged and
purified. Of each path the distribution is known or lies between two known ones; the recorded scores
say how many requests take which. Distributions are added and weighed quantile by quantile: what is
slow for one part of the path is slow for the others too (a busy machine), which is the careful
assumption for a p99.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from proxy.cascade import Stage
from tuning.search.outcome import Outcome
from tuning.search.space import NO_CHAIN, Candidate, Dispatch, Space

GRID = 1000
"""Quantiles a distribution is kept as."""
CALMEST: tuple[float, float] = (1.0, 1e-9)
"""Stops of a cascade at which no sample stops early."""
ALL_FLAGGED = 0.99
"""A false-positive rate at which nearly every request is flagged."""
_LATENCY, _CPU = 0, 1

Cost = npt.NDArray[np.float64]
"""(2, GRID) of one path: quantiles of a request's milliseconds; milliseconds of CPU, repeated."""


def cost(latency_ms: Sequence[float] | npt.NDArray[np.float64], cpu_ms: float) -> Cost:
    """What was measured of one path, one latency for each request."""
    at = (np.arange(GRID) + 0.5) / GRID
    return np.stack([np.quantile(np.asarray(latency_ms), at), np.full(GRID, cpu_ms)])


@dataclass(frozen=True, slots=True)
class Anchor:
    """One way to run the sidecar that is measured."""

    candidate: Candidate | None
    """None: no defence at all."""
    flagged: bool = False
    """Asked only about requests that it flags."""

    @property
    def name(self) -> str:
        """For people."""
        if self.candidate is None:
            return "pass-through"
        return self.candidate.name + (", a flagged request" if self.flagged else "")


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a policy is expected to cost a lone client."""

    p50_ms: float
    p99_ms: float
    added_p50_ms: float
    """Over pass-through."""
    added_p99_ms: float
    cpu_ms: float
    """Of the sidecar, for each request."""
    copies: float
    """Samples the model is asked about besides the client's own, for each request."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The measured ways, and what lies between them.

    Args:
        space: the palette.
        score_ms: detector -> milliseconds of its score and of making its copies, for one sample.
        measured: of every anchor that `anchors` names.
    """

    space: Space
    score_ms: Mapping[str, float]
    measured: Mapping[Anchor, Cost]
    _sets: dict[tuple[tuple[str, ...], Dispatch], Cost] = field(default_factory=dict)

    def predict(self, candidate: Candidate, outcome: Outcome) -> Predicted:
        """What a candidate costs, where requests are like the clean ones it was judged on."""
        bare = self.measured[BARE]
        mixed = self._mixture(candidate, outcome)
        p50, p99 = (_quantile(mixed, q) for q in (0.5, 0.99))
        return Predicted(
            p50_ms=p50,
            p99_ms=p99,
            added_p50_ms=p50 - float(np.quantile(bare[_LATENCY], 0.5)),
            added_p99_ms=p99 - float(np.quantile(bare[_LATENCY], 0.99)),
            cpu_ms=sum(share * float(path[_CPU].mean()) for share, path in mixed),
            copies=self._copies(candidate, outcome),
        )

    def _mixture(self, candidate: Candidate, outcome: Outcome) -> list[tuple[float, Cost]]:
        if candidate.action == "observe":
            return [(1.0, self._observed(candidate))]
        flagged = outcome.flagged_clean()
        paths = []
        for level, share in enumerate(outcome.reached.tolist()):
            names = outcome.levels[level]
            path = self._set(names, candidate.dispatch)
            if level and level == len(outcome.levels) - 1:
                path = path + self._late(names)
            paths.append((share * (1 - flagged), path))
        last = paths[-1][1]
        paths.append((flagged, last + self._purified(candidate)))
        return [(share, path) for share, path in paths if share > 0]

    def _set(self, names: Sequence[str], dispatch: Dispatch) -> Cost:
        """A clean request that is looked at by a set of detectors at once."""
        known = tuple(names), dispatch
        if known not in self._sets:
            self._sets[known] = self._between(*known)
        return self._sets[known]

    def _between(self, names: tuple[str, ...], dispatch: Dispatch) -> Cost:
        stage = self.space.stages(names)[-1:] or [Stage.INPUT]
        full, light = full_set(self.space, stage[0]), light_set(self.space, stage[0], self.score_ms)
        most = self.measured[plain(full, dispatch)]
        if light == full:
            return most
        low, high = self._units(light), self._units(full)
        least = self.measured[plain(light, "speculative")]
        if dispatch == "sequential":
            # Nothing hides behind the model's own time there.
            saved = self.measured[plain(full, "speculative")] - least
            saved[_LATENCY] = np.maximum(saved[_LATENCY], high - low)
            least = np.maximum(most - saved, self.measured[BARE])
        part = min(max((self._units(names) - low) / max(high - low, 1e-9), 0.0), 1.0)
        return least + part * (most - least)

    def _units(self, names: Sequence[str]) -> float:
        return sum(self.score_ms[name] for name in names)

    def _late(self, names: Sequence[str]) -> Cost:
        """What it costs besides to ask about copies only after the model's answer."""
        if self.space.stages(names)[-1] is not Stage.QUERIES:
            return np.zeros((2, GRID))
        whole = self.space.palette
        late = self.measured[in_doubt(whole)] - self.measured[plain(whole, "speculative")]
        return np.maximum(late, 0.0)

    def _purified(self, candidate: Candidate) -> Cost:
        """What a flagged request costs besides."""
        if candidate.action != "purify":
            return np.zeros((2, GRID))
        whole = self.space.palette
        anchor = purified(whole, candidate.chain, candidate.dispatch)
        if anchor not in self.measured:
            anchor = purified(whole, candidate.chain, "speculative")
        assert anchor.candidate is not None  # noqa: S101 (it purifies)
        clean = self.measured[plain(whole, anchor.candidate.dispatch)]
        return np.maximum(self.measured[anchor] - clean, 0.0)

    def _observed(self, candidate: Candidate) -> Cost:
        bare, whole = self.measured[BARE], self.space.palette
        part = self._units(candidate.detectors) / max(self._units(whole), 1e-9)
        return bare + min(part, 1.0) * (self.measured[observed(whole)] - bare)

    def _copies(self, candidate: Candidate, outcome: Outcome) -> float:
        asked = 0.0
        for share, names in zip(outcome.reached.tolist(), outcome.levels, strict=True):
            parts = self.space.built(names)
            asked += share * len({view.key for d in parts for view in d.views})
            asked += share * len({peer for d in parts for peer in d.peers})
        if candidate.action == "purify":
            asked += outcome.flagged_clean()
        return asked


BARE = Anchor(None)


def _whole(
    names: tuple[str, ...],
    action: str,
    dispatch: Dispatch,
    *,
    stops: tuple[float, float] | None = None,
    chain: str = NO_CHAIN,
    fpr: float = 0.05,
) -> Candidate:
    return Candidate(names, fpr, stops, action, chain, dispatch)  # type: ignore[arg-type]


def plain(names: tuple[str, ...], dispatch: Dispatch) -> Anchor:
    """A set of detectors that only flags."""
    return Anchor(_whole(names, "flag", dispatch))


def observed(names: tuple[str, ...]) -> Anchor:
    """The same beside the request."""
    return Anchor(_whole(names, "observe", "speculative"))


def in_doubt(names: tuple[str, ...]) -> Anchor:
    """A cascade that settles nothing before its last level."""
    return Anchor(_whole(names, "flag", "speculative", stops=CALMEST))


def purified(names: tuple[str, ...], chain: str, dispatch: Dispatch) -> Anchor:
    """A request that is flagged and purified."""
    made = _whole(names, "purify", dispatch, chain=chain, fpr=ALL_FLAGGED)
    return Anchor(made, flagged=True)


def full_set(space: Space, stage: Stage) -> tuple[str, ...]:
    """All of the palette up to a stage."""
    order = list(Stage)
    kept = [s for s in space.stages(space.palette) if order.index(s) <= order.index(stage)]
    return tuple(n for n in space.palette if (space.stages([n]) or [Stage.INPUT])[0] in kept)


def light_set(space: Space, stage: Stage, score_ms: Mapping[str, float]) -> tuple[str, ...]:
    """The cheapest detector of a stage, by itself."""
    own = [name for name in space.palette if space.stages([name]) == [stage]]
    return (min(own, key=lambda name: score_ms[name]),) if own else full_set(space, stage)


def anchors(space: Space, score_ms: Mapping[str, float]) -> list[Anchor]:
    """What is to be measured, each once: pass-through first."""
    whole = space.palette
    found = [BARE, observed(whole)]
    stages = space.stages(whole) or [Stage.INPUT]
    for stage in stages:
        found += [
            plain(full_set(space, stage), "speculative"),
            plain(light_set(space, stage, score_ms), "speculative"),
            plain(full_set(space, stage), "sequential"),
        ]
    if len(stages) > 1:
        found.append(in_doubt(whole))
    for position, chain in enumerate(space.chains):
        found.append(purified(whole, chain, "speculative"))
        if not position:
            found.append(purified(whole, chain, "sequential"))
    return list(dict.fromkeys(found))


def _quantile(mixed: Sequence[tuple[float, Cost]], q: float) -> float:
    """A quantile of the mixture of distributions."""
    values = np.concatenate([path[_LATENCY] for _, path in mixed])
    weights = np.repeat([share / GRID for share, _ in mixed], GRID)
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, q * passed[-1])])
