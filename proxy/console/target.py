"""What the console shows and steers, as it sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from proxy.admin import Status


class Target(Protocol):
    """One proxy, or a supervisor with its workers."""

    async def status(self) -> Status:
        """Return how it is doing now."""

    async def config(self) -> Mapping[str, Any]:
        """Return the configuration in force, ready for JSON."""

    async def metrics(self) -> tuple[str, bytes]:
        """Return content type and body of one scrape."""

    async def history(self) -> Mapping[str, Any]:
        """Return what is known of query attacks, ready for JSON."""

    async def records(self, model: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the notable samples, newest first."""

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[Mapping[str, Any]]:
        """Yield samples as they are recorded, notable ones or all."""

    async def label(self, id: str, label: str) -> bool:
        """Note what a sample was. False: it is not known."""

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what a policy would do with the recorded and the evaluated samples."""


class Policies(Protocol):
    """Reads and changes the policy in force."""

    async def get_policy(self) -> Mapping[str, Any]:
        """Return text, digest, generation, path, writable, previous."""

    async def change(
        self, model: str, settings: Mapping[str, Any], *, if_digest: str, dry_run: bool
    ) -> Mapping[str, Any]:
        """Change fields of a model; return problems, restart, changes, applied, digest."""

    async def rollback(self, if_digest: str) -> Mapping[str, Any]:
        """Put the previous policy in force again; the same answer."""
