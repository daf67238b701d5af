"""What a user wants evaluated, and what of it there can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from proxy.errors import ConfigError
from tuning.evaluate import sizes as threat
from tuning.evaluate.attacks import ATTACKS
from tuning.evaluate.queries import NAMES
from tuning.evaluate.sizes import Sizes, sized
from tuning.lineage import Origin


@dataclass(frozen=True)
class Wanted:
    """What to measure, beside the model and its data."""

    model_file: Path | None = None
    surrogate_file: Path | None = None
    attacks: tuple[str, ...] = ()
    """Names of `ATTACKS` and `queries.NAMES`; empty for the default."""
    threats: tuple[str, ...] = ()
    """Of `sizes.THREATS`; empty for all there can be."""
    samples: int | None = None
    seed: int = 0
    quick: bool = False
    endpoint: str | None = None
    origin: Origin | None = None
    """What a person says of the data."""

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        found = sized(quick=self.quick, samples=self.samples)
        if not self.attacks:
            return found
        return replace(found, attacks=tuple(n for n in self.attacks if n in ATTACKS))

    @property
    def queries(self) -> tuple[str, ...]:
        """The attacks through the endpoint."""
        return tuple(n for n in NAMES if not self.attacks or n in self.attacks)

    def known(self) -> tuple[str, ...]:
        """The threats there can be.

        Raises:
            ConfigError: one is wanted that takes a copy of the model, or a name is unknown.
        """
        unknown = [name for name in self.attacks if name not in (*ATTACKS, *NAMES)]
        if unknown:
            raise ConfigError(
                f"--attacks {' '.join(unknown)}: not known; there are {', '.join(ATTACKS)}, and "
                f"through the endpoint {', '.join(NAMES)}"
            )
        if self.model_file is not None:
            return self.threats or threat.THREATS
        asked = [name for name in self.threats if name in threat.WHITE_BOX]
        if asked:
            raise ConfigError(
                f"--threats {', '.join(asked)}: what knows the model takes a copy of it; give one "
                "with --model-file COPY (.pt, .pt2 or .onnx)"
            )
        return self.threats or (threat.TRANSFER, threat.QUERY)
