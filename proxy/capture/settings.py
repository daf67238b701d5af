"""The section `capture` of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Inputs = Literal["none", "thumbnail", "full"]


class Capture(BaseModel):
    """Suspicious requests kept in a folder, one file each, oldest out first; never headers."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    folder: Path
    """Where, relative to the configuration file; made if it is not there. Nobody else may have
    access to it (mode 0700). All workers share it, and two servers must not."""
    inputs: Inputs = "full"
    """What is kept of the input. full: the request as it was inspected, for `breakwater replay`.
    thumbnail: a picture of at most 64 x 64 pixels of one suspicious sample. none: facts only."""
    max_mb: int = Field(default=1024, gt=0, le=2**30)
    """Most megabytes in the folder, of at most 10,000 files."""
    keep_hours: float = Field(default=168.0, gt=0)
    """How long a file is kept; also while there are no requests."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Most of the folder that one principal's requests may fill: past it, its own oldest go."""
    key_file: Path | None = None
    """File with the secret, at least 16 bytes, that principals' names are hashed with. Default: one
    that goes with the process, so that nobody can tell later who it was."""
