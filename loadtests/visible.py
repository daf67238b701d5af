"""How long until a flagged request can be seen: over gRPC, over HTTP, and on the page in a browser.

Usage: python -m loadtests.visible [--json FILE] [--quick]   (needs Triton's wheel and Chromium)

Timed from before a request is sent until its record has been received by WatchVerdicts and by
/api/watch, and until the browser has painted its row; inference is part of it. The three follow at
the same time, and a request is sent when all have seen the one before.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from playwright.sync_api import Page, sync_playwright

from loadtests import digits_scene
from loadtests.console_pictures import DESKTOP, opened
from loadtests.digits_scene import CHROMIUM, Digits
from loadtests.harness import Report, median, options, warn_if_busy
from proxy.pb.breakwater.v1 import control_pb2 as pb
from tuning.demo import traffic
from tuning.demo.sidecar import Sidecar

SAMPLES = 30
PATIENCE_S = 30.0
GOAL = "<= 2"
"""Seconds."""

WAITING = """() => { window.seen = new Promise((resolve) => {
  const observer = new MutationObserver(() => {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.timeOrigin
      + performance.now())));
  });
  observer.observe(document.getElementById('records'), { childList: true });
}); }"""
"""Answers with the time after the frame with the next row has been painted, Unix milliseconds."""

Seen = queue.SimpleQueue[float]


def main() -> int:
    """Measure with one worker and with two; returns the exit status."""
    parsed = options(__doc__).parse_args()
    warn_if_busy()
    report = Report("Until a flagged request is visible")
    samples = 5 if parsed.quick else SAMPLES
    with tempfile.TemporaryDirectory() as folder, digits_scene.served(Path(folder)) as scene:
        for workers in (1, 2):
            with scene.defended(workers) as sidecar:
                for way, taken in measure(scene, sidecar, samples).items():
                    where: dict[str, str | int] = {"way": way, "workers": workers}
                    where["samples"] = len(taken)
                    report.figure("median until visible, s", median(taken), GOAL, **where)
                    report.figure("longest until visible, s", max(taken), GOAL, **where)
    return report.finish(parsed.json)


def measure(scene: Digits, sidecar: Sidecar, samples: int) -> dict[str, list[float]]:
    """Seconds until visible, by way."""
    images = list(scene.kinds[-1].x)
    flagged = [
        image
        for image, (verdict, _) in zip(
            images, traffic.verdicts(sidecar.address, images), strict=True
        )
        if verdict != "pass"
    ]
    client = traffic.Client(sidecar.address, None)
    taken: dict[str, list[float]] = {"WatchVerdicts": [], "/api/watch": [], "Chromium": []}
    with following(scene, sidecar) as (over_grpc, over_http, page):
        for i in range(samples):
            page.evaluate(WAITING)
            before = time.time()
            client.classify(flagged[i % len(flagged)])
            taken["WatchVerdicts"].append(over_grpc.get(timeout=PATIENCE_S) - before)
            taken["/api/watch"].append(over_http.get(timeout=PATIENCE_S) - before)
            taken["Chromium"].append(page.evaluate("window.seen") / 1000 - before)
    client.close()
    return taken


@contextlib.contextmanager
def following(scene: Digits, sidecar: Sidecar) -> Iterator[tuple[Seen, Seen, Page]]:
    """All three follow; what was there before has been shown."""
    log = (scene.folder / "breakwater.log").read_text()
    told = re.search(r"control on (\S+)", log)
    if told is None:
        raise RuntimeError("the sidecar has no control port")
    authorization = f"Bearer {scene.token}"
    with (
        grpc.insecure_channel(told.group(1)) as channel,
        contextlib.closing(http.client.HTTPConnection(sidecar.admin)) as connection,
        sync_playwright() as playwright,
    ):
        over_grpc = _over_grpc(channel, authorization)
        over_http = _over_http(connection, authorization)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        url = f"http://{sidecar.admin}/console/#suspicious"
        page = opened(browser, url, scene.token, viewport=DESKTOP)
        page.locator("#following.good").wait_for()
        page.locator(".record").first.wait_for()
        try:
            yield over_grpc, over_http, page
        finally:
            connection.sock.shutdown(socket.SHUT_RDWR)  # ends the thread's reading
            browser.close()


def _over_grpc(channel: grpc.Channel, authorization: str) -> Seen:
    call = channel.unary_stream(
        "/breakwater.v1.Control/WatchVerdicts",
        request_serializer=pb.WatchVerdictsRequest.SerializeToString,
        response_deserializer=pb.Record.FromString,
    )(pb.WatchVerdictsRequest(), metadata=(("authorization", authorization),))
    call.initial_metadata()  # it follows now

    def run(seen: Seen) -> None:
        with contextlib.suppress(grpc.RpcError):  # the channel was closed
            for _ in call:
                seen.put(time.time())

    return _noting(run)


def _over_http(connection: http.client.HTTPConnection, authorization: str) -> Seen:
    connection.request("GET", "/api/watch", headers={"Authorization": authorization})
    response: Any = connection.getresponse()
    response.readline()  # blank: it follows now

    def run(seen: Seen) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # it was shut down
            while line := response.readline():
                if line.strip():
                    json.loads(line)
                    seen.put(time.time())

    return _noting(run)


def _noting(run: Callable[[Seen], None]) -> Seen:
    seen: Seen = queue.SimpleQueue()
    threading.Thread(target=run, args=(seen,), daemon=True).start()
    return seen


if __name__ == "__main__":
    sys.exit(main())
