"""A target with records of its own, behind a real admin listener."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from proxy.config import Records as Settings
from proxy.records.record import label_of
from proxy.records.records import Records
from proxy.records.watches import told
from tests.proxy.records.flows import KEY, SUBJECT
from tests.proxy.test_admin import FakeTarget


class Telling(FakeTarget):
    """Shows its records, as a server does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.dropped: list[int] = []
        self.kept = Records(Settings(**settings), key=KEY, on_drop=self.dropped.append)
        self.kept.follow([SUBJECT])

    async def records(
        self,
        model: str | None,
        limit: int,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> list[dict[str, Any]]:
        found = self.kept.recent(model, limit, before, differing=differing)
        return [each.to_json() for each in found]

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        return told(self.kept.watch(model, everything=everything))

    async def scores(self, model: str) -> Mapping[str, Any]:
        return self.kept.scores(model).to_json()

    async def label(self, id: str, label: str) -> bool:
        return self.kept.label(id, label_of(label))


async def line(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next record of a stream."""
    while not (text := (await response.content.readline()).strip()):
        assert not response.content.at_eof(), "the stream has ended"
    found: dict[str, Any] = json.loads(text)
    return found
