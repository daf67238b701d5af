"""The page in a real browser: it opens, follows what happens, and runs nothing of a client's."""

from __future__ import annotations

from aiohttp import web
from playwright.async_api import Browser, Page, Route, expect

from proxy.console.routes import Console
from tests.proxy.console.shown import HOSTILE, PIXEL, TOKEN, Shown, looking, record
from tests.proxy.running import until

SECTIONS = ("overview", "suspicious", "thresholds", "policy")


async def unlock(page: Page, token: str = TOKEN) -> None:
    await page.locator("#unlock").click()
    await page.locator("#token").fill(token)
    await page.keyboard.press("Enter")


def test_paths_are_all_below_two_names() -> None:
    class Nothing:
        pass

    routes = Console(Nothing(), Nothing()).routes()  # type: ignore[arg-type]
    paths = [route.path for route in routes if isinstance(route, web.RouteDef)]
    assert all(path.startswith(("/console", "/api/")) for path in paths)
    assert len(paths) == len(routes)


async def test_every_section_opens_without_an_error(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/") as page:
        for name in SECTIONS:
            await page.locator(f"nav a[href='#{name}']").click()
            await expect(page.locator(f"#{name}-page")).to_be_visible()
            await expect(page.locator("main section:visible")).to_have_count(1)
            await expect(page.locator("nav a[aria-current=page]")).to_have_attribute(
                "href", f"#{name}"
            )


async def test_overview_shows_traffic_latency_and_health(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/") as page:
        await expect(page.locator("#health")).to_contain_text("2 of 2")
        await expect(page.locator("#health")).to_contain_text("residual, margin, energy")
        await expect(page.locator("#verdict-table")).to_contain_text("190 (95 %)")
        shown.target.traffic(40)
        await expect(page.locator("#traffic-table tbody tr").first).to_contain_text("240")
        await expect(page.locator("#latency-table")).to_contain_text("total")
        await expect(page.locator("#traffic-chart svg").first).to_be_visible()
        await expect(page.locator("#charts-note")).to_be_hidden()


async def test_a_left_out_detector_is_told_in_words(browser: Browser, shown: Shown) -> None:
    shown.target.count.model("cnn").circuit("margin", is_open=True)
    async with looking(browser, f"{shown.url}/console/") as page:
        row = page.locator("#health li", has_text="cnn: detectors")
        await expect(row).to_contain_text("1 left out")
        await expect(row).to_contain_text("margin")


async def test_a_flagged_request_appears_by_itself(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#suspicious") as page:
        await expect(page.locator("#following")).to_have_text("Live.")
        await expect(page.locator("#records-empty")).to_be_visible()
        await until(lambda: _is(shown.target.followed == 1))
        shown.target.push(record(1, chain=41, alarm=True, quarantined=True, shadow="pass"))
        row = page.locator(".record")
        await expect(row).to_have_count(1, timeout=2000)
        for text in ("cnn version 1", "p = 0.001", "above the threshold 2.5", "purify"):
            await expect(row).to_contain_text(text)
        for text in ("alarm", "41 related queries", "quarantine", "disagrees: pass"):
            await expect(row).to_contain_text(text)
        await expect(page.locator("#arrivals")).to_have_text("1 since this page was opened.")
        shown.target.push(record(2))
        await expect(page.locator(".record").first).to_contain_text("c2")
        await expect(page.locator("#records-empty")).to_be_hidden()


async def test_rows_are_bounded_and_a_pause_holds_them(browser: Browser, shown: Shown) -> None:
    for i in range(150):
        shown.target.push(record(i))
    async with looking(browser, f"{shown.url}/console/#suspicious") as page:
        await expect(page.locator(".record")).to_have_count(100)
        await page.locator("#pause").click()
        shown.target.push(record(900))
        shown.target.push(record(901))
        await page.locator("#pause").click()
        await expect(page.locator(".record").nth(1)).to_contain_text("c900")
        await expect(page.locator(".record")).to_have_count(100)


async def test_names_of_clients_stay_text(browser: Browser, shown: Shown) -> None:
    hostile = dict.fromkeys(("principal", "client_id", "version", "reason", "action"), HOSTILE)
    shown.target.push(record(1, **hostile, p_values={HOSTILE: 0.1}, thumbnail=f'"{HOSTILE}'))
    shown.target.push(record(2, thumbnail=PIXEL))
    async with looking(browser, f"{shown.url}/console/#suspicious") as page:
        await expect(page.locator(".record")).to_have_count(2)
        await expect(page.locator(".record", has_text=HOSTILE)).to_have_count(1)
        await expect(page.locator("#principals")).to_contain_text(HOSTILE)
        assert await page.locator("main img").count() == 1
        assert await page.locator("main img").get_attribute("alt")
        assert await page.locator("main script").count() == 0


async def test_labels_need_the_token_and_reach_the_proxy(browser: Browser, guarded: Shown) -> None:
    guarded.target.push(record(1, id="a:0"))
    url = f"{guarded.url}/console/#suspicious"
    async with looking(browser, url, allowed=["401"]) as page:
        await expect(page.locator("#connection")).to_contain_text("a token is needed")
        await unlock(page)
        await expect(page.locator("#connection")).to_be_empty()
        adversarial = page.get_by_role("button", name="adversarial")
        await adversarial.click()
        await expect(adversarial).to_have_attribute("aria-pressed", "true")
        assert guarded.target.labels == {"a:0": "adversarial"}
        await adversarial.click()
        await expect(adversarial).to_have_attribute("aria-pressed", "false")
        assert guarded.target.labels == {"a:0": ""}


async def test_a_wrong_token_is_told(browser: Browser, guarded: Shown) -> None:
    async with looking(browser, f"{guarded.url}/console/", allowed=["401"]) as page:
        await expect(page.locator("#connection")).to_contain_text("a token is needed")
        await unlock(page, "not-the-right-token-at-all")
        await expect(page.locator("#connection")).to_contain_text("the token is wrong")
        await unlock(page)
        await expect(page.locator("#connection")).to_be_empty()
        await expect(page.locator("#health")).to_contain_text("2 of 2")


async def test_the_token_is_kept_nowhere(browser: Browser, guarded: Shown) -> None:
    async with looking(browser, f"{guarded.url}/console/", allowed=["401"]) as page:
        await unlock(page)
        await expect(page.locator("#connection")).to_be_empty()
        assert await page.locator("#token").input_value() == ""
        kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert TOKEN not in await page.evaluate(kept)
        assert TOKEN not in await page.content()


async def test_without_plotly_there_are_tables_and_a_hint(browser: Browser, shown: Shown) -> None:
    async def missing(route: Route) -> None:
        await route.fulfill(status=404)

    async with looking(browser, "about:blank", allowed=["404"]) as page:
        await page.context.route("**/plotly.js", missing)
        await page.goto(f"{shown.url}/console/")
        await expect(page.locator("#charts-note")).to_contain_text("breakwater[console]")
        await expect(page.locator("#traffic-table")).to_contain_text("cnn")
        await expect(page.locator("#traffic-chart")).to_be_hidden()
        await page.goto(f"{shown.url}/console/#thresholds")
        await expect(page.locator("#explorer-charts-note")).to_contain_text("breakwater[console]")
        await page.locator("#fpr").press("ArrowRight")
        await expect(page.locator("#dial-tiles")).to_contain_text("Threshold")


async def test_the_page_is_there_before_plotly_is(browser: Browser, shown: Shown) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    async with looking(browser, "about:blank") as page:
        await page.context.route("**/plotly.js", hold)
        await page.goto(f"{shown.url}/console/")
        await expect(page.locator("#traffic-table")).to_contain_text("cnn")
        await until(lambda: _is(bool(held)))
        await expect(page.locator("#traffic-chart")).to_be_hidden()
        for route in held:
            await route.continue_()
        await expect(page.locator("#traffic-chart svg").first).to_be_visible()


async def test_a_proxy_that_went_is_told_and_one_that_came_back_is_followed(
    browser: Browser, shown: Shown
) -> None:
    async with looking(browser, f"{shown.url}/console/", allowed=["500"]) as page:
        await expect(page.locator("#health")).to_contain_text("2 of 2")
        shown.target.broken = True
        await expect(page.locator("#connection")).to_contain_text("internal error")
        shown.target.broken = False
        await expect(page.locator("#connection")).to_be_empty()


async def test_inline_scripts_are_refused_by_the_browser(browser: Browser, shown: Shown) -> None:
    allowed = ["Content Security Policy"]
    async with looking(browser, f"{shown.url}/console/", allowed=allowed) as page:
        await page.evaluate(
            "() => { const script = document.createElement('script');"
            " script.textContent = 'window.ran = 1'; document.body.append(script); }"
        )
        assert await page.evaluate("window.ran") is None


async def _is(value: bool) -> bool:
    return value
