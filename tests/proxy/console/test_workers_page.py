"""The console of a supervisor with two real workers: what either does is seen, both are changed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import grpc
import pytest
from playwright.async_api import Browser, Page, expect

from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.console.shown import TOKEN, looking
from tests.proxy.console.test_real_proxy import VISIBLE_S, unlocked
from tests.proxy.running import ask
from tests.proxy.test_worker_processes import workers
from tuning.triton import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

MODEL = "digits_like"
ODD = tampered(benign(1, seed=4))


async def seen(page: Page, connection: grpc.aio.Channel) -> str:
    """Send what is flagged over one connection; the threshold its row names."""
    rows = page.locator(".record")
    before = await rows.count()
    started = time.monotonic()
    await ask(connection, "ModelInfer", request(MODEL, ODD))
    await expect(rows).to_have_count(before + 1)
    assert time.monotonic() - started < VISIBLE_S
    found = re.search(r"above the threshold (\S+)", await rows.first.inner_text())
    assert found is not None
    return found.group(1)


async def confirmed(page: Page, generation: int) -> None:
    await page.locator("#change-sure").check()
    await page.locator("#change-ok").click()
    await expect(page.locator("#applied")).to_contain_text(f"generation {generation}")


async def test_either_worker_is_seen_and_both_are_changed(
    triton: EmbeddedTriton,
    calibrations: Path,
    tmp_path: Path,
    token_file: Path,
    browser: Browser,
) -> None:
    control = {"listen": "127.0.0.1:0", "token_file": str(token_file)}
    models = settings_of(calibrations, {MODEL: {"action": "flag"}})
    path = tmp_path / "breakwater.yaml"
    text = json.dumps({"models": models, "control": control}, default=str)
    path.write_text(text)
    async with workers(triton.grpc_address, "--config", str(path)) as subject:
        connections = await subject.connections()
        url = f"http://{subject.process.admin}/console/"
        async with (
            looking(browser, f"{url}#suspicious", allowed=["401"]) as list_,
            looking(browser, f"{url}#thresholds", allowed=["401"]) as dial,
        ):
            await unlocked(list_)
            await expect(list_.locator("#following")).to_have_text("Live.")
            (before,) = {await seen(list_, each) for each in connections}
            await unlocked(dial)
            await expect(dial.locator("#live-table")).to_contain_text("distinct sample")
            await dial.locator("#fpr").press("End")
            await dial.locator("#apply").click()
            await confirmed(dial, 2)
            (after,) = {await seen(list_, each) for each in connections}
            assert after != before
            await dial.locator("#applied-rollback").click()
            await confirmed(dial, 3)
            assert {await seen(list_, each) for each in connections} == {before}
    assert path.read_text() == text
    assert TOKEN not in "\n".join(subject.process.log)
