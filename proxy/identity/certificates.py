"""Certificates and keys from files, checked before gRPC gets them, and read again when they change.

gRPC takes any bytes and fails at the first handshake, without a reason.
"""

from __future__ import annotations

import logging
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from proxy.errors import ConfigError

log = logging.getLogger(__name__)

_Marks = tuple[tuple[int, int, int], ...]


class Files(NamedTuple):
    """Where one end's certificates are; those that are None are not wanted."""

    section: str
    """Of the configuration, for messages."""
    cert_file: Path | None
    key_file: Path | None
    ca_file: Path | None
    """What the other end's certificate is checked against."""


class Material(NamedTuple):
    """What the files held, PEM."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None


def read(files: Files) -> Material:
    """Read certificates and key, and see that they belong together.

    Raises:
        ConfigError: a file cannot be read, holds something else, or the key is another one's.
    """
    certificate, key, authorities = (
        None if path is None else _bytes(files.section, path)
        for path in (files.cert_file, files.key_file, files.ca_file)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if files.cert_file is not None:
        try:
            context.load_cert_chain(files.cert_file, files.key_file, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(
                f"{files.section}.cert_file, {files.section}.key_file: not a certificate and its "
                f"key: {_reason(error)}"
            ) from error
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{files.section}: {files.ca_file} holds no certificates: {_reason(error)}"
            ) from error
    return Material(certificate, key, authorities)


def server_credentials(
    files: Files, on_reload: Callable[[bool], None] = lambda _: None
) -> grpc.ServerCredentials:
    """What a gRPC server shows; files that change are in force for the next connection.

    With `ca_file` clients must show a certificate.

    Args:
        files: certificate and key are needed.
        on_reload: told, by a thread of gRPC's, whether changed files could be used.

    Raises:
        ConfigError: the files cannot be used now.
    """
    source = _Source(files, on_reload)
    first = _configuration(read(files))
    if files.key_file is not None and files.key_file.stat().st_mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this machine: chmod o-r", files.key_file)
    return grpc.dynamic_ssl_server_credentials(
        first, source.changed, require_client_authentication=files.ca_file is not None
    )


class _Source:
    """Looks at the files before each handshake."""

    def __init__(self, files: Files, on_reload: Callable[[bool], None]) -> None:
        self._files = files
        self._on_reload = on_reload
        self._seen = _marks(files)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What is in force from now on; None: what was."""
        found = _marks(self._files)
        if found == self._seen:
            return None
        self._seen = found  # what cannot be used is said once, not at every handshake
        try:
            changed = _configuration(read(self._files))
        except ConfigError as error:
            log.error("the certificate in force stays: %s", error)
            self._on_reload(False)
            return None
        log.info("%s: the new certificate is in force", self._files.section)
        self._on_reload(True)
        return changed


def channel_credentials(files: Files) -> grpc.ChannelCredentials:
    """What a gRPC client shows and checks, as the files are now.

    Raises:
        ConfigError: the files cannot be used.
    """
    material = read(files)
    return grpc.ssl_channel_credentials(material.authorities, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    pairs = [(material.key, material.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, material.authorities)


def _bytes(section: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{section}: {path}: {error.strerror or error}") from error


def _marks(files: Files) -> _Marks:
    """What tells whether the files have changed; of one that is not there, nothing."""
    return tuple(map(_mark, (files.cert_file, files.key_file, files.ca_file)))


def _mark(path: Path | None) -> tuple[int, int, int]:
    try:
        about = None if path is None else path.stat()
    except OSError:
        about = None
    return (0, 0, 0) if about is None else (about.st_mtime_ns, about.st_ino, about.st_size)


def _no_password() -> str:
    raise ValueError("the key is encrypted: there is nobody here to type its password")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
