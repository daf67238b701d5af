"""Where a running proxy answers questions about policies: beside the traffic, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.defences import Defences
from proxy.errors import ConfigError
from proxy.explorer.explorer import Explorer
from proxy.records.kept import Kept
from proxy.records.records import Records
from proxy.records.snapshot import empty

MOST_WAITING = 16
"""Most questions at a time, the one being answered included."""
_LATEST = 1000
"""Records of late that tell how long purifying takes."""


class Desk:
    """The explorer of the defences in force; another configuration needs another one.

    Args:
        defences: those in force.
    """

    def __init__(self, defences: Defences) -> None:
        self.defences = defences
        self._explorer = Explorer(defences.calibrated(), defences.digest)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explore(
        self, model: str, candidate: Mapping[str, Any] | None, records: Records
    ) -> Mapping[str, Any]:
        """See `Explorer.explore`, for what is recorded now.

        Raises:
            ConfigError: as there, or too many ask.
        """
        if self._waiting >= MOST_WAITING:
            raise ConfigError("too many questions at a time; ask again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                kept = records.copy(model)
                latest = records.recent(model, _LATEST)
                purify_ms = [r.stage_ms["purify"] for r in latest if "purify" in r.stage_ms]
                return await asyncio.to_thread(self._explored, model, candidate, kept, purify_ms)
        finally:
            self._waiting -= 1

    def _explored(
        self,
        model: str,
        candidate: Mapping[str, Any] | None,
        kept: Kept | None,
        purify_ms: Sequence[float],
    ) -> Mapping[str, Any]:
        """For a thread: 20,000 samples take some 0.1 s to be made columns of."""
        snapshot = empty(model) if kept is None else kept.snapshot()
        return self._explorer.explore(model, candidate, snapshot.to_json(), purify_ms)
