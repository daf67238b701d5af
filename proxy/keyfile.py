"""Secrets from files."""

from __future__ import annotations

from pathlib import Path

from proxy.errors import ConfigError

LEAST = 16
"""Bytes of a secret below which it could be guessed."""


def read_key(where: str, path: Path) -> bytes:
    """The secret in a file, without white space around it.

    Args:
        where: the setting's place in the configuration, for errors.

    Raises:
        ConfigError: the file cannot be read, or holds too little.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{where}.key_file: {error}") from error
    if len(key) < LEAST:
        raise ConfigError(
            f"{where}.key_file: {path} has {len(key)} bytes; at least {LEAST} are needed, e.g. "
            "from `openssl rand -hex 32`"
        )
    return key
