"""Detector with one extra query: does the answer survive the purifier that would be served?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from detectors.base import DetectorError
from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of
from purifiers import Chain
from purifiers.base import Kind


class PurifiedView(ViewDisagreement):
    """Change of the model's answer under the model's own purifier chain.

    Raw against purified: an attack through the purifier leaves the raw answer right, an attack on
    the model alone is undone by the purifier; either way the answers differ. Does not see an
    attack that fools both.

    Args:
        purifiers: the chain by names and params, in order, as under `purifiers` of the model's
            configuration; the proxy passes that list where the detector is given none.
        temperature: of the divergence, > 0.
        measures: see `ViewDisagreement`.

    Source: Meng and Chen, CCS 2017 (arXiv 1705.09064), 3.3. Known adaptive break: attack the raw
    and the purified copy at once (Tramer et al., NeurIPS 2020, arXiv 2002.08347).
    """

    name: ClassVar[str] = "purified_view"
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def __init__(
        self,
        purifiers: Sequence[Mapping[str, Any]] = (),
        temperature: float = TEMPERATURE,
        measures: Sequence[str] = MEASURES,
    ) -> None:
        chain = [view_of(self.name, part) for part in purifiers]
        if not chain:
            raise DetectorError(
                f"{self.name}: no purifiers to compare with; give the model some, or the detector"
            )
        super().__init__([chain[0] if len(chain) == 1 else Chain(chain)], temperature, measures)
