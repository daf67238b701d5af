"""Who may read and who may change: one rule for the control port, the admin port and the console.

A token in a file is asked for wherever it is configured. Without one nothing can be changed, and
only a listener on loopback can be read.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from proxy.errors import ConfigError

LEAST = 16
"""Characters of a token below which it could be guessed."""
MOST = 4096
"""Bytes of a token file that are read."""

_SCHEME = "bearer "
_REPORT_S = 60.0
"""Wrong tokens are logged this often at most: whoever tries many must not fill the log."""

log = logging.getLogger(__name__)


class Refusal(str):
    """Why access is refused: a text for the caller, which says nothing of the token."""

    __slots__ = ()

    code: ClassVar[str] = "PERMISSION_DENIED"
    """Name of the gRPC status."""
    http: ClassVar[int] = 403


class _Unknown(Refusal):
    __slots__ = ()

    code = "UNAUTHENTICATED"
    http = 401


_NO_TOKEN_TO_CHANGE = Refusal(
    "nothing can be changed without a token: set control.token_file in the configuration and "
    "restart"
)
_NO_TOKEN_TO_READ = Refusal(
    "this listener is not on loopback and no token is configured: set control.token_file in the "
    "configuration and restart"
)
_MISSING = _Unknown("a token is needed: authorization: Bearer TOKEN")
_WRONG = _Unknown("the token is wrong")
_UNREADABLE = _Unknown("the token file cannot be used: the log says why")

_Fingerprint = tuple[int, int, int]


class Token:
    """The secret in a file, read again when the file changes (rotation).

    Args:
        path: the file; white space around the secret is not part of it.

    Raises:
        ConfigError: the file cannot be read, or holds too little.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _fingerprint(path)
        self._secret: bytes | None = self._read()

    def matches(self, given: str) -> bool | None:
        """Whether this is it, compared in constant time; None when the file cannot be used."""
        self._follow()
        if self._secret is None:
            return None
        return hmac.compare_digest(given.encode(errors="replace"), self._secret)

    def _follow(self) -> None:
        """Read the file again if it changed; unusable, nobody gets in until it is mended."""
        try:
            now = _fingerprint(self._path)
            if now == self._seen:
                return
            self._seen = now
            self._secret = self._read()
            log.info("control.token_file has changed: the new token is in force")
        except ConfigError as error:
            if self._secret is not None:
                log.error("nobody gets in until this is mended: %s", error)
            self._seen, self._secret = (0, 0, 0), None

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                secret = stream.read(MOST + 1).strip()
        except OSError as error:
            raise ConfigError(f"control.token_file: {error}") from error
        if len(secret) > MOST:
            raise ConfigError(f"control.token_file: {self._path} has more than {MOST} bytes")
        if len(secret) < LEAST:
            raise ConfigError(
                f"control.token_file: {self._path} has {len(secret)} characters; at least {LEAST} "
                "are needed, e.g. from `openssl rand -hex 32`"
            )
        if not all(0x21 <= byte <= 0x7E for byte in secret):
            raise ConfigError(
                f"control.token_file: {self._path} holds more than printable ASCII; one word is "
                "needed, e.g. from `openssl rand -hex 32`"
            )
        if mode & stat.S_IROTH:
            log.warning("%s can be read by every user of this machine: chmod o-r", self._path)
        return secret


class Access:
    """The rule of one listener.

    Args:
        token: what callers must show; None: none is configured.
        loopback: only this machine reaches the listener.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        token: Token | None = None,
        *,
        loopback: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self.loopback = loopback
        self._clock = clock
        self._reported_s = -_REPORT_S
        self._unreported = 0

    @property
    def wants_token(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    def allows(self, authorization: str | None, write: bool) -> Refusal | None:
        """Return why the caller is refused, or None.

        Args:
            authorization: the header or metadata of that name.
            write: whether something is to be changed.
        """
        if self._token is None:
            if write:
                return _NO_TOKEN_TO_CHANGE
            return None if self.loopback else _NO_TOKEN_TO_READ
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            return _MISSING
        match self._token.matches(authorization[len(_SCHEME) :].strip()):
            case True:
                return None
            case False:
                self._report()
                return _WRONG
        return _UNREADABLE

    def _report(self) -> None:
        self._unreported += 1
        if self._clock() - self._reported_s >= _REPORT_S:
            log.warning("refused a wrong token (%d since the last such line)", self._unreported)
            self._reported_s, self._unreported = self._clock(), 0


def is_own_name(host: str) -> bool:
    """Whether a request's Host is an address or localhost.

    A web page elsewhere can give its own name our address (DNS rebinding) and read what is open to
    everybody on this machine: where no token is asked for, no other name is answered to.
    """
    name, _, port = host.rpartition(":")
    name = (name if port.isdecimal() else host).strip("[]")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True


def _fingerprint(path: Path) -> _Fingerprint:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"control.token_file: {error}") from error
    return found.st_mtime_ns, found.st_ino, found.st_size
