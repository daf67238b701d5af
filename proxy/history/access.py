"""Where the shared history's server is, and what opens a connection to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy.errors import ConfigError

CONNECT_S = 1.0
"""A connection, with TLS and its first answer, takes longer only where it is of no use."""


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a connection.

    A password in a file is read again for every connection, so that it can be changed.
    """

    url: str
    """redis://, rediss:// (TLS) or unix://; user, password and database as redis-py reads them."""
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    """Certificates that sign the server's; the system's where None."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """The client's own certificate, for servers that ask for one."""


def connections(access: Access) -> ConnectionPool:
    """What makes connections; none is made yet.

    Raises:
        ConfigError: the address is none.
    """
    settings: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,  # what waits has its own limit
        "socket_connect_timeout": CONNECT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    if access.username is not None:
        settings["username"] = access.username
    if access.url.startswith("rediss://"):
        settings |= {"ssl_min_version": ssl.TLSVersion.TLSv1_2}
        for name, path in (
            ("ssl_ca_certs", access.ca_file),
            ("ssl_certfile", access.cert_file),
            ("ssl_keyfile", access.key_file),
        ):
            if path is not None:
                settings[name] = str(path)
    try:
        return ConnectionPool.from_url(access.url, **settings)
    except ValueError as error:
        raise ConfigError(f"the shared history's address: {error}") from None


def password(path: Path) -> str:
    """What the file holds, without white space around it.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
