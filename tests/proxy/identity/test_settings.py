"""What the sections on certificates take."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config import Config
from proxy.identity.settings import UpstreamTls


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/8", "10.0.0.1", "::1", "fe80::/10", "spiffe://mesh/a", "gateway.example"]
)
def test_addresses_and_names_can_be_trusted(entry: str) -> None:
    config = Config.model_validate({"principal_header": "x-user", "trusted_proxies": [entry]})
    assert config.trusted_proxies == (entry,)


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "10.0.0.0/99", "300.1.1.1", "x" * 3000])
def test_what_is_neither_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Config.model_validate({"principal_header": "x-user", "trusted_proxies": [entry]})


def test_trust_wants_something_to_believe() -> None:
    with pytest.raises(ValidationError, match="goes with principal_header"):
        Config.model_validate({"trusted_proxies": ["10.0.0.0/8"]})


def test_a_certificate_wants_its_key() -> None:
    with pytest.raises(ValidationError, match="go together"):
        UpstreamTls.model_validate({"cert_file": "a.pem"})
    assert UpstreamTls.model_validate({}) == UpstreamTls()
