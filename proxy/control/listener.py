"""The control port: a gRPC server of its own with TLS, health and reflection."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from proxy.config import Control as Settings
from proxy.control.access import Access
from proxy.control.control import Control
from proxy.control.service import DESCRIPTOR, ControlService
from proxy.errors import ConfigError
from proxy.health import HealthServicer
from proxy.unpacking import channel_options

MAX_ASK_BYTES = 2 * 1024 * 1024
"""A policy of the largest size, and what its message adds."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A thousand records with thumbnails, or the scores kept of one model."""
MAX_CALLS = 128
"""At a time, streams included."""
GRACE_S = 0.2


class Listener:
    """Serves a `Control` on the address of its settings.

    Args:
        control: does what is asked.
        settings: address, certificates.
        access: the rule of this port.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """

    def __init__(self, control: Control, settings: Settings, access: Access) -> None:
        self._settings = settings
        self._credentials = _credentials(settings)
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_ASK_BYTES),
                ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
                ("grpc.so_reuseport", 0),  # or a second proxy would get half of the calls
                *channel_options(accepts=False),  # unpacked before anybody is asked for a token
            ),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        certified = settings.client_ca_file is not None
        service = ControlService(control, access, certified=certified)
        self._server.add_generic_rpc_handlers((service,))
        self._health = HealthServicer()
        self._health.publish({"": True, DESCRIPTOR.full_name: True})
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (DESCRIPTOR.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Listen and return the bound address.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        address = self._settings.listen
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address} (control): {error}") from error
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Stop listening; calls in progress get a moment, streams end."""
        self._health.close()
        await self._server.stop(grace=GRACE_S)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.cert_file is None or settings.key_file is None:
        return None
    certificate = _read("cert_file", settings.cert_file)
    key = _read("key_file", settings.key_file)
    # gRPC takes anything and fails at the first handshake, without a reason.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except ssl.SSLError as error:
        raise ConfigError(
            f"control.cert_file, control.key_file: not a certificate and its key: {error.reason}"
        ) from error
    if settings.client_ca_file is None:
        return grpc.ssl_server_credentials([(key, certificate)])
    authorities = _read("client_ca_file", settings.client_ca_file)
    try:
        context.load_verify_locations(settings.client_ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"control.client_ca_file: no certificates: {error.reason}") from error
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authorities, require_client_auth=True
    )


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"control.{field}: {error}") from error
