"""The console's pictures in docs/, taken anew: the demo's digits, evaluated, with traffic.

Usage: python -m loadtests.console_pictures [--out docs]   (needs Triton's wheel and Chromium)
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from loadtests import digits_scene
from loadtests.digits_scene import CHROMIUM, Digits
from loadtests.harness import CHECKOUT
from loadtests.sidecar import BREAKWATER
from tuning.demo import digits
from tuning.demo.sidecar import Sidecar

PATIENCE_MS = 60_000
CLEAN_ROUNDS = 12
COLOURS = 256
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
SOURCE = "digits of scikit-learn (UCI, Alpaydin and Kaynak)"


def main() -> int:
    """Take the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs", metavar="DIR")
    out = parser.parse_args().out
    with (
        tempfile.TemporaryDirectory() as folder,
        digits_scene.served(Path(folder)) as scene,
    ):
        evaluate(scene)
        with scene.defended() as sidecar, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            take(browser, scene, sidecar, out)
            browser.close()
    return 0


def evaluate(scene: Digits) -> None:
    """Run `breakwater evaluate`, so that the explorer has attacks to show.

    Raises:
        RuntimeError: it failed; the text is its own.
    """
    out = scene.folder / "evaluation"
    command = [BREAKWATER, "evaluate", "--config", str(scene.config), "--model", digits.MODEL]
    command += ["--data", str(scene.folder / "test.npz"), "--model-file", str(scene.network)]
    command += ["--threats", "oblivious", "adaptive", "--quick", "--source", SOURCE]
    ran = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"breakwater evaluate: {(ran.stdout + ran.stderr)[-2000:]}")
    scene.settle(evaluation=str(out))


def take(browser: Browser, scene: Digits, sidecar: Sidecar, out: Path) -> None:
    """Traffic with attacks in it, and a picture of each of three sections."""
    base = f"http://{sidecar.admin}/console/"
    overview = opened(browser, f"{base}#overview", scene.token, viewport=DESKTOP)
    for _ in range(CLEAN_ROUNDS):
        digits_scene.send(sidecar, scene.kinds[0])
    for kind in scene.kinds[1:]:
        digits_scene.send(sidecar, kind, 5)
    overview.locator("#latency-table td").first.wait_for()
    overview.wait_for_timeout(2_000)  # its scrapes are that far apart
    shoot(overview, out / "console-overview.png", full_page=True)
    phone = opened(
        browser, f"{base}#suspicious", scene.token, viewport=PHONE, device_scale_factor=2
    )
    phone.locator(".record .thumbnail").first.wait_for()
    shoot(phone, out / "console-suspicious-phone.png", full_page=False)
    dark = opened(browser, f"{base}#thresholds", scene.token, viewport=DESKTOP, color_scheme="dark")
    compare(dark)
    shoot(dark, out / "console-thresholds.png", full_page=True)


def shoot(page: Page, path: Path, *, full_page: bool) -> None:
    """Take one picture, without the mark of the focus, in few enough colours to be small."""
    page.evaluate("document.activeElement.blur()")
    taken = page.screenshot(full_page=full_page)
    with Image.open(io.BytesIO(taken)) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def opened(browser: Browser, url: str, token: str, **options: object) -> Page:
    """A page with the token given."""
    context = browser.new_context(reduced_motion="reduce", **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.locator("#unlock").click()
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")
    page.locator("#connection:empty").wait_for(state="attached")
    return page


def compare(page: Page) -> None:
    """Drag the slider a little, and hold another policy against the one in force."""
    page.locator("#explorer-chart svg").first.wait_for()
    page.locator("#subset input").first.uncheck()
    page.locator("#compare button[type=submit]").click()
    page.locator("#apply-candidate").wait_for()
    for _ in range(4):
        page.locator("#fpr").press("ArrowRight")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # the chart's line follows after a frame


if __name__ == "__main__":
    sys.exit(main())
