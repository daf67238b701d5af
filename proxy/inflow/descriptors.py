"""File descriptors: one for each connection, and the rest of the process needs some, too."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

SPARE = 256
"""For files, sockets to neighbours, and pipes."""


def connections_within(wanted: int) -> int:
    """How many connections there can be, of those wanted; raises the soft limit for them.

    A process without a descriptor left can neither accept nor read its own files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(1, soft - SPARE)
    log.warning(
        "at most %d connections instead of %d (inflow.max_connections): the limit on open files "
        "is %d; raise it (ulimit -n, LimitNOFILE)",
        *(most, wanted, soft),
    )
    return most
