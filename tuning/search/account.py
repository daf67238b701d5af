"""`tune.json`: everything a run measured, tried, chose and checked."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from proxy import __version__
from proxy.files import write_whole
from tuning.search import shown
from tuning.search.basis import Basis, Given
from tuning.search.front import Choice, Threat
from tuning.search.latency import Paths
from tuning.search.optimise import Found, Limits
from tuning.search.promises import Row
from tuning.search.recorded import Recorded

FILE = "tune.json"


@dataclass(slots=True)
class Account:
    """What is known so far; `write` may be called at any time."""

    given: Given
    limits: Limits
    command: str
    _document: dict[str, object] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Where it is written."""
        return self.given.out / FILE

    def basis(self, basis: Basis, recorded: Recorded, threats: Sequence[Threat]) -> None:
        """What the search rests on."""
        self._document |= {
            "calibration": str(basis.whole.folder),
            "evaluation": str(self.given.evaluation) if self.given.evaluation else "made here",
            "palette": list(recorded.detectors),
            "chains": list(basis.chains),
            "samples": {
                half: {name: len(each.scores) for name, each in kinds.items()}
                for half, kinds in (
                    ("searched, benign", recorded.searched.benign),
                    ("searched, attacks", recorded.searched.attacks),
                    ("held out, benign", recorded.held.benign),
                    ("held out, attacks", recorded.held.attacks),
                )
            },
            "kept_back": list(recorded.kept_back),
            "tuned_on": sorted(recorded.tuned_on),
            "threats": {threat.name: list(threat.attacks) for threat in threats},
        }

    def costs(self, paths: Paths, requests: int, seconds: float) -> None:
        """What was measured to predict latency from."""
        self._document["costs"] = shown.anchor_rows(paths.measured, requests)
        self._document["score_ms"] = {name: round(ms, 3) for name, ms in paths.score_ms.items()}
        self._document["measuring_s"] = round(seconds, 1)

    def candidates(self, found: Found, threats: Sequence[Threat], seconds: float) -> None:
        """Every candidate."""
        self._document |= {
            "rows": [shown.trial_row(trial, threats, self.limits) for trial in found.trials],
            "search_s": round(seconds, 2),
            "interrupted": found.interrupted,
        }

    def chosen(self, choices: Sequence[Choice]) -> None:
        """What is recommended, by threat model; the first is what is written."""
        self._document["recommended"] = [
            {
                "threat": choice.threat.name,
                "policy": choice.taken.candidate.name,
                "why": choice.why(),
                "front": [trial.candidate.name for trial in choice.front],
            }
            for choice in choices
        ]

    def checked(
        self,
        attacks: Sequence[Row],
        promises: Sequence[Row],
        comparison: Sequence[Row],
    ) -> None:
        """How the recommended policy does on what the search did not see."""
        self._document |= {
            "attacks": list(attacks),
            "promises": list(promises),
            "comparison": list(comparison),
        }

    def write(self) -> None:
        """Write what there is."""
        given = self.given
        about: Mapping[str, object] = {
            "breakwater": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "command": self.command,
            "model": given.name,
            "upstream": given.config.upstream,
            "data": str(given.data),
            "seed": given.seed,
            "limits": asdict(self.limits),
        }
        given.out.mkdir(parents=True, exist_ok=True)
        whole = {**about, **self._document}
        write_whole(self.file, (json.dumps(whole, indent=1) + "\n").encode())
