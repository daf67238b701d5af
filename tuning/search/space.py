"""What can be chosen: candidates, and the policy each of them is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from detectors.base import Detector, Need
from detectors.calibration import Calibration
from proxy import parts
from proxy.cascade import Stage, stage_of
from proxy.config import Cascade, Model, Part
from proxy.errors import ConfigError

Action = Literal["observe", "flag", "purify", "block"]
Dispatch = Literal["speculative", "sequential"]
ACTIONS: tuple[Action, ...] = ("observe", "flag", "purify", "block")
"""observe is the mode: scored beside the request, and flagged where nothing waits for it."""
DISPATCHES: tuple[Dispatch, ...] = ("speculative", "sequential")
NO_CHAIN = "none"
"""The way an answer is served without a purifier."""
STOPS: tuple[tuple[float, float], ...] = (
    (0.8, 0.0005),
    (0.5, 0.001),
    (0.3, 0.001),
    (0.1, 0.0005),
)
"""Where a cascade may stop: shares of benign samples, as `config.Cascade`."""
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Of the largest false-positive rate: the rates tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One policy."""

    detectors: tuple[str, ...]
    """In the order of the palette."""
    fpr: float
    stops: tuple[float, float] | None
    """Where its cascade stops, (clean, suspicious); None: no cascade."""
    action: Action
    chain: str
    """The purifiers, with action purify; otherwise `NO_CHAIN`."""
    dispatch: Dispatch

    @property
    def name(self) -> str:
        """What a person calls it."""
        looked = " + ".join(self.detectors)
        acts = f"purify ({self.chain})" if self.action == "purify" else self.action
        cascade = "" if self.stops is None else f", cascade {self.stops[0]:g}/{self.stops[1]:g}"
        how = "" if self.action == "observe" else f", {self.dispatch}"
        return f"{acts}: {looked} at {self.fpr:.2%}{cascade}{how}"


@dataclass(frozen=True, slots=True)
class Space:
    """All candidates there are.

    Args:
        model: the configured policy; its detectors are the palette.
        chains: name -> purifiers, of every chain whose answers were recorded.
        fprs: the false-positive rates tried, ascending.
        actions: what a policy may do.
    """

    model: Model
    chains: Mapping[str, tuple[Part, ...]]
    fprs: tuple[float, ...]
    actions: tuple[Action, ...] = ACTIONS
    scoring: tuple[Detector, ...] = field(init=False)
    """The palette, built."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scoring", parts.build_detectors(self.model))

    @property
    def palette(self) -> tuple[str, ...]:
        """The detectors to choose from."""
        return tuple(d.name for d in self.scoring)

    def built(self, names: Sequence[str]) -> list[Detector]:
        """Some of the palette."""
        return [d for d in self.scoring if d.name in names]

    def stages(self, names: Sequence[str]) -> list[Stage]:
        """The stages of some detectors, in order of cost."""
        found = {stage_of(d) for d in self.built(names) if d.needs is not Need.HISTORY}
        return [stage for stage in Stage if stage in found]

    def canonical(self, candidate: Candidate) -> Candidate:
        """The same policy written in one way only: what has no effect is left out."""
        stops, dispatch = candidate.stops, candidate.dispatch
        action: Action = candidate.action
        if len(self.stages(candidate.detectors)) < 2:
            stops = None
        if action == "purify" and candidate.chain not in self.chains:
            action = "flag"
        if action == "observe":
            dispatch = "speculative"
        chain = candidate.chain if action == "purify" else NO_CHAIN
        named = tuple(name for name in self.palette if name in candidate.detectors)
        return Candidate(named, candidate.fpr, stops, action, chain, dispatch)

    def policy(self, candidate: Candidate) -> Model:
        """The configuration of a candidate, with the palette's calibration.

        Raises:
            ConfigError: it cannot be configured.
        """
        params = parts.detector_params(self.model)
        stops = candidate.stops
        changes = {
            "detectors": tuple(Part(name=n, params=params[n]) for n in candidate.detectors),
            "fpr": candidate.fpr,
            "cascade": None if stops is None else Cascade(clean=stops[0], suspicious=stops[1]),
            "mode": "observe" if candidate.action == "observe" else "enforce",
            "action": "flag" if candidate.action == "observe" else candidate.action,
            "dispatch": candidate.dispatch,
        }
        if candidate.action == "purify":
            changes["purifiers"] = self.chains[candidate.chain]
        if changes.get("purifiers", self.model.purifiers) != self.model.purifiers:
            changes["aggregate"] = None
        if candidate.action != "purify" and self.model.query_attacks.action not in _PURIFYING:
            changes["aggregate"] = None
        settings = {name: getattr(self.model, name) for name in self.model.model_fields_set}
        try:
            return Model(**{**settings, **changes})
        except ValueError as error:
            raise ConfigError(f"{candidate.name}: {error}") from error

    def first(self) -> Iterator[Candidate]:
        """Where to begin: the whole palette and each evidence level, with every action."""
        most = self.fprs[-1]
        levels = [
            tuple(d.name for d in self.scoring if list(Stage).index(stage_of(d)) <= rank)
            for rank in range(len(Stage))
        ]
        for names in dict.fromkeys(names for names in reversed(levels) if names):
            for action in self.actions:
                for chain in self.chains if action == "purify" else (NO_CHAIN,):
                    yield self.canonical(Candidate(names, most, None, action, chain, "speculative"))


_PURIFYING = ("purify", "decoy")


def space_of(
    model: Model, chains: Mapping[str, tuple[Part, ...]], calibration: Calibration, max_fpr: float
) -> Space:
    """The space of a palette, up to the largest rate.

    Raises:
        ConfigError: the calibration supports no rate as low as that.
    """
    least = calibration.least_fpr
    fprs = tuple(r for r in (float(f"{s * max_fpr:.4g}") for s in SHARES) if r >= least)
    if not fprs:
        raise ConfigError(
            f"the calibration supports false-positive rates from {least:.3g}, not {max_fpr:g}: "
            "calibrate on more images, or allow more with --max-fpr"
        )
    return Space(model, chains, fprs)


def candidate_of(model: Model, space: Space) -> Candidate:
    """A configured policy as a candidate.

    Raises:
        ConfigError: it has a detector that was not recorded, or another chain of purifiers.
    """
    names = tuple(part.name for part in model.detectors)
    missing = sorted(set(names) - set(space.palette))
    if missing or not names:
        raise ConfigError(
            f"no scores were recorded of {', '.join(missing) or 'its detectors'}: there are "
            f"{', '.join(space.palette)}"
        )
    action: Action = "observe" if model.mode == "observe" else model.action
    chain = NO_CHAIN
    if action == "purify":
        same = [name for name, made in space.chains.items() if made == model.purifiers]
        if not same:
            told = " + ".join(part.name for part in model.purifiers)
            raise ConfigError(f"no answers were recorded with its purifiers ({told})")
        chain = same[0]
    stops = None
    if model.cascade is not None:
        stops = (model.cascade.clean, model.cascade.suspicious)
    return space.canonical(Candidate(names, model.fpr, stops, action, chain, model.dispatch))
