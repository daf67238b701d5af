"""Certificates of authorities that exist for one test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme


@dataclass(frozen=True)
class Paper:
    """A certificate in files."""

    cert_file: Path
    key_file: Path


class Authority:
    """Signs certificates.

    Args:
        folder: where everything is written.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self,
        name: str,
        *names: str,
        common_name: str | None = None,
        days: float = 1,
        to: Paper | None = None,
    ) -> Paper:
        """A certificate for these names; negative days: it has expired."""
        until = datetime.now(UTC) + timedelta(days=days)
        since = datetime.now(UTC) - timedelta(days=2)
        made = self._ca.issue_cert(
            *names, common_name=common_name, not_after=until, not_before=since
        )
        paper = to or Paper(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        paper.key_file.unlink(missing_ok=True)
        made.private_key_pem.write_to_path(paper.key_file)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        paper.cert_file.write_bytes(chain)
        paper.key_file.chmod(0o600)
        return paper

    def client(self, paper: Paper | None = None) -> grpc.ChannelCredentials:
        """What a client shows that trusts this authority."""
        return grpc.ssl_channel_credentials(
            self.file.read_bytes(),
            None if paper is None else paper.key_file.read_bytes(),
            None if paper is None else paper.cert_file.read_bytes(),
        )
