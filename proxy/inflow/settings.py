"""How much clients may have one worker hold, in the configuration file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Inflow(BaseModel):
    """Bounds on what clients make one worker hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_connections: int = Field(default=4096, gt=0)
    """Most connections at a time; one more is closed at once. Each takes a file descriptor."""
    max_bytes_in_flight: int | None = Field(default=None, gt=0)
    """Most bytes of requests in progress, all together; one more is refused at once with
    RESOURCE_EXHAUSTED. Default: four times max_message_bytes, and never less than that once."""
    max_waiting: int = Field(default=4096, gt=0)
    """Most unary calls whose message is still coming. One more ends the one that has waited
    longest: slow clients give way, others do not notice."""
    max_untaken_bytes: int | None = Field(default=None, gt=0)
    """Most bytes of answers that clients have not taken. Past half of it the connection that has
    left most of them for a second is ended, with all calls on it; past the whole, requests are
    refused at once with RESOURCE_EXHAUSTED. Default: twice max_message_bytes, and never less than
    that once. Each byte takes two of memory."""
    max_streams: int | None = Field(default=None, gt=0)
    """Most open streams at a time, which count in max_in_flight too. Default: half of
    max_in_flight, so that streams left silent cannot keep unary requests out."""
    max_memory_mb: int | None = Field(default=None, gt=0)
    """Resident memory, MiB, past which requests are refused while others are in flight, and calls
    that wait for their client are ended. Default: three quarters of what this process may have
    (cgroup, else machine); divide it by the number of workers."""
    keepalive_s: float = Field(default=60.0, gt=0)
    """A connection on which nothing was heard for so long is pinged, and closed where no answer
    comes in 20 s: peers that are gone hold no streams."""
