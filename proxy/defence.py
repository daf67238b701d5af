"""One model's defence at run time: its configuration, and what Triton's description adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.adapt import ModelSpec
from proxy.config import Model, NonFinitePolicy
from proxy.dispatch import Governor
from proxy.model_metrics import ModelMetrics
from proxy.shadow_metrics import ShadowMetrics

if TYPE_CHECKING:  # torch is loaded only when some model has detectors
    from proxy.drift.population import Population
    from proxy.scoring import Scorer


@dataclass(slots=True)
class Defence:
    """The defence of one model name; `model` is None for a model that is not configured."""

    name: str
    model: Model | None
    metrics: ModelMetrics
    non_finite: NonFinitePolicy
    refused: bool = False
    """The configuration wants this model refused (`unlisted_models: refuse`)."""
    spec: ModelSpec | None = None
    """None until Triton has described the model."""
    scorer: Scorer | None = None
    """None until `spec` is known, and for models without detectors."""
    problem: str = ""
    """Why the model cannot be scored although Triton serves it."""
    shadow: Onlooker | None = None
    """A second policy that looks at the same requests."""
    population: Population | None = None
    """Its traffic as a whole, where drift is watched."""
    governor: Governor = field(init=False)
    """Falls back to sequential dispatch where speculation is dear."""

    def __post_init__(self) -> None:
        """Begin with the dispatch that is configured."""
        self.governor = Governor(1.0 if self.model is None else self.model.max_waste)
        if self.model is not None and self.model.mode == "enforce" and self.model.detectors:
            self.metrics.dispatch(speculative=self.model.dispatch == "speculative")

    @property
    def wants_scoring(self) -> bool:
        """Whether requests to this model are to be scored at all."""
        return self.model is not None and bool(self.model.detectors)

    @property
    def is_ready(self) -> bool:
        """Whether requests can be scored, if they are to be."""
        return not self.wants_scoring or self.scorer is not None


@dataclass(frozen=True, slots=True)
class Onlooker:
    """A policy that is scored and never acts; its `model` is always there."""

    defence: Defence
    counts: ShadowMetrics
    share: float
    """Of the requests it looks at, (0, 1]."""
