"""What is known of the data that numbers rest on: stored with calibrations and reports.

Plain data; `tuning.lineage` finds it out.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

NOT_STATED = "not stated"
EXAMPLES = 10
"""Positions a finding names, at most."""
LISTED = 100
"""Classes whose counts are kept, at most; the largest."""
LONGEST = 500
"""Characters of what a person says about the data, at most."""


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Finding(_Stored):
    """How many samples something holds of, and how that was judged."""

    count: int = Field(ge=0)
    """Samples, among those looked at."""
    looked_at: int = Field(ge=0)
    """Samples looked at: all, or a random part where that would take too long."""
    how: str
    """How it was judged, in words."""
    examples: tuple[int, ...] = Field(default=(), max_length=EXAMPLES)
    """Positions of some in the file, from 0; the clearest first where one is clearer."""

    @property
    def share(self) -> float:
        """Of those looked at; 0 where there are none."""
        return self.count / self.looked_at if self.looked_at else 0.0


class Classes(_Stored):
    """How the labels are spread."""

    count: int = Field(ge=1)
    """Classes that occur."""
    smallest: int = Field(ge=1)
    """Samples of the rarest class that occurs."""
    largest: int = Field(ge=1)
    """Samples of the most frequent one."""
    effective: float = Field(ge=1)
    """exp of the entropy: `count` where all are as frequent, 1 where one has nearly everything."""
    samples: dict[str, int] = Field(max_length=LISTED)
    """Class -> samples; of many classes the largest."""


class Lineage(_Stored):
    """A data file: where it is from, what is in it, what is odd about it."""

    sha256: str
    """Digest of the file; empty where there is none."""
    source: str = Field(max_length=LONGEST)
    """Where the data is from, as a person said, or the file's name."""
    licence: str = Field(default=NOT_STATED, max_length=LONGEST)
    """Under which terms it may be used, as a person said."""
    kind: str
    """image, waveform or vector."""
    samples: int = Field(ge=1)
    shape: tuple[int, ...]
    """Of one sample in the file."""
    dtype: str
    """Of the values in the file."""
    classes: Classes | None = None
    """None where the file has no labels."""
    duplicates: Finding
    """Samples equal to an earlier one."""
    near_duplicates: Finding
    """Samples, among those that differ, that are nearly like another."""
    effective: int = Field(ge=1)
    """About so many samples are left when copies and near copies count as one."""
    constant: Finding
    """Samples whose values are all the same."""
    outliers: Finding
    """Samples unlike the others in simple statistics."""
    date: str
    """When it was looked at, RFC 3339 in UTC."""
    versions: dict[str, str]
    """Of what looked at it: breakwater, torch, numpy."""
