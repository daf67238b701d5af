"""The sections of the configuration that say who must show which certificate to whom."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_RANGE = re.compile(r"[0-9a-fA-F.:]+(/.*)?")
"""What is meant as addresses: no certificate's name looks like it and has a colon or a digit."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerTls(_Strict):
    """A listener's certificate, and whose certificates it wants to see.

    The files are read again when they change: new connections get the new certificate, those that
    are open stay. A pair that does not fit together is refused, and the old one stays in use.
    """

    cert_file: Path
    """Certificate chain, PEM, relative to the configuration file; the listener's own first."""
    key_file: Path
    """Its private key, PEM, without a password."""
    client_ca_file: Path | None = None
    """Certificates that the callers' are checked against; whoever shows none gets no connection.
    Default: callers need none."""


class UpstreamTls(_Strict):
    """How the model server is known, and what it is shown; `{}` is TLS with the defaults."""

    ca_file: Path | None = None
    """Certificates that the model server's is checked against, PEM, relative to the configuration
    file. Default: the public authorities that come with gRPC."""
    cert_file: Path | None = None
    """Our own certificate chain, PEM, where the model server wants one."""
    key_file: Path | None = None
    """Its private key, PEM, without a password."""
    server_name: str = Field(default="", pattern=r"^[\x21-\x7e]*$")
    """The name in the model server's certificate, where that is not the one in `upstream`."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


def _meant(entry: str) -> str:
    if not entry or len(entry) > 2048:
        raise ValueError("must be an address range such as 10.0.0.0/8, or a certificate's name")
    if any(sign in entry for sign in ".:/") and _RANGE.fullmatch(entry):
        ipaddress.ip_network(entry)  # its own words say what is wrong
    return entry


TrustedProxy = Annotated[str, AfterValidator(_meant)]
"""An address, a range of addresses (CIDR), or a name in a certificate: URI, DNS, or common name."""
