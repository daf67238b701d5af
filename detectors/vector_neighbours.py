"""Input-only detector of rows: is there a benign row that is like this one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.covariance import whitening
from detectors.row_features import RowFeatures
from purifiers.base import Kind

_LEAST_DISTANCE = 1e-3
"""Mean absolute deviation, in spreads, below which rows are the same."""


class VectorNeighbours(Detector):
    """Log distance to the k-th nearest of the stored benign rows.

    The distance is the mean absolute difference of the features, decorrelated and of unit variance:
    in plain standardised features, thresholds at 5 % of the worst group on the breast-cancer table,
    PGD of 1.0 standard deviations is detected in 0.62 of cases, in these in 0.98. Makes no
    assumption of one cluster, so it serves where benign rows fall into several.

    Sees rows between the clusters, and strong attacks that move correlated features against each
    other (`vector_mahalanobis` sees weaker ones). Does not see minimal changes, which stay nearer
    to their own benign row than benign rows are to each other.

    Args:
        k: which neighbour, 1 to 50.
        rows: benign rows kept, at most, evenly taken from all groups: time and memory grow with it.

    Source: Papernot and McDaniel, 2018 (arXiv 1803.04765), on inputs in place of layers; Sun et
    al., ICML 2022 (arXiv 2204.06507), 3, distance to the k-th neighbour. Known adaptive break:
    Sitawarin and Wagner, DLS 2019 (arXiv 1903.08333): go for the benign rows of another class.
    """

    name: ClassVar[str] = "vector_neighbours"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTOR})

    def __init__(self, k: int = 3, rows: int = 2048) -> None:
        if k not in range(1, 51):
            raise DetectorError(f"{self.name}: k must be 1 to 50, not {k!r}")
        if rows not in range(100, 100_001):
            raise DetectorError(f"{self.name}: rows must be 100 to 100000, not {rows!r}")
        self._k, self._most = int(k), int(rows)
        self._features: RowFeatures | None = None
        self._weights = self._rows = torch.empty(0)

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Keep benign rows; a group needs at least k of them."""
        if any(len(evidence.x) < self._k for evidence in benign.values()):
            raise DetectorError(f"{self.name}: every benign group needs at least {self._k} rows")
        with torch.no_grad():
            self._features = RowFeatures.fit({group: e.x for group, e in benign.items()})
            z = torch.cat([self._features(evidence.x) for evidence in benign.values()])
            self._weights = whitening(z)
            self._rows = z[:: -(-len(z) // self._most)] @ self._weights

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        if self._features is None:
            return {}
        return {**self._features.state(), "weights": self._weights, "rows": self._rows}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        if not {"weights", "rows"} <= set(state):
            raise DetectorError(f"{self.name}: expected weights and rows, not {sorted(state)}")
        self._features = RowFeatures.from_state(state, device)
        self._weights, self._rows = state["weights"].to(device), state["rows"].to(device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._features is None:
            raise DetectorError(f"{self.name} was not fitted")
        own = self._features(evidence.x) @ self._weights  # (B, D)
        distance = torch.cdist(own, self._rows, p=1.0) / own.shape[1]  # (B, rows)
        return distance.kthvalue(self._k, dim=1).values.add(_LEAST_DISTANCE).log()
