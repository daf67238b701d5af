"""Which metadata crosses the proxy, and in which direction."""

from __future__ import annotations

from proxy.upstream import Metadata

_OF_ONE_HOP = ("user-agent", "te", "content-type")
"""Belongs to one connection; gRPC writes its own for the next."""

_OF_GRPC = "grpc-"
_OURS = "breakwater-"
"""Only this proxy writes these: neither side may pass its own off as ours."""


def to_upstream(metadata: Metadata | None) -> Metadata | None:
    """The client's metadata without what belongs to this hop, or to our own annotations."""
    if not metadata or (len(metadata) == 1 and metadata[0][0] == "user-agent"):
        return None  # most requests
    kept = tuple(
        (key, value)
        for key, value in metadata
        if key not in _OF_ONE_HOP and not key.startswith((_OF_GRPC, _OURS))
    )
    return kept or None


def to_client(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    """Triton's metadata, initial or trailing, without what only we may say."""
    if not metadata:
        return ()
    return tuple((key, value) for key, value in metadata if not key.startswith(_OURS))
