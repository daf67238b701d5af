"""The second policy of a model, from a configuration file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import configfile
from proxy.config import Model, QueryAttacks, Shadow
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def load(name: str, model: Model, shadow: Shadow) -> Model:
    """The second policy of a model; a shadow that its file may have itself is not looked at.

    Raises:
        ConfigError: the file cannot be used, or its policy cannot be compared with the first.
    """
    where = f"models.{name}.shadow"
    try:
        second = configfile.load(shadow.policy).models.get(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if second is None:
        raise ConfigError(f"{where}: {_file(shadow.policy)} has no entry models.{name}")
    if not second.detectors:
        raise ConfigError(f"{where}: models.{name} of {_file(shadow.policy)} has no detectors")
    if second.remembers and not model.remembers:
        raise ConfigError(
            f"{where}: the detector `history` cannot be tried in a shadow, since queries are "
            "remembered once, for the policy in force: leave it out, or add it to that policy too"
        )
    if not _alone(second).detectors:
        raise ConfigError(f"{where}: a shadow needs another detector than `history`")
    return second


def lookable(model: Model) -> Model:
    """What of a policy can look at single requests without acting on them: no history."""
    changes = {"mode": "observe", "query_attacks": QueryAttacks(), "purifiers": ()}
    return _alone(model).model_copy(update={**changes, "aggregate": None, "shadow": None})


def _alone(model: Model) -> Model:
    kept = tuple(part for part in model.detectors if part.name != "history")
    return model.model_copy(update={"detectors": kept})


def _file(path: Path) -> str:
    return repr(path.name)
