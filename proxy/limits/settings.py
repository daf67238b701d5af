"""The section `limits` of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LimitedGroup = Literal[
    "model-config", "statistics", "model-repository", "shared-memory", "trace", "logging"
]


class Limit(BaseModel):
    """What one principal may do; what is left out is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rpc_allow: tuple[LimitedGroup, ...] | None = None
    """RPC groups, among those of the global `rpc.allow`: this only narrows."""
    models: tuple[str, ...] | None = None
    """Names of models it may ask, with `*` and `?`. Others look like models not served here."""
    requests_per_second: float | None = Field(default=None, gt=0, le=1e6)
    """Of each worker; messages of streams count, health does not."""
    burst: int = Field(default=100, gt=0, le=1_000_000)
    """Requests at once before `requests_per_second` binds."""
    max_in_flight: int | None = Field(default=None, gt=0)
    """Unary requests and open streams at a time in one worker."""
    max_message_bytes: int | None = Field(default=None, gt=0)
    """Largest request, unpacked; the global bound holds as well."""


class Limits(BaseModel):
    """Limits by principal."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    default: Limit = Limit()
    """Of each principal that is not named."""
    principals: dict[str, Limit] = Field(default_factory=dict)
    """By name; each stands alone, nothing is taken over from `default`."""
