"""TLS on the admin port, and when that port may be open to the network."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from proxy.errors import ConfigError
from proxy.identity.certificate import Certificate
from proxy.identity.rotation import Rotation
from proxy.identity.settings import ServerTls


class AdminTls:
    """The context for the listener, which gets new certificates while it is in use.

    An authority that is withdrawn from `client_ca_file` is still accepted until a restart: a
    context only learns.

    Args: see `Rotation`.
    """

    def __init__(
        self,
        settings: ServerTls,
        on_expiry: Callable[[str, float], None] = lambda _, __: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """For the listener."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.rotation = Rotation(
            "admin_tls", settings, apply=self._apply, on_expiry=on_expiry, on_failure=on_failure
        )
        if settings.client_ca_file is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._apply(self.rotation.certificate)

    def _apply(self, fresh: Certificate) -> None:
        files = self._settings.cert_file, self._settings.key_file
        try:
            self.context.load_cert_chain(*files, password=lambda: b"")
            if fresh.authorities is not None:
                self.context.load_verify_locations(
                    cadata=fresh.authorities.decode("ascii", "ignore")
                )
        except (OSError, ValueError) as error:  # changed since they were read
            raise ConfigError(f"admin_tls: {error}") from error


def refuse_open_admin(admin: str, tls: ServerTls | None, *, loopback: bool, token: bool) -> None:
    """Raise ConfigError where everybody on the network could stop the proxy.

    Args:
        admin: the admin port's address.
        tls: its TLS.
        loopback: only this machine reaches it.
        token: it asks for one.
    """
    if loopback or token or (tls is not None and tls.client_ca_file is not None):
        return
    raise ConfigError(
        f"admin: {admin} is not on loopback: set control.token_file or admin_tls.client_ca_file, "
        "or whoever reaches it could stop this proxy and lift quarantines; Prometheus and probes "
        "need only `metrics`"
    )
