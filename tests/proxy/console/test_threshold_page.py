"""The threshold explorer in a real browser: drag, compare, apply, roll back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Request, expect

from tests.proxy.console.shown import POLICY, TOKEN, Shown, looking

FPR = "#fpr-shown"


async def opened(page: Page) -> None:
    await expect(page.locator("#explorer")).to_be_visible()
    await expect(page.locator("#explorer-chart svg").first).to_be_visible()


async def test_the_slider_begins_at_the_rate_in_force(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        await expect(page.locator(FPR)).to_have_text("1 %")
        await expect(page.locator("#apply")).to_be_disabled()
        for text in ("400 distinct samples with a score; 7 without", "Benign flagged, at most"):
            await expect(page.locator("#live-table")).to_contain_text(text)
        await expect(page.locator("#attack-table")).to_contain_text("oblivious, learned from")
        await expect(page.locator("#benign-kinds summary")).to_contain_text("Benign kinds: 2")
        await page.locator("#benign-kinds summary").click()
        await expect(page.locator("#benign-table")).to_contain_text("never calibrated on")


async def test_keys_and_pointer_move_it_without_asking_the_proxy(
    browser: Browser, shown: Shown
) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        page.on("request", note)
        slider = page.locator("#fpr")
        before = await page.locator("#live-table").inner_text()
        await slider.focus()
        for _ in range(12):
            await page.keyboard.press("ArrowRight")
        await expect(slider).to_have_attribute(
            "aria-valuetext",
            re.compile("% false positives, .+ of live samples flagged, .+ of attacks caught$"),
        )
        by_key = await page.locator(FPR).inner_text()
        assert float(by_key.split()[0]) > 2
        assert await page.locator("#live-table").inner_text() != before
        await page.keyboard.press("Home")
        await expect(page.locator(FPR)).to_have_text("0.05 %")
        box = await slider.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        await page.mouse.move(box["x"] + 8, middle)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] - 2, middle, steps=10)
        await page.mouse.up()
        await expect(page.locator(FPR)).to_have_text("20 %")
        await expect(page.locator("#changed summary")).to_contain_text("would be judged otherwise")
        await page.wait_for_function(
            "document.querySelector('#explorer-chart').layout.shapes[0].x0 === 0.2"
        )
        await page.locator("#to-current").click()
        await expect(page.locator(FPR)).to_have_text("1 %")
        assert not [url for url in asked if "/api/explore" in url]


async def test_what_the_page_works_out_is_right(browser: Browser, shown: Shown) -> None:
    found = await shown.target.explore("cnn", None)
    at = 50
    threshold, fpr = found["thresholds"][at], found["fprs"][at]
    flagged = sum(score > threshold for score in found["live"]["fused"])
    caught = sum(score > threshold for score in found["evaluation"]["attacks"]["bpda"]["fused"])
    now = [score > threshold for score in found["live"]["fused"]]
    was = [verdict == "suspicious" for verdict in found["live"]["verdict"]]
    changed = sum(a != b for a, b in zip(now, was, strict=True))
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        places = await page.evaluate("document.querySelector('#fpr').max")
        assert int(places) == 60  # the grid, and the rate in force
        await page.locator("#fpr").fill(str(at + 1))
        await expect(page.locator(FPR)).to_have_text(f"{100 * fpr:.3g} %")
        tiles = page.locator("#dial-tiles")
        await expect(tiles).to_contain_text(f"{flagged} of 400")
        await expect(tiles).to_contain_text(f"{threshold:.4g}")
        row = page.locator("#attack-table tr", has_text="bpda")
        await expect(row).to_contain_text(f"misses {60 - caught} of 60")
        await expect(page.locator("#changed summary")).to_contain_text(f"{changed} live samples")


async def test_compare_two_policies(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        await page.get_by_label("margin").uncheck()
        await page.get_by_role("button", name="Compare").click()
        await expect(page.locator("#compare-note")).to_have_text("Compared with residual, energy.")
        await expect(page.locator("#live-table thead")).to_contain_text("Candidate")
        assert shown.target.explored[-1] == {"detectors": ["residual", "energy"]}
        await page.locator("#uncompare").click()
        await expect(page.locator("#live-table thead")).not_to_contain_text("Candidate")
        for name in ("residual", "energy"):
            await page.get_by_label(name).uncheck()
        await page.get_by_role("button", name="Compare").click()
        await expect(page.locator("#compare-note")).to_contain_text("at least one detector")


async def test_apply_see_it_take_effect_and_roll_back(browser: Browser, guarded: Shown) -> None:
    url = f"{guarded.url}/console/#thresholds"
    async with looking(browser, url, allowed=["401"]) as page:
        await page.locator("#unlock").click()
        await page.locator("#token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await opened(page)
        await page.locator("#fpr").press("ArrowRight")
        wanted = (await page.locator(FPR).inner_text()).split()[0]
        await page.locator("#apply").click()
        await expect(page.locator("#change-list")).to_contain_text("cnn.fpr: 0.01 -> ")
        await expect(page.locator("#change-token-part")).to_be_hidden()
        await expect(page.locator("#change-ok")).to_be_disabled()
        await page.locator("#change-sure").check()
        await page.locator("#change-ok").click()
        await expect(page.locator("#applied")).to_contain_text("generation 2")
        assert guarded.target.fpr == round(float(wanted) / 100, 6)
        assert "with a comment that has to stay" in guarded.target.path.read_text()
        await expect(page.locator(FPR)).to_have_text(f"{wanted} %")
        await expect(page.locator("#apply")).to_be_disabled()
        await page.locator("#applied-rollback").click()
        await expect(page.locator("#change-list")).to_contain_text("-> 0.01")
        await page.locator("#change-sure").check()
        await page.locator("#change-ok").click()
        await expect(page.locator("#applied")).to_contain_text("generation 3")
        assert guarded.target.path.read_text() == POLICY


async def test_apply_a_candidate_leaves_detectors_out_of_the_file(
    browser: Browser, guarded: Shown
) -> None:
    url = f"{guarded.url}/console/#thresholds"
    async with looking(browser, url, allowed=["401"]) as page:
        await page.locator("#unlock").click()
        await page.locator("#token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await opened(page)
        await page.get_by_label("margin").uncheck()
        await page.get_by_role("button", name="Compare").click()
        await page.locator("#apply-candidate").click()
        await expect(page.locator("#change-list")).to_contain_text("detectors")
        await page.locator("#change-sure").check()
        await page.locator("#change-ok").click()
        await expect(page.locator("#applied")).to_contain_text("generation 2")
        config = await guarded.target.config()
        named = [part["name"] for part in config["models"]["cnn"]["detectors"]]
        assert named == ["residual", "energy"]


async def test_a_conflict_is_told_and_changes_nothing(browser: Browser, guarded: Shown) -> None:
    url = f"{guarded.url}/console/#thresholds"
    async with looking(browser, url, allowed=["401", "409"]) as page:
        await page.locator("#unlock").click()
        await page.locator("#token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await opened(page)
        await page.locator("#fpr").press("ArrowRight")
        await page.locator("#apply").click()
        await expect(page.locator("#change-list li")).to_have_count(1)
        await page.locator("#change-sure").check()
        text = POLICY.replace("0.01 ", "0.03 ")
        guarded.target.path.write_text(text)
        await page.locator("#change-ok").click()
        await expect(page.locator("#change-alert")).to_contain_text("changed meanwhile")
        await expect(page.locator("#change-ok")).to_be_disabled()
        assert guarded.target.path.read_text() == text
        await page.keyboard.press("Escape")
        await expect(page.locator("#change-dialog")).to_be_hidden()
        await expect(page.locator("#applied")).to_be_hidden()


async def test_without_a_token_configured_the_dialog_says_so(
    browser: Browser, shown: Shown
) -> None:
    url = f"{shown.url}/console/#thresholds"
    async with looking(browser, url, allowed=["403"]) as page:
        await opened(page)
        await page.locator("#fpr").press("ArrowRight")
        await page.locator("#apply").click()
        await expect(page.locator("#change-alert")).to_contain_text("control.token_file")
        await expect(page.locator("#change-token-part")).to_be_hidden()
        await page.locator("#change-sure").check()
        await expect(page.locator("#change-ok")).to_be_disabled()
        assert shown.target.checked == 0
        assert shown.target.path.read_text() == POLICY


async def test_a_wrong_token_in_the_dialog_can_be_corrected(
    browser: Browser, guarded: Shown
) -> None:
    url = f"{guarded.url}/console/#thresholds"
    async with looking(browser, url, allowed=["401"]) as page:
        await page.locator("#unlock").click()
        await page.locator("#token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await opened(page)
        await page.locator("#fpr").press("ArrowRight")
        await page.locator("#apply").click()
        await expect(page.locator("#change-list li")).to_have_count(1)
        await page.locator("#change-sure").check()
        guarded.target.path.with_name("token").write_text("rotated-in-the-meantime-1")
        await page.locator("#change-ok").click()
        await expect(page.locator("#change-alert")).to_contain_text("the token is wrong")
        await page.locator("#change-token").fill("rotated-in-the-meantime-1")
        await page.locator("#change-ok").click()
        await expect(page.locator("#applied")).to_contain_text("generation 2")


async def test_what_is_missing_is_told_with_what_makes_it(browser: Browser, shown: Shown) -> None:
    shown.target.live = shown.target.evaluated = False
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        await expect(page.locator("#live-note")).to_contain_text("No live samples")
        await expect(page.locator("#evaluation-note")).to_contain_text("breakwater evaluate")
        await page.locator("#fpr").press("ArrowRight")
        await expect(page.locator("#dial-tiles")).to_contain_text("Threshold")


async def test_an_evaluation_of_another_defence_is_shown_with_the_warning(
    browser: Browser, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    explore = shown.target.explore

    async def of_another(*asked: Any) -> dict[str, Any]:
        return {**await explore(*asked), "evaluation_problem": "another <b>calibration</b>"}

    monkeypatch.setattr(shown.target, "explore", of_another)
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await opened(page)
        await expect(page.locator("#evaluation-note")).to_contain_text("succeeded undefended")
        warning = page.locator("#evaluation-note .state.warn")
        await expect(warning).to_have_text("another <b>calibration</b>")
        await page.locator("#fpr").press("ArrowRight")
        await expect(warning).to_have_count(1)
        await expect(page.locator("#attack-table")).to_be_visible()


async def test_the_policy_is_shown_with_its_digest(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#policy") as page:
        await expect(page.locator("#policy-text")).to_have_text(POLICY)
        await expect(page.locator("#policy-facts")).to_contain_text("Generation 1, digest ")
        await expect(page.locator("#rollback")).to_be_hidden()


async def test_what_would_change_is_shown_to_a_token_only(browser: Browser, guarded: Shown) -> None:
    url = f"{guarded.url}/console/#thresholds"
    async with looking(browser, url, allowed=["401"]) as page:
        await page.locator("#unlock").click()
        await page.locator("#token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await opened(page)
        await page.locator("#fpr").press("ArrowRight")
        guarded.target.path.with_name("token").write_text("rotated-in-the-meantime-1")
        await page.locator("#apply").click()
        await expect(page.locator("#change-alert")).to_contain_text("the token is wrong")
        await expect(page.locator("#change-token")).to_be_focused()
        await expect(page.locator("#change-ok")).to_be_disabled()
        await page.locator("#change-token").fill("wrong-once-more-than-needed")
        await page.locator("#change-ok").click()
        await expect(page.locator("#change-token")).to_have_value("")
        await expect(page.locator("#change-list li")).to_have_count(0)
        assert guarded.target.checked == 0
        await page.locator("#change-token").fill("rotated-in-the-meantime-1")
        await page.locator("#change-ok").click()
        await expect(page.locator("#change-list")).to_contain_text("cnn.fpr: 0.01 -> ")
        await expect(page.locator("#change-ok")).to_be_disabled()
        assert guarded.target.path.read_text() == POLICY
        await page.locator("#change-sure").check()
        await page.locator("#change-ok").click()
        await expect(page.locator("#applied")).to_contain_text("generation 2")
