"""Certificates and keys from files: whole and fitting together, or an error that says what is not.

Nothing here needs a library for certificates: OpenSSL judges by way of `ssl`, and the one fact it
does not tell of a leaf, when it ends, is read out of the DER.
"""

from __future__ import annotations

import calendar
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import ConfigError
from proxy.identity.settings import ServerTls

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""UTCTime and GeneralizedTime, RFC 5280 4.1.2.5."""
_MOST_BYTES = 4 * 1024 * 1024
_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain with its key, checked against each other."""

    chain: bytes
    """PEM, the own certificate first."""
    key: bytes
    """PEM."""
    authorities: bytes | None
    """PEM; None: nobody is asked for a certificate."""

    @property
    def ends_s(self) -> float | None:
        """When it expires, Unix time; None where that cannot be read."""
        return expiry(self.chain)


def read_server(section: str, settings: ServerTls) -> Certificate:
    """The certificate of a listener.

    Args:
        section: what the settings are called in the configuration, for the errors.

    Raises:
        ConfigError: a file cannot be read, is something else, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = (settings.cert_file, settings.key_file)
    chain, key = read_pair(section, *files, context=context)
    authorities = None
    if settings.client_ca_file is not None:
        authorities = read_authorities(section, "client_ca_file", settings.client_ca_file)
    return Certificate(chain, key, authorities)


def read_pair(
    section: str, cert_file: Path, key_file: Path, *, context: ssl.SSLContext | None = None
) -> tuple[bytes, bytes]:
    """A certificate chain and its key.

    Raises:
        ConfigError: see `read_server`.
    """
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found = _read(section, "cert_file", cert_file), _read(section, "key_file", key_file)
    try:
        # gRPC takes anything and fails at the first handshake. An encrypted key must not ask.
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise ConfigError(
            f"{section}.cert_file, {section}.key_file: not a certificate and its key, without a "
            f"password: {why}"
        ) from error
    again = _read(section, "cert_file", cert_file), _read(section, "key_file", key_file)
    if again != found:
        raise ConfigError(f"{section}.cert_file, {section}.key_file: changed while being read")
    return found


def read_authorities(section: str, field: str, path: Path) -> bytes:
    """The certificates that others are checked against.

    Raises:
        ConfigError: see `read_server`.
    """
    found = _read(section, field, path)
    try:
        text = found.decode("ascii", "ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise ConfigError(f"{section}.{field}: {path} holds no certificates: {why}") from error
    return found


def expiry(chain: bytes) -> float | None:
    """When the first certificate of a PEM file expires, Unix time; None where it cannot be read."""
    text = chain.decode("ascii", "replace")
    begin = text.find("-----BEGIN CERTIFICATE-----")
    try:
        der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(_END) + len(_END)])
        return _not_after(der)
    except (ValueError, IndexError, OverflowError):
        return None


def _not_after(der: bytes) -> float:
    """`tbsCertificate.validity.notAfter`: RFC 5280 4.1."""
    _, outer, _ = _element(der)
    _, facts, _ = _element(outer)
    tag, _, rest = _element(facts)
    if tag == _VERSION:
        tag, _, rest = _element(rest)
    if tag != _INTEGER:
        raise ValueError("no serial number")
    for _ in range(2):  # the signature's algorithm, the issuer
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, until, _ = _element(rest)
    if tag not in _FORMATS:
        raise ValueError("no time")
    return float(calendar.timegm(time.strptime(until.decode("ascii"), _FORMATS[tag])))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first DER element, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("cut short")
    return data[0], data[start : start + length], data[start + length :]


def _read(section: str, field: str, path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            found = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{section}.{field}: {path}: {error.strerror}") from error
    if len(found) > _MOST_BYTES:
        raise ConfigError(f"{section}.{field}: {path} has more than {_MOST_BYTES:,} bytes")
    return found
