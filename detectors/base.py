"""The detector contract: what a detector may look at, and what it must return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, final

import torch
from torch import Tensor

from detectors.maps import Pieces
from purifiers.base import Kind, Purifier


class DetectorError(ValueError):
    """A detector lacks evidence it needs, was not fitted, or broke its own contract."""


class Need(StrEnum):
    """The kinds of evidence, in order of cost."""

    INPUT = "input"
    HISTORY = "history"
    """The input, and the earlier queries it follows on."""
    OUTPUT = "output"
    VIEWS = "views"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a batch of B samples when it is scored."""

    x: Tensor
    """(B, C, H, W) float32 in [0, 1], or another kind of input (`purifiers.base.Kind`)."""
    output: Tensor | None = None
    """The model's own answer, (B, K) float32: logits, or log-probabilities where the model returns
    probabilities. None where the answer is not to be had."""
    views: Mapping[str, Tensor] = field(default_factory=dict)
    """Answers to the proxy's own queries, (B, K) float32, as `output`: purifier key -> the model's
    answer to that transformed copy; `peer_key(name)` -> another model's answer to the original."""
    chain: Tensor | None = None
    """What is known of the earlier queries each sample follows on, (B, F) float32
    (`detectors.chains.FEATURES`). None where no history is kept."""
    pieces: Pieces = field(init=False, repr=False, compare=False)
    """`x` a few samples at a time, with the maps that input-only detectors share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", Pieces(self.x))


def peer_key(model: str) -> str:
    """The key in `Evidence.views` of another model's answer."""
    return f"model:{model}"


class Detector(ABC):
    """Scores samples: higher = more suspicious. Fitted on benign data only."""

    name: ClassVar[str]
    """Configuration key and metric label, [a-z_]+."""
    needs: ClassVar[Need]
    """The dearest evidence used. VIEWS implies OUTPUT; neither implies HISTORY."""
    tier: ClassVar[int]
    """Cost: 0 looks at the input only, 1 at the model's answer too, 2 asks the model again, 3 runs
    a network of its own or asks other models."""
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.IMAGE})
    """What kinds of input it can judge."""

    @property
    def asks(self) -> bool:
        """Whether it looks at answers of a model."""
        return self.needs in (Need.OUTPUT, Need.VIEWS)

    @property
    def views(self) -> tuple[Purifier, ...]:
        """The transformed copies this detector wants the model to see; the pipeline asks."""
        return ()

    @property
    def peers(self) -> tuple[str, ...]:
        """Other models of the same server whose answers it wants, by name."""
        return ()

    def prepare(self, clean: Tensor) -> None:  # noqa: B027 (most need nothing)
        """Learn from inputs alone, before any view is made or asked about. The default does not.

        Detectors whose views are made of benign inputs keep some here; `fit` comes after it, with
        the answers to those views.

        Args:
            clean: benign inputs without variations, (N, C, H, W) float32 in [0, 1].

        Raises:
            DetectorError: too few of them.
        """

    def fit(self, benign: Mapping[str, Evidence]) -> None:  # noqa: B027 (many learn nothing)
        """Learn from benign evidence only. The default learns nothing.

        Args:
            benign: group name -> evidence. `clean` is the unchanged images; the other groups are
                benign variations of them (`detectors.benign.variations`, and the user's own).
                Groups are kept apart so that a detector may model each: what is rare in the mix
                is often common in one group.

        Raises:
            DetectorError: the evidence is missing or too little to learn from.
        """

    def state(self) -> dict[str, Tensor]:
        """What `fit` learned, for safetensors. The inverse of `load_state`."""
        return {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what `fit` learned, on the given device."""
        if state:
            raise DetectorError(f"{self.name} keeps no state but was given {sorted(state)}")

    @final
    def score(self, evidence: Evidence, *, gradients: bool = False) -> Tensor:
        """Return one score per sample, (B,) float32 on the evidence's device.

        Args:
            gradients: keep the autograd graph, for attacks that look through the detector.

        Scores may be non-finite for inputs a detector cannot judge; the caller must treat those
        as a detector failure (never as clean).

        Raises:
            DetectorError: evidence this detector needs is missing, or it was not fitted.
        """
        if self.asks and evidence.output is None:
            raise DetectorError(f"{self.name} needs the model's output")
        if self.needs is Need.HISTORY and evidence.chain is None:
            raise DetectorError(f"{self.name} needs the queries before this one")
        wanted = [*(view.key for view in self.views), *(peer_key(peer) for peer in self.peers)]
        missing = [key for key in wanted if key not in evidence.views]
        if missing:
            raise DetectorError(f"{self.name} needs views {missing}")
        with torch.inference_mode(not gradients):
            scores = self._score(evidence)
        if scores.shape != evidence.x.shape[:1] or scores.dtype != torch.float32:
            raise DetectorError(
                f"{self.name} returned {tuple(scores.shape)} {scores.dtype}, "
                f"not ({evidence.x.shape[0]},) float32"
            )
        return scores

    def score_row(self, output: Sequence[float]) -> float | None:
        """The score of one sample by the model's answer alone, in plain floats; see `score`.

        For a few numbers this takes a small part of the time that tensors take.

        Args:
            output: (K,), values of float32.

        Returns:
            Within `detectors.answers.ROW_ERROR` of what `score` gives, and finite; None where only
            `score` can tell, which is the default, and the way for answers that are not finite.
        """
        return None

    @abstractmethod
    def _score(self, evidence: Evidence) -> Tensor: ...

    def __repr__(self) -> str:
        return self.name
