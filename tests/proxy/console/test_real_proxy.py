"""The console of a real proxy before a real Triton, in a real browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from playwright.async_api import Browser, Page, expect

from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.console.shown import TOKEN, looking
from tests.proxy.running import Running, ask, running
from tuning.triton import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

MODEL = "digits_like"
VISIBLE_S = 2.0
"""From sending a suspicious request to its row on the page."""


@asynccontextmanager
async def proxied(triton: str, calibrations: Path, folder: Path) -> AsyncIterator[Running]:
    """A proxy with a configuration file and a token, that defends one model."""
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    models = settings_of(calibrations, {MODEL: {"action": "flag"}})
    models[MODEL] |= {"calibration": str(calibrations / MODEL), "shadow": {"policy": "shadow.yaml"}}
    for parts in ("detectors", "purifiers"):
        models[MODEL][parts] = [dict(part) for part in models[MODEL][parts]]
    other = {**models[MODEL], "fpr": 0.2}
    del other["shadow"]
    (folder / "shadow.yaml").write_text(yaml.safe_dump({"models": {MODEL: other}}))
    config = {"models": models, "records": {"thumbnails": True}}
    config["control"] = {"listen": "127.0.0.1:0", "token_file": str(token)}
    path = folder / "breakwater.yaml"
    path.write_text(f"# kept\n{yaml.safe_dump(config)}")
    async with running(triton, path=path) as proxy:
        yield proxy


async def unlocked(page: Page) -> None:
    await page.locator("#unlock").click()
    await page.locator("#token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.locator("#connection")).to_be_empty()


def url(proxy: Running, section: str) -> str:
    return f"http://{proxy.server.admin_address}/console/#{section}"


async def test_a_flagged_request_is_on_the_page_within_two_seconds(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, browser: Browser
) -> None:
    async with proxied(triton.grpc_address, calibrations, tmp_path) as proxy:
        for x in benign(5, seed=3):
            await ask(proxy.channel, "ModelInfer", request(MODEL, x[None]))  # warm
        async with looking(browser, url(proxy, "suspicious"), allowed=["401"]) as page:
            await unlocked(page)
            await expect(page.locator("#following")).to_have_text("Live.")
            before = await page.locator(".record").count()
            started = time.monotonic()
            await ask(proxy.channel, "ModelInfer", request(MODEL, tampered(benign(1, seed=4))))
            await expect(page.locator(".record")).to_have_count(before + 1)
            assert time.monotonic() - started < VISIBLE_S
            row = page.locator(".record").first
            await expect(row).to_contain_text("suspicious")
            await expect(row).to_contain_text("above the threshold")
            await expect(row.locator("img.thumbnail")).to_be_visible()
            await row.get_by_role("button", name="adversarial").click()
            await expect(row).to_contain_text("labelled adversarial")
        labelled = await proxy.server.records(MODEL, 1)
        assert labelled[0]["label"] == "adversarial"


async def test_a_threshold_is_tried_on_live_scores_applied_and_taken_back(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, browser: Browser
) -> None:
    path = tmp_path / "breakwater.yaml"
    async with proxied(triton.grpc_address, calibrations, tmp_path) as proxy:
        text = path.read_text()
        x = benign(30, seed=5)
        await asyncio.gather(
            *(ask(proxy.channel, "ModelInfer", request(MODEL, each[None])) for each in x)
        )
        async with looking(browser, url(proxy, "thresholds"), allowed=["401"]) as page:
            await unlocked(page)
            await expect(page.locator("#fpr-shown")).to_have_text("5 %")
            await expect(page.locator("#live-table")).to_contain_text("distinct samples")
            await expect(page.locator("#evaluation-note")).to_contain_text("breakwater evaluate")
            for _ in range(5):
                await page.locator("#fpr").press("ArrowRight")
            wanted = float((await page.locator("#fpr-shown").inner_text()).split()[0]) / 100
            await page.get_by_label("residual").uncheck()
            await page.get_by_role("button", name="Compare").click()
            await expect(page.locator("#live-table thead")).to_contain_text("Candidate")
            await page.locator("#apply").click()
            await expect(page.locator("#change-list")).to_contain_text(f"{MODEL}.fpr")
            assert path.read_text() == text
            await page.locator("#change-sure").check()
            await page.locator("#change-ok").click()
            await expect(page.locator("#applied")).to_contain_text("generation 2")
            config = await proxy.server.config()
            assert config["models"][MODEL]["fpr"] == pytest.approx(wanted, rel=1e-3)
            assert path.read_text().startswith("# kept\n")
            await page.goto(url(proxy, "policy"))
            await expect(page.locator("#policy-facts")).to_contain_text("Generation 2")
            await page.locator("#rollback").click()
            await page.locator("#change-sure").check()
            await page.locator("#change-ok").click()
            await expect(page.locator("#applied")).to_contain_text("generation 3")
        assert path.read_text() == text
        assert (await proxy.server.config())["models"][MODEL]["fpr"] == 0.05


async def test_the_overview_tells_of_the_proxy_and_the_policy_of_the_shadow(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, browser: Browser
) -> None:
    async with proxied(triton.grpc_address, calibrations, tmp_path) as proxy:
        x = benign(60, seed=6)
        await asyncio.gather(
            *(ask(proxy.channel, "ModelInfer", request(MODEL, each[None])) for each in x)
        )
        async with looking(browser, url(proxy, "overview"), allowed=["401"]) as page:
            await unlocked(page)
            await expect(page.locator("#health")).to_contain_text("1 of 1")
            await expect(page.locator("#health")).to_contain_text(f"{MODEL}: calibration")
            await expect(page.locator("#traffic-table")).to_contain_text("60")
            await expect(page.locator("#latency-table")).to_contain_text("upstream")
            await page.goto(url(proxy, "policy"))
            await expect(page.locator("#shadow-table tbody tr").first).to_be_visible()
