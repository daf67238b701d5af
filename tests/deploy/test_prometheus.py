"""A real Prometheus scrapes the read-only listener, evaluates the rules, and an alert fires."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest

from loadtests.dashboard_queries import Prometheus
from loadtests.prometheus_server import PrometheusServer, PrometheusUnavailable, binary
from tests.builders import infer_request
from tests.deploy.rules import RULES, rules
from tests.proxy.running import Call, Recorder, ask, recording, until
from tuning.demo.sidecar import Sidecar

LIMIT_S = 60.0
SCRAPE_S = 0.5
_LISTENER = re.compile(r"metrics on http://(\S+)/metrics")


def shortened(folder: Path) -> Path:
    """The rules as they are, but that alerts wait for a second and all is evaluated at once."""
    text = re.sub(r"for: \d+m", "for: 1s", RULES.read_text())
    path = folder / "rules.yaml"
    path.write_text(text.replace("interval: 30s", "interval: 500ms"))
    return path


@dataclass
class Watched:
    """A sidecar with a Prometheus that looks at it, and the model server behind."""

    url: str
    """Of Prometheus."""
    sidecar: Sidecar
    upstream: Recorder
    listener: str
    """Where the sidecar shows its metrics."""

    async def value(self, query: str) -> float | None:
        """The sum of what a query finds now; None where that is nothing."""
        found = await self.series(query)
        return sum(float(each["value"][1]) for each in found) if found else None

    async def series(self, query: str) -> list[dict[str, Any]]:
        """What a query finds now."""
        asking = Prometheus(self.url)
        found = await asyncio.to_thread(lambda: asking.ask("query", query=query))
        series: list[dict[str, Any]] = found["result"]
        return series

    async def firing(self) -> dict[str, dict[str, Any]]:
        """One alert of each rule that fires, by name."""
        return {
            rule["name"]: alert
            for rule in await self.evaluated()
            for alert in rule.get("alerts", ())
            if alert["state"] == "firing"
        }

    async def evaluated(self) -> list[dict[str, Any]]:
        """All rules, with how their evaluation went."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/rules") as answer,
        ):
            groups = (await answer.json())["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    try:
        binary()
    except PrometheusUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    async with recording() as (upstream, at):
        sidecar = await asyncio.to_thread(_sidecar, tmp_path, at, request.param)
        try:
            said = _LISTENER.search((tmp_path / "sidecar.log").read_text())
            assert said is not None
            labels = {said[1]: {"namespace": "a", "pod": "p-0"}}
            rendered = [shortened(tmp_path)]
            server = PrometheusServer(tmp_path, labels, scrape_s=SCRAPE_S, rules=rendered)
            await asyncio.to_thread(server.__enter__)
            try:
                yield Watched(server.url, sidecar, upstream, said[1])
            finally:
                await asyncio.to_thread(server.__exit__)
        finally:
            await asyncio.to_thread(sidecar.stop)


def _sidecar(folder: Path, upstream: str, workers: int) -> Sidecar:
    anywhere = dict.fromkeys(("listen", "admin", "metrics"), "127.0.0.1:0")
    config = folder / "breakwater.yaml"
    config.write_text(json.dumps({**anywhere, "upstream": upstream, "models": {"m": {}}}))
    return Sidecar(config, folder / "sidecar.log", workers=workers)


async def _down(call: Call, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "stopped")
    return b""


async def test_rules_are_evaluated_without_errors_and_an_alert_fires(watched: Watched) -> None:
    async def is_scraped() -> bool:
        return await watched.value("breakwater_upstream_ready") == 1

    async def all_evaluated() -> bool:
        return all(rule["health"] != "unknown" for rule in await watched.evaluated())

    await until(is_scraped, limit_s=LIMIT_S)
    async with grpc.aio.insecure_channel(watched.sidecar.address) as channel:
        for _ in range(8):
            await ask(
                channel, "ModelInfer", infer_request({"x": np.ones((1, 2), np.float32)}, model="m")
            )

    async def is_counted() -> bool:
        return await watched.value('breakwater_added_seconds_count{model="m"}') == 8

    await until(is_counted, limit_s=LIMIT_S)
    await until(all_evaluated, limit_s=LIMIT_S)
    found = await watched.evaluated()
    assert len(found) == len(rules())
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []
    slow = "namespace_model:breakwater_added_seconds_slow:ratio_rate5m"

    async def is_recorded() -> bool:
        return await watched.value(f'{slow}{{namespace="a",model="m"}}') is not None

    await until(is_recorded, limit_s=LIMIT_S)
    assert "BreakwaterUpstreamNotReady" not in await watched.firing()

    watched.upstream.answers["ServerReady"] = _down

    async def fires() -> bool:
        return "BreakwaterUpstreamNotReady" in await watched.firing()

    await until(fires, limit_s=LIMIT_S)
    alert = (await watched.firing())["BreakwaterUpstreamNotReady"]
    expected = {"namespace": "a", "pod": "p-0", "instance": watched.listener, "severity": "page"}
    assert expected.items() <= alert["labels"].items()
    assert alert["annotations"]["summary"] == "Triton behind p-0 is not ready"
    assert not [name for name in await watched.firing() if name == "BreakwaterAbsent"]

    del watched.upstream.answers["ServerReady"]

    async def is_over() -> bool:
        return not await fires()

    await until(is_over, limit_s=LIMIT_S)


async def test_a_proxy_that_was_there_and_is_gone_is_down(watched: Watched) -> None:
    async def is_scraped() -> bool:
        return await watched.value("breakwater_build_info") == 1

    await until(is_scraped, limit_s=LIMIT_S)
    assert await asyncio.to_thread(watched.sidecar.stop) == 0

    async def fires() -> bool:
        return "BreakwaterDown" in await watched.firing()

    await until(fires, limit_s=LIMIT_S)
    alert = (await watched.firing())["BreakwaterDown"]
    assert alert["annotations"]["summary"] == "Breakwater at p-0 cannot be scraped"
