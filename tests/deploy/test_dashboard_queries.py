"""Every query of the dashboard finds something, asked of a real Prometheus as Grafana asks it.

The Prometheus scrapes a sidecar of one process, through which traffic goes that moves every
metric, and one of several workers, since some metrics are the supervisor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loadtests import dashboard_queries as queries
from loadtests.dashboard_queries import Json, Prometheus, Span
from loadtests.prometheus_server import PrometheusServer, PrometheusUnavailable, binary
from loadtests.query_attacks.redis_server import RedisUnavailable
from loadtests.query_attacks.redis_server import binary as redis_binary
from tests.deploy.traffic import BREAKING, MODELS, Scene, scene
from tests.moody import registered
from tuning.demo.sidecar import Sidecar
from tuning.triton import EmbeddedTriton

pytestmark = [
    pytest.mark.triton,
    pytest.mark.timeout(300),  # the first test waits for Triton, for calibrations and for traffic
]

RULES = queries.DASHBOARD.parents[1] / "prometheus" / "rules" / "breakwater.rules.yaml"
SCRAPE_S = 0.5
ROUNDS = 10
LIMIT_S = 60.0

MAY_BE_ZERO = {
    *("Models in drift A", "Models, stale A", "State A", "State B", "State C", "State D"),
    *("Alarm and suspended blocking A", "Alarm and suspended blocking B"),
    *("Stale calibration, by reason A", "Actions withheld A", "Left out of the population A"),
    *("Not scored B", "Not scored C", "Queue for the device A", "Not compared A", "Not compared B"),
    *("Passes that ran out of device memory A", "Watchers A", "Workers that died A"),
    *(f"Lost records, audit lines and spans {each}" for each in "ABCD"),
    *(
        "Refused by limits, gave way A",
        "Refused by limits, gave way B",
        "Certificates that could not be used A",
        "Captures lost A",
    ),
    *("Captures kept A", "Size of the captures A"),
}
"""Queries of what goes wrong nowhere here: they find the zeroes that are there from the start."""
MAY_BE_MISSING = {"Certificates, time left A"}
"""Of what is not configured here; that Prometheus understands them is seen all the same."""

BOARD = queries.dashboard()


def _asked() -> dict[str, Json]:
    """Every query, by what it is called here."""
    found = {
        f"{panel['title']} {target['refId']}": target
        for panel in queries.panels(BOARD)
        for target in panel.get("targets", ())
    }
    return found | {f"annotation {each['name']}": each for each in queries.annotations(BOARD)}


ASKED = _asked()


@dataclass
class Watched:
    """What the Prometheus has seen."""

    prometheus: Prometheus
    span: Span
    offered: dict[str, list[str]]

    def series(self, target: Json, **values: str) -> list[Json]:
        chosen = queries.everything(BOARD, self.offered)
        return self.prometheus.series(target, chosen | values, self.span)


@pytest.fixture(scope="module")
def needed() -> None:
    """Skips, but for CI, where a program is missing."""
    import os

    try:
        binary()
        redis_binary()
    except (PrometheusUnavailable, RedisUnavailable) as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def moody(
    needed: None,
    triton: EmbeddedTriton,
    calibrations: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """As the fixture of that name in tests/proxy."""
    folder = tmp_path_factory.mktemp("moody") / "digits_like"
    with registered(triton.grpc_address, calibrations / "benign.npz", folder) as fields:
        yield fields


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(
    moody: dict[str, Any],
    triton: EmbeddedTriton,
    calibrations: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("dashboard")
    config = folder / "workers.json"
    ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "upstream": triton.grpc_address}
    config.write_text(json.dumps(ports))
    async with scene(triton.grpc_address, calibrations, folder, moody) as subject:
        workers = await asyncio.to_thread(Sidecar, config, folder / "workers.log", workers=2)
        targets = {
            subject.sidecar.server.admin_address: {"namespace": "demo", "pod": "breakwater-0"},
            workers.admin: {"namespace": "demo", "pod": "breakwater-1"},
        }
        try:
            with PrometheusServer(folder, targets, scrape_s=SCRAPE_S, rules=[RULES]) as server:
                prometheus = Prometheus(server.url)
                span = await drive(subject, prometheus)
                yield Watched(prometheus, span, prometheus.choices(BOARD, span))
        finally:
            await asyncio.to_thread(workers.stop)


async def drive(subject: Scene, prometheus: Prometheus) -> Span:
    """Send traffic, with things going wrong in between; return when it was."""
    await scraped(prometheus, 0)
    started_s = time.time()
    for number in range(ROUNDS):
        scrapes = await count(prometheus)
        await subject.round()
        if number == 3:
            await subject.break_detector()
        elif number == 5:
            await asyncio.to_thread(subject.redis.kill)
        elif number == 7:
            await subject.reload()
        # A scrape must meet requests in progress, and also a sidecar that has nothing to do.
        async with subject.busy() if number < 2 else contextlib.nullcontext():
            await scraped(prometheus, scrapes)
    return Span(started_s, time.time(), step_s=1, scrape_s=SCRAPE_S)


async def count(prometheus: Prometheus) -> int:
    """How often the first sidecar has been scraped."""
    asked = 'count_over_time(up{pod="breakwater-0"}[10m]) and up{pod="breakwater-0"} == 1'
    found = (await asyncio.to_thread(prometheus.ask, "query", query=asked))["result"]
    return int(found[0]["value"][1]) if found else 0


async def scraped(prometheus: Prometheus, before: int) -> None:
    """Return when it has been scraped twice more."""
    async with asyncio.timeout(LIMIT_S):
        while await count(prometheus) < before + 2:  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0.05)


def finite(series: list[Json]) -> list[float]:
    values = [float(text) for each in series for _, text in each["values"]]
    return [value for value in values if math.isfinite(value)]


@pytest.mark.parametrize("name", ASKED)
def test_a_query_finds_something(watched: Watched, name: str) -> None:
    found = finite(watched.series(ASKED[name]))
    assert found or name in MAY_BE_MISSING, ASKED[name]["expr"]
    assert any(found) or name in MAY_BE_ZERO | MAY_BE_MISSING, ASKED[name]["expr"]


def test_every_variable_offers_something(watched: Watched) -> None:
    assert watched.offered["pod"] == ["breakwater-0", "breakwater-1"]
    assert watched.offered["namespace"] == ["demo"]
    assert {*MODELS, BREAKING, "other"} == set(watched.offered["model"])
    assert {"residual", "moody", "history"} < set(watched.offered["detector"])


def test_what_is_chosen_is_what_is_shown(watched: Watched) -> None:
    (variable,) = (each for each in queries.variables(BOARD) if each["name"] == "model")
    for models in (["digits_like"], ["digits_like_fp16", "digits_like_again"]):
        found = watched.series(ASKED["Requests by model A"], model=queries.chosen(variable, models))
        assert sorted(each["metric"]["model"] for each in found) == sorted(models)
    assert not watched.series(ASKED["Requests by model A"], model="digits")


def test_a_query_that_is_none_is_refused(watched: Watched) -> None:
    with pytest.raises(ValueError, match="parse error"):
        watched.series({"expr": "sum by (("})
