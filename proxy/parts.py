"""A model's detectors and purifiers, built from its configuration."""

from __future__ import annotations

from typing import Any

import detectors
import purifiers
from detectors import Detector
from detectors.purified_view import PurifiedView
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.kinds import check_detectors, check_purifiers


def build_detectors(model: Model) -> tuple[Detector, ...]:
    """The configured detectors, unfitted (raises ConfigError)."""
    try:
        parts = tuple(
            detectors.build(name, params) for name, params in detector_params(model).items()
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_detectors(model.kind, parts)
    return parts


def detector_params(model: Model) -> dict[str, dict[str, Any]]:
    """The parameters each detector is built with, by name, in configured order.

    They are those configured, but that a purified view without purifiers gets the model's: what is
    compared is then what would be served.
    """
    params = {part.name: dict(part.params) for part in model.detectors}
    view = params.get(PurifiedView.name)
    if view is not None and "purifiers" not in view:
        view["purifiers"] = [part.model_dump() for part in model.purifiers]
    return params


def build_purifiers(model: Model) -> tuple[purifiers.Purifier, ...]:
    """The configured purifiers (raises ConfigError)."""
    try:
        parts = tuple(purifiers.build(part.name, part.params) for part in model.purifiers)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_purifiers(model.kind, parts)
    if model.aggregate is not None and not any(part.is_random for part in parts):
        names = ", ".join(part.name for part in parts)
        random = [name for name, part in purifiers.PURIFIERS.items() if part.is_random]
        raise ConfigError(
            f"aggregate: {names} would make {model.aggregate.copies} equal copies; add a random "
            f"purifier ({', '.join(random)}), or remove aggregate"
        )
    return parts
