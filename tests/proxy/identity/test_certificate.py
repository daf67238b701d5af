"""Certificates from files: whole and fitting, or an error that says what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.identity.certificate import expiry, read_authorities, read_server
from proxy.identity.settings import ServerTls
from tests.proxy.identity.certified import Authority, Paper


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def paper(authority: Authority) -> Paper:
    return authority.issue("server", "localhost", "127.0.0.1")


def settings(cert_file: Path, key_file: Path, ca: Path | None = None) -> ServerTls:
    return ServerTls(cert_file=cert_file, key_file=key_file, client_ca_file=ca)


def test_what_fits_is_read_with_its_end(authority: Authority, paper: Paper) -> None:
    found = read_server("tls", settings(paper.cert_file, paper.key_file, authority.file))
    assert found.chain == paper.cert_file.read_bytes()
    assert found.key == paper.key_file.read_bytes()
    assert found.authorities == authority.file.read_bytes()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert found.ends_s == pytest.approx(tomorrow.timestamp(), abs=120)


def test_the_end_is_read_before_and_after_2050(authority: Authority) -> None:
    far = authority.issue("far", "localhost", days=365 * 40)
    ends_s = expiry(far.cert_file.read_bytes())
    assert ends_s is not None
    assert datetime.fromtimestamp(ends_s, UTC).year > 2060
    assert (expiry(authority.file.read_bytes()) or 0) > 0


def test_no_bytes_make_the_end_an_error(paper: Paper) -> None:
    whole = paper.cert_file.read_bytes()
    for content in (b"", b"\xff", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"):
        assert expiry(content) is None
    for cut in range(0, len(whole) - 60, 7):
        expiry(whole[:cut] + b"\n-----END CERTIFICATE-----\n")


def test_files_that_cannot_be_used_are_said(
    authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    other = authority.issue("other", "localhost")
    with pytest.raises(ConfigError, match=r"tls\.cert_file: .*missing: No such file"):
        read_server("tls", settings(tmp_path / "missing", paper.key_file))
    for wrong in (settings(paper.cert_file, other.key_file), settings(other.key_file, tmp_path)):
        with pytest.raises(ConfigError, match=r"tls\."):
            read_server("tls", wrong)
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        read_server("tls", settings(paper.key_file, paper.key_file))
    wrong_ca = tmp_path / "empty.pem"
    for content in (b"", b"\xff", b"nothing of the kind"):
        wrong_ca.write_bytes(content)
        with pytest.raises(ConfigError, match="holds no certificates"):
            read_authorities("tls", "client_ca_file", wrong_ca)


def test_half_a_file_is_no_certificate(paper: Paper) -> None:
    whole = paper.cert_file.read_bytes()
    paper.cert_file.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        read_server("tls", settings(paper.cert_file, paper.key_file))


def test_a_key_with_a_password_is_refused_without_asking_for_it(
    paper: Paper, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(paper.key_file.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="without a password"):
        read_server("tls", settings(paper.cert_file, locked))
