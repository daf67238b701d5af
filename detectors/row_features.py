"""Features of rows that are few enough to estimate how they vary together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detectors.principal import Principal
from detectors.standard import Standard

MOST = 256
"""Features kept as they are; of longer rows (embeddings), so many principal components are."""
_FLOOR = 1e-3
"""Added to the size of what the components leave out, in squared spreads."""


class RowFeatures:
    """Standardised rows; of long ones the principal components and the size of what is left.

    Args:
        standard: of the rows' own features.
        principal: None for rows of at most `MOST` features.
    """

    def __init__(self, standard: Standard, principal: Principal | None) -> None:
        self._standard, self._principal = standard, principal

    @classmethod
    def fit(cls, groups: Mapping[str, Tensor]) -> RowFeatures:
        """Learn from benign rows, (n_g, D) by group.

        Raises:
            DetectorError: fewer than 2 rows, or values that are not finite.
        """
        rows = torch.cat(list(groups.values()))
        standard = Standard.fit(rows)
        wide = rows.shape[1] > MOST
        return cls(standard, Principal.fit(standard(rows), most=MOST) if wide else None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return (N, D), or (N, R + 1) for long rows; NaN where a row is not finite."""
        z = self._standard(x)
        if self._principal is None:
            return z
        left = self._principal.rest(z).square().mean(dim=1, keepdim=True).add(_FLOOR).log()
        return torch.cat((self._principal.project(z), left), dim=1)

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return self._standard.state() | (self._principal.state() if self._principal else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> RowFeatures:
        """The inverse of `state`, on the given device; other entries are left alone.

        Raises:
            DetectorError: a part is missing.
        """
        principal = Principal.from_state(state, device) if "basis" in state else None
        return cls(Standard.from_state(state, device), principal)
