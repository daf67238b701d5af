"""Channels to the model server, with TLS where the configuration asks for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import grpc

from proxy.errors import ConfigError
from proxy.identity.certificates import Files, channel_credentials
from proxy.identity.settings import UpstreamTls

log = logging.getLogger(__name__)

Options = Sequence[tuple[str, int | str]]


class Towards:
    """Makes channels to one address.

    Args:
        address: host:port.
        tls: None: without.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """

    def __init__(self, address: str, tls: UpstreamTls | None) -> None:
        self._address = address
        self._tls = tls
        self._credentials = None if tls is None else channel_credentials(_files(tls))

    def channel(self, options: Options) -> grpc.aio.Channel:
        """A new channel, with the certificates as they are now; those before where they fail."""
        if self._tls is None or self._credentials is None:
            return grpc.aio.insecure_channel(self._address, options=options)
        try:
            self._credentials = channel_credentials(_files(self._tls))
        except ConfigError as error:
            log.error("the certificates in force stay: %s", error)
        name = self._tls.server_name
        named = () if name is None else (("grpc.ssl_target_name_override", name),)
        return grpc.aio.secure_channel(self._address, self._credentials, options=(*options, *named))


def _files(tls: UpstreamTls) -> Files:
    return Files("upstream_tls", tls.cert_file, tls.key_file, tls.ca_file)
