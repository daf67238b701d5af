"""What the control API shows and steers, as it sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from proxy.admin import Status
from proxy.control.endpoints import PolicyTarget


class Target(PolicyTarget, Protocol):
    """One proxy, or a supervisor with its workers."""

    async def status(self) -> Status:
        """Return how it is doing now."""

    async def drain(self) -> None:
        """Start the drain and return; again is harmless."""

    async def reload(self) -> bool:
        """Read the configuration again. False: refused, the old one stays in force."""

    async def config(self) -> Mapping[str, Any]:
        """Return the configuration in force, ready for JSON."""

    async def history(self) -> Mapping[str, Any]:
        """Return what is known of query attacks, ready for JSON."""

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift quarantines, of a principal, at a model; None: of all. Return how many."""

    async def records(
        self, model: str | None, limit: int, *, differing: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        """Return notable samples, or those a shadow policy judges otherwise; newest first."""

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[Mapping[str, Any]]:
        """Yield samples as they are recorded, notable ones or all."""

    async def scores(self, model: str) -> Mapping[str, Any]:
        """Return the recorded scores of a model, by column."""

    async def label(self, id: str, label: str) -> bool:
        """Note what a sample was. False: it is not known."""

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what a policy would do with the recorded and the evaluated samples."""
