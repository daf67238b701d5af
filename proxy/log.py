"""The log: where it goes, and what gRPC may not fill it with."""

from __future__ import annotations

import logging
import os
import sys

from proxy.errors import ConfigError

_GONE = "ExecuteBatchError raised in core"
"""How gRPC tells, with a traceback, that a client has left before it took its answer."""


def set_up(default: str) -> None:
    """Log to standard error, at the level of BREAKWATER_LOG if that is set.

    Raises:
        ConfigError: there is no such level.
    """
    level = os.environ.get("BREAKWATER_LOG", default).upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"BREAKWATER_LOG={level}: must be DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_worth_telling)


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's is not one that any client can cause as often as it likes."""
    return not str(record.msg).startswith(_GONE)
