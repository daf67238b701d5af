"""The search over candidates: several aims at once, none traded for another beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.errors import ConfigError
from tuning.search.latency import Paths, Predicted
from tuning.search.outcome import Bench, Outcome
from tuning.search.space import ACTIONS, DISPATCHES, NO_CHAIN, STOPS, Candidate, Space

if TYPE_CHECKING:
    import optuna

_POPULATION = 40
_ASKED = 8
"""Times the wanted number of candidates that are asked for at most: many come twice."""
_ANY, _NO_STOPS = "at least", 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a policy must keep to."""

    added_p99_ms: float
    fpr: float
    """Of the worst benign group."""
    loss: float
    """Of accuracy on clean samples, as a share."""

    def violations(self, outcome: Outcome, predicted: Predicted) -> dict[str, float]:
        """By how much each limit is exceeded, as a share of it; at most 0 where it is kept."""
        found = {
            "added p99": (predicted.added_p99_ms, self.added_p99_ms),
            "false-positive rate": (outcome.fpr, self.fpr),
            "accuracy loss": (outcome.loss, self.loss),
        }
        return {name: (value - most) / max(most, 1e-9) for name, (value, most) in found.items()}


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate with all that is known of it."""

    candidate: Candidate
    outcome: Outcome
    """On the searched half."""
    predicted: Predicted

    def keeps(self, limits: Limits) -> bool:
        """Whether it is within all limits."""
        return all(v <= 0 for v in limits.violations(self.outcome, self.predicted).values())


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    trials: tuple[Trial, ...]
    """Every candidate, once, in the order they were tried."""
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """One search.

    Args:
        attacks: those whose mean harm is to be small.
        limits: candidates within them count as better than any other.
        count: candidates to try, different ones.
    """

    space: Space
    bench: Bench
    paths: Paths
    limits: Limits
    attacks: Sequence[str]
    count: int
    seed: int = 0

    def run(
        self, first: Sequence[Candidate] = (), on_trial: Callable[[], None] = lambda: None
    ) -> Found:
        """Try candidates; an interrupt ends it early, with those tried so far.

        Args:
            first: tried before any other.

        Raises:
            ConfigError: Optuna is not installed.
        """
        study = _study(self.seed)
        for candidate in first:
            study.enqueue_trial(self._params(candidate), skip_if_exists=True)
        tried: dict[Candidate, Trial] = {}
        try:
            for _ in range(self.count * _ASKED):
                if len(tried) >= self.count:
                    break
                asked = study.ask()
                candidate = self._candidate(asked)
                if candidate not in tried:
                    tried[candidate] = self.trial(candidate)
                    on_trial()
                self._tell(study, asked, tried[candidate])
        except KeyboardInterrupt:
            if not tried:
                raise
            return Found(tuple(tried.values()), interrupted=True)
        return Found(tuple(tried.values()))

    def trial(self, candidate: Candidate) -> Trial:
        """One candidate on the searched half."""
        outcome = self.bench.outcome(candidate)
        return Trial(candidate, outcome, self.paths.predict(candidate, outcome))

    def _tell(self, study: optuna.Study, asked: optuna.Trial, trial: Trial) -> None:
        outcome, predicted = trial.outcome, trial.predicted
        for name, over in self.limits.violations(outcome, predicted).items():
            asked.set_constraint(name, over)
        aims = [predicted.added_p99_ms, outcome.fpr, outcome.loss, outcome.harm(self.attacks)]
        study.tell(asked, aims)

    def _candidate(self, asked: optuna.Trial) -> Candidate:
        palette, chains = self.space.palette, list(self.space.chains)
        actions = [ACTIONS.index(action) for action in self.space.actions]
        fallback = asked.suggest_categorical(_ANY, palette)
        names = [n for n in palette if asked.suggest_categorical(f"use {n}", (True, False))]
        fpr = self.space.fprs[asked.suggest_int("fpr", 0, len(self.space.fprs) - 1)]
        stop = asked.suggest_int("stops", _NO_STOPS, len(STOPS))
        action = ACTIONS[asked.suggest_categorical("action", actions)]
        chain = asked.suggest_categorical("chain", chains) if chains else NO_CHAIN
        dispatch = DISPATCHES[asked.suggest_int("dispatch", 0, 1)]
        made = Candidate(
            tuple(names or [fallback]),
            fpr,
            STOPS[stop - 1] if stop else None,
            action,
            chain,
            dispatch,
        )
        return self.space.canonical(made)

    def _params(self, candidate: Candidate) -> dict[str, Any]:
        """The suggestions that make a candidate, or the nearest there is."""
        fprs = self.space.fprs
        params: dict[str, Any] = {
            _ANY: candidate.detectors[0],
            **{f"use {name}": name in candidate.detectors for name in self.space.palette},
            "fpr": min(range(len(fprs)), key=lambda i: abs(fprs[i] - candidate.fpr)),
            "stops": STOPS.index(candidate.stops) + 1 if candidate.stops in STOPS else _NO_STOPS,
            "action": ACTIONS.index(candidate.action),
            "dispatch": DISPATCHES.index(candidate.dispatch),
        }
        if self.space.chains:
            chains = list(self.space.chains)
            params["chain"] = candidate.chain if candidate.chain in chains else chains[0]
        return params


def _study(seed: int) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "the search needs optuna: pip install 'breakwater[tune]', or measure what each way to "
            "run the defence takes with --capacity"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)
    return optuna.create_study(directions=["minimize"] * 4, sampler=sampler)
