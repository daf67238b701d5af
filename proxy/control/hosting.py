"""The control API of one process: built from its configuration, started and stopped with it."""

from __future__ import annotations

import logging

from proxy.config import Config, is_loopback
from proxy.control.access import Access, Token
from proxy.control.control import Control
from proxy.control.listener import Listener
from proxy.control.policy_file import PolicyFile
from proxy.control.target import Target
from proxy.identity.admin_tls import refuse_open_admin

log = logging.getLogger(__name__)


class ControlHost:
    """A `Control` of a target; on a port of its own where the configuration has `control`.

    Args:
        target: what is shown and steered.
        config: for addresses, token and certificates.
        file: the configuration file; None: started without one.

    Raises:
        ConfigError: the token or a certificate cannot be used, or anybody could stop the proxy.
    """

    def __init__(self, target: Target, config: Config, file: PolicyFile | None) -> None:
        settings = config.control
        token = None
        if settings is not None and settings.token_file is not None:
            token = Token(settings.token_file)
        self.address = ""
        """Where the control port is, known after `start`; empty without one."""
        loopback, tls = is_loopback(config.admin), config.admin_tls
        refuse_open_admin(config.admin, tls, loopback=loopback, token=token is not None)
        certified = tls is not None and tls.client_ca_file is not None
        self.access = Access(token, loopback=loopback or certified)
        """The rule of the admin port."""
        if token is not None and tls is None and not loopback:
            log.warning("admin: the token crosses the network as it is: set admin_tls")
        self.control = Control(target, file, self.access)
        self._listener: Listener | None = None
        if settings is not None:
            access = Access(token, loopback=is_loopback(settings.listen))
            self._listener = Listener(self.control, settings, access)
            if token is not None and settings.cert_file is None and not access.loopback:
                log.warning(
                    "control: the token crosses the network as it is: set cert_file and key_file"
                )

    async def start(self) -> str:
        """Listen and return the control port's address; empty without one.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        if self._listener is not None:
            self.address = await self._listener.start()
            log.info("control on %s", self.address)
        return self.address

    async def stop(self) -> None:
        """Stop listening, once a change that is being put in force has been."""
        if self._listener is not None:
            await self._listener.stop()
        await self.control.close()
