"""A listener's certificate that follows its files: no restart, and no connection is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from proxy.errors import ConfigError
from proxy.identity.certificate import Certificate, read_server
from proxy.identity.settings import ServerTls

log = logging.getLogger(__name__)

_POLL_S = 1.0
_Fingerprint = tuple[tuple[int, int, int] | None, ...]


class Rotation:
    """Reads a listener's certificate, and again whenever a file changes.

    Args:
        section: what the settings are called in the configuration.
        settings: which files.
        apply: given every certificate but the first.
        on_expiry: told when the certificate in use ends, Unix time.
        on_failure: told that changed files were refused.

    Raises:
        ConfigError: they cannot be used.
    """

    def __init__(
        self,
        section: str,
        settings: ServerTls,
        *,
        apply: Callable[[Certificate], None],
        on_expiry: Callable[[str, float], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._section = section
        self._settings = settings
        self._apply = apply
        self._on_expiry = on_expiry
        self._on_failure = on_failure
        files = (settings.cert_file, settings.key_file, settings.client_ca_file)
        self._files = [file for file in files if file is not None]
        self._tried = self._seen = self._fingerprint()
        self.certificate = read_server(section, settings)
        """The one in use."""
        self._tell()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            self.look()

    def look(self) -> None:
        """Look once; read the files when they changed and have been quiet since the last look."""
        before, self._seen = self._seen, self._fingerprint()
        if self._seen == before != self._tried:
            self.reload()

    def reload(self) -> bool:
        """Read the files now. False: they were refused, and what is in use stays."""
        self._tried = self._seen = self._fingerprint()
        try:
            fresh = read_server(self._section, self._settings)
            self._apply(fresh)
        except ConfigError as error:
            log.error("the old certificate stays in use: %s", error)
            self._on_failure()
            return False
        self.certificate = fresh
        log.info("%s: the new certificate is in use", self._section)
        self._tell()
        return True

    def _tell(self) -> None:
        ends_s = self.certificate.ends_s
        if ends_s is None:
            return
        self._on_expiry(self._section, ends_s)
        if ends_s <= time.time():
            log.error("%s.cert_file has expired: clients will refuse it", self._section)

    def _fingerprint(self) -> _Fingerprint:
        return tuple(map(_stat, self._files))


async def follow(files: Sequence[Path], changed: Callable[[], None]) -> None:
    """Call back whenever a file has changed and been quiet for a look, until cancelled."""
    known = seen = tuple(map(_stat, files))
    while True:
        await asyncio.sleep(_POLL_S)
        before, seen = seen, tuple(map(_stat, files))
        if seen == before != known:
            known = seen
            changed()


class FrontTls:
    """The front's TLS: gRPC asks for the certificate at every handshake.

    Args: see `Rotation`.
    """

    def __init__(
        self,
        settings: ServerTls,
        on_expiry: Callable[[str, float], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._pending: grpc.ServerCertificateConfiguration | None = None
        self.rotation = Rotation(
            "tls", settings, apply=self._apply, on_expiry=on_expiry, on_failure=on_failure
        )
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self.rotation.certificate),
            self._next,
            require_client_authentication=settings.client_ca_file is not None,
        )
        """For `add_secure_port`, once."""

    def _apply(self, fresh: Certificate) -> None:
        self._pending = _configuration(fresh)

    def _next(self) -> grpc.ServerCertificateConfiguration | None:
        """What changed since the last handshake; called by gRPC, on a thread of its own."""
        pending, self._pending = self._pending, None
        return pending


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], root_certificates=certificate.authorities
    )


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
