"""The threat models a policy is chosen for, and the attacks each is judged by."""

from __future__ import annotations

from proxy.errors import ConfigError
from tuning.search.front import ALL, Threat
from tuning.search.recorded import Recorded

ADAPTIVE = "adaptive"
"""Made against one policy: against another they are attacks like any other, and weaker."""


def threats_of(recorded: Recorded, wanted: str = "") -> list[Threat]:
    """The threat models with attacks the search sees; the one to recommend for comes first.

    Args:
        wanted: a threat model; empty: all attacks but those made against one policy.

    Raises:
        ConfigError: no attack of the wanted one was recorded.
    """
    seen = recorded.searched.attacks
    by_name: dict[str, list[str]] = {}
    for attack in seen:
        by_name.setdefault(recorded.threats[attack], []).append(attack)
    if wanted and wanted not in by_name:
        known = ", ".join(by_name) or "no attacks at all"
        raise ConfigError(f"--threat {wanted}: the evaluation has {known}")
    every = tuple(n for n in seen if recorded.threats[n] != ADAPTIVE) or tuple(seen)
    found = [Threat(name, tuple(attacks)) for name, attacks in by_name.items()]
    found.sort(key=lambda threat: threat.name != wanted)
    if wanted:
        return [*found[:1], Threat(ALL, every), *found[1:]]
    return [Threat(ALL, every), *found]
