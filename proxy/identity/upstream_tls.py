"""TLS to the model server: what it is checked against, what it is shown, and why it failed."""

from __future__ import annotations

import re

import grpc

from proxy.identity.certificate import read_authorities, read_pair
from proxy.identity.settings import UpstreamTls

_REASONS = (
    (r"Hostname Verification|verify peer name|[Pp]eer name .* not in",
     "its certificate is for another name: set upstream_tls.server_name, or `upstream` to that"),
    (r"has expired", "its certificate has expired"),
    (r"not yet valid", "its certificate is not valid yet: compare the clocks"),
    (r"CERTIFICATE_VERIFY_FAILED",
     "its certificate is not signed by upstream_tls.ca_file, or has expired"),
    (r"WRONG_VERSION_NUMBER|PACKET_LENGTH|HTTP_REQUEST", "it does not speak TLS"),
    (r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_EXPIRED",
     "it refuses our certificate: see upstream_tls.cert_file"),
    (r"[Hh]andshake|SSL|TSI_", "the TLS handshake failed"),
)  # fmt: skip


def credentials(settings: UpstreamTls) -> grpc.ChannelCredentials:
    """For a channel to the model server; the files are read now.

    Raises:
        ConfigError: a file cannot be used.
    """
    chain = key = authorities = None
    if settings.ca_file is not None:
        authorities = read_authorities("upstream_tls", "ca_file", settings.ca_file)
    if settings.cert_file is not None and settings.key_file is not None:
        chain, key = read_pair("upstream_tls", settings.cert_file, settings.key_file)
    return grpc.ssl_channel_credentials(authorities, key, chain)


def reason(text: str) -> str:
    """What gRPC's account of a lost connection says of TLS, for the log; empty: nothing."""
    return next((told for pattern, told in _REASONS if re.search(pattern, text)), "")


def problem(text: str) -> str:
    """The same as the end of a sentence that says where."""
    told = reason(text)
    return f": {told}" if told else ""
