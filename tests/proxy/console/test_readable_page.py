"""For everybody: names for everything, contrast in both themes, the keyboard, a phone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.proxy.console.shown import HOSTILE, PIXEL, Shown, looking, record

SECTIONS = ("overview", "suspicious", "thresholds", "policy")

# The rules of WCAG 2.2 that a script can judge: 1.1.1, 1.3.1, 2.4.6, 3.3.2, 4.1.2.
NAMELESS = """() => {
  const seen = (node) => node.checkVisibility();
  const named = (node) => node.getAttribute('aria-label') || node.textContent.trim()
    || [...(node.labels ?? [])].some((label) => label.textContent.trim())
    || document.getElementById(node.getAttribute('aria-labelledby') ?? '');
  const bad = [];
  const controls = 'button, a, input, select, meter, [role=img], [role=region], dialog';
  for (const node of document.querySelectorAll(controls))
    if (seen(node) && !named(node))
      bad.push('no name: ' + node.outerHTML.slice(0, 90));
  for (const node of document.querySelectorAll('img'))
    if (!node.hasAttribute('alt')) bad.push('no alt: ' + node.outerHTML.slice(0, 90));
  for (const node of document.querySelectorAll('main table'))
    if (node.rows.length && !node.caption) bad.push('no caption: ' + node.id);
  for (const node of document.querySelectorAll('main th'))
    if (!node.scope) bad.push('no scope: ' + node.outerHTML);
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id)
    .filter((id) => !document.getElementById(id).closest('svg'));
  if (new Set(ids).size !== ids.length) bad.push('ids twice');
  if (!document.documentElement.lang) bad.push('no language');
  if ([...document.querySelectorAll('h1')].filter(seen).length !== 1) bad.push('not one h1');
  for (const node of document.querySelectorAll('[tabindex]'))
    if (Number(node.getAttribute('tabindex')) > 0) bad.push('tab order: ' + node.id);
  return bad;
}"""

# 1.4.3: 4.5:1 for text, 3:1 from 24 px, or from 18.66 px where it is bold; relative luminance.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((all, c, i) => all + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const [r, g, b, a = 1] = rgb(getComputedStyle(each).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const bad = [];
  let looked = 0;
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !node.checkVisibility() || node.disabled) continue;
    if (node.closest('svg, noscript, option')) continue;
    looked += 1;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(style.color)), light(ground(node))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) bad.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 90)}`);
  }
  return [looked, bad];
}"""


def populate(shown: Shown) -> None:
    shown.target.push(record(1, thumbnail=PIXEL, chain=41, alarm=True, quarantined=True))
    shown.target.push(record(2, verdict="failed", score=None, failure="budget"))
    shown.target.push(record(3, principal=HOSTILE + "x" * 200, client_id="y" * 250, shadow="pass"))


async def filled(page: Page, section: str) -> None:
    """Wait until a section shows what it has."""
    something = {
        "overview": "#health li >> nth=5",
        "suspicious": ".record >> nth=2",
        "thresholds": "#explorer-chart svg >> nth=0",
        "policy": "#policy-text",
    }
    await expect(page.locator(something[section])).to_be_visible()


@pytest.mark.parametrize("section", SECTIONS)
async def test_everything_has_a_name(browser: Browser, shown: Shown, section: str) -> None:
    populate(shown)
    url = f"{shown.url}/console/#{section}"
    async with looking(browser, url, allowed=["403"]) as page:
        await filled(page, section)
        assert await page.evaluate(NAMELESS) == []
        if section == "thresholds":
            await page.locator("#fpr").press("ArrowRight")
            await page.locator("#apply").click()
            await expect(page.locator("#change-alert")).to_contain_text("control.token_file")
        else:
            await page.locator("#unlock").click()
        assert await page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("section", SECTIONS)
async def test_text_stands_out(browser: Browser, shown: Shown, section: str, scheme: Any) -> None:
    populate(shown)
    url = f"{shown.url}/console/#{section}"
    async with looking(browser, url, color_scheme=scheme, reduced_motion="reduce") as page:
        await filled(page, section)
        looked, bad = await page.evaluate(CONTRAST)
        assert looked > 5
        assert bad == []


async def test_light_and_dark_differ(browser: Browser, shown: Shown) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        async with looking(browser, f"{shown.url}/console/", color_scheme=scheme) as page:
            ground = "getComputedStyle(document.body).backgroundColor"
            grounds.append(await page.evaluate(ground))
    assert grounds[0] != grounds[1]


@pytest.mark.parametrize("section", SECTIONS)
async def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Browser, shown: Shown, section: str
) -> None:
    populate(shown)
    viewport = {"width": 360, "height": 740}
    url = f"{shown.url}/console/#{section}"
    async with looking(browser, url, viewport=viewport, has_touch=True) as page:
        await filled(page, section)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for link in await page.locator("nav a").all():
            box = await link.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= 360
            assert box["height"] >= 24  # WCAG 2.5.8


async def test_the_keyboard_reaches_everything_in_order(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#thresholds") as page:
        await filled(page, "thresholds")
        await page.evaluate("document.activeElement.blur()")
        order = []
        for _ in range(22):
            await page.keyboard.press("Tab")
            order.append(
                await page.evaluate(
                    "(() => { const n = document.activeElement;"
                    " const s = getComputedStyle(n);"
                    " return [n.id || n.hash || n.className || n.value || n.tagName,"
                    " s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]; })()"
                )
            )
        names = [name for name, _ in order]
        wanted = ["#main", "#overview", "#suspicious", "#thresholds", "#policy", "unlock", "model"]
        wanted += ["fpr", "to-current"]
        assert list(dict.fromkeys(n for n in names if n in wanted)) == wanted  # it goes round
        assert all(visible for name, visible in order if name != "BODY"), order


async def test_the_skip_link_leads_past_the_header(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/#policy") as page:
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        await expect(page.locator("#policy-page")).to_be_visible()


async def test_dialogs_take_and_give_back_the_focus(browser: Browser, shown: Shown) -> None:
    async with looking(browser, f"{shown.url}/console/") as page:
        await page.locator("#unlock").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#token")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("#unlock")).to_be_focused()


async def test_news_is_announced_and_motion_can_be_off(browser: Browser, shown: Shown) -> None:
    shown.target.push(record(1))
    url = f"{shown.url}/console/#suspicious"
    async with looking(browser, url, reduced_motion="reduce") as page:
        await filled_one(page)
        await expect(page.locator("#heard")).to_have_attribute("aria-live", "polite")
        await expect(page.locator("#connection")).to_have_attribute("role", "status")
        name = "getComputedStyle(document.querySelector('.record')).animationName"
        assert await page.evaluate(name) == "none"


async def filled_one(page: Page) -> None:
    await expect(page.locator(".record")).to_have_count(1)
