"""A policy somebody thinks about: the fields in which it differs from the one in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.config import Cascade, Model
from proxy.errors import ConfigError

_Name = Annotated[str, Field(max_length=200)]


class Candidate(BaseModel):
    """What is to be different; fields that are not set are as in the policy in force."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    fpr: float | None = Field(default=None, gt=0, lt=1)
    """Wanted false-positive rate."""
    detectors: tuple[_Name, ...] | None = Field(default=None, max_length=100)
    """Names of those that remain; each must be configured, since only those are calibrated."""
    cascade: Cascade | None = None
    """When to stop early; null: never."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Candidate:
        """Check what somebody asked for.

        Raises:
            ConfigError: an unknown field, or a value out of range; the text says which.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:200] or "the candidate"
            raise ConfigError(f"candidate: {where!r}: {first['msg']}") from error

    def applied(self, model: Model) -> Model:
        """The model's configuration with this candidate's fields.

        Raises:
            ConfigError: a detector is not configured, or none remains.
        """
        changes: dict[str, Any] = {}
        if self.fpr is not None:
            changes["fpr"] = self.fpr
        if "cascade" in self.model_fields_set:
            changes["cascade"] = self.cascade
        if self.detectors is not None:
            known = [part.name for part in model.detectors]
            unknown = sorted(set(self.detectors) - set(known))
            if unknown or not self.detectors:
                raise ConfigError(
                    f"candidate: detectors must be some of {known}, not {list(self.detectors)}; "
                    "others must be configured and calibrated first"
                )
            kept = set(self.detectors)
            changes["detectors"] = tuple(part for part in model.detectors if part.name in kept)
        return model.model_copy(update=changes)
