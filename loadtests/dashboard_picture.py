"""A picture of the Grafana dashboard, drawn from its own queries: this is no Grafana.

The demo's digits behind `breakwater serve`, some minutes of traffic with attacks in the middle and
another population at the end, scraped by a real Prometheus; each panel's queries are asked as
Grafana asks them, and drawn where the dashboard has the panel.

Usage: python -m loadtests.dashboard_picture [--out docs/dashboard.png] [--rows TITLE ...]
(needs Triton's wheel and Prometheus; takes about five minutes)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtests import dashboard_queries as queries
from loadtests import digits_scene
from loadtests.dashboard_panels import FAINT, INK, PAPER, Found, draw
from loadtests.dashboard_queries import Json, Prometheus, Span
from loadtests.harness import CHECKOUT
from loadtests.prometheus_server import PrometheusServer
from tuning.demo import traffic
from tuning.demo.sidecar import Sidecar

matplotlib.use("Agg")

ROWS = ("Overview", "p-value distributions", "Latency by stage", "Drift of the population")
"""What the picture in docs/ shows."""

SCRAPE_S, STEP_S = 2.0, 2
BENIGN_S, ATTACK_S, AFTER_S, SHIFTED_S = 60.0, 40.0, 30.0, 50.0
EVERY_S = 0.03
"""Between two requests."""
CELL_IN = (0.68, 0.3)
"""Width and height of a cell of the grid, inches."""
COLOURS = 128
NOTE = "Drawn by loadtests/dashboard_picture.py from the dashboard's queries: not Grafana."

Images = NDArray[np.float32]


def main() -> int:
    """Send, ask and draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "dashboard.png")
    parser.add_argument("--rows", nargs="*", default=ROWS, metavar="TITLE")
    chosen = parser.parse_args()
    board = queries.dashboard()
    with watched() as (prometheus, span):
        paint(board, prometheus, span, chosen.rows, chosen.out)
    return 0


@contextmanager
def watched() -> Iterator[tuple[Prometheus, Span]]:
    """A Prometheus that has seen the traffic, and when that was."""
    with tempfile.TemporaryDirectory() as name, digits_scene.served(Path(name), 200) as scene:
        scene.settle(drift={"windows": {"count": 600, "minutes": 1}, "on_alarm": "suspend"})
        with scene.defended() as sidecar:
            targets = {sidecar.admin: {"namespace": "demo", "pod": "triton-7c9d-x2x5k"}}
            with PrometheusServer(scene.folder, targets, scrape_s=SCRAPE_S) as server:
                prometheus = Prometheus(server.url)
                yield prometheus, send(sidecar, scene.kinds)


def send(sidecar: Sidecar, kinds: Sequence[traffic.Kind]) -> Span:
    """Benign, then with attacks, benign again, and then other pictures; return when it was."""
    rng = np.random.default_rng(3)
    benign = np.concatenate([kind.x for kind in kinds if kind.is_benign])
    attacks = np.concatenate([kind.x for kind in kinds if not kind.is_benign])
    shifted = np.clip(0.75 * benign + 0.2, 0, 1).astype(np.float32)
    phases = ((BENIGN_S, benign, 0.0), (ATTACK_S, benign, 0.25), (AFTER_S, benign, 0.0))
    client = traffic.Client(sidecar.address, None)
    started_s = time.time()
    for length_s, images, hostile in (*phases, (SHIFTED_S, shifted, 0.0)):
        until_s = time.monotonic() + length_s
        while time.monotonic() < until_s:
            among = attacks if rng.random() < hostile else images
            client.classify(among[rng.integers(len(among))])
            time.sleep(EVERY_S * rng.exponential())
    client.close()
    return Span(started_s + 5 * SCRAPE_S, time.time(), step_s=STEP_S, scrape_s=SCRAPE_S)


def paint(
    board: Json, prometheus: Prometheus, span: Span, titles: Sequence[str], out: Path
) -> None:
    """Draw rows of the dashboard into a file.

    Raises:
        ValueError: there is no such row, or a query is refused.
    """
    from matplotlib import pyplot

    offered = prometheus.choices(board, span)
    values = queries.everything(board, offered)
    rows = [each for each in sections(board) if each[0]["title"] in titles]
    if len(rows) != len(titles):
        raise ValueError(f"not all of these are rows of the dashboard: {', '.join(titles)}")
    lines = sum(height(each) for each in rows) + 1
    figure = pyplot.figure(figsize=(24 * CELL_IN[0], lines * CELL_IN[1]), facecolor=PAPER)
    figure.text(0.006, 1 - 0.7 / lines, f"{board['title']}    {NOTE}", color=FAINT, fontsize=9)
    top = 1.0
    for heading, *panels in rows:
        figure.text(0.006, 1 - (top + 0.7) / lines, f"v {heading['title']}", color=INK, fontsize=11)
        for panel in panels:
            for name, left, width in places(panel, offered):
                asked = values | ({"detector": name} if name else {})
                found: Found = [
                    (target, prometheus.series(target, asked, span))
                    for target in panel.get("targets", ())
                ]
                below = top + panel["gridPos"]["y"] - heading["gridPos"]["y"]
                axes = figure.add_axes(box(panel, left, width, below, lines))
                draw(axes, panel, found, panel["title"].replace("$detector", name))
                if panel["type"] in ("timeseries", "heatmap", "state-timeline"):
                    axes.set_xlim(span.start_s, span.end_s)
        top += height([heading, *panels])
    figure.savefig(out, dpi=90, facecolor=PAPER)
    with Image.open(out) as picture:
        reduced = picture.convert("RGB").quantize(COLOURS)
    reduced.save(out, optimize=True)


Box = tuple[float, float, float, float]


def box(panel: Json, left: float, width: float, below: float, lines: int) -> Box:
    """Where a panel's axes are in the figure, in shares of it: left, bottom, width, height.

    Args:
        panel: what is drawn.
        left: its left edge, columns of the grid.
        width: its width, columns of the grid.
        below: its upper edge, lines from the top of the figure.
        lines: how many lines the figure has.
    """
    tall = panel["gridPos"]["h"]
    foot = {"stat": 0.3, "text": 0.2}.get(panel["type"], 1.9)  # lines, for times and names
    margin, rest = (0.006, 0.01) if panel["type"] == "stat" else (0.034, 0.042)
    bottom = 1 - (below + tall - foot) / lines
    return left / 24 + margin, bottom, width / 24 - rest, (tall - foot - 0.9) / lines


def sections(board: Json) -> list[list[Json]]:
    """The rows, each with its panels behind it."""
    found: list[list[Json]] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            found.append([])
        found[-1].append(panel)
    return found


def height(row: Sequence[Json]) -> int:
    """How many lines of the grid a row and its panels take."""
    ends = [panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in row]
    return int(max(ends) - row[0]["gridPos"]["y"])


def places(panel: Json, offered: dict[str, list[str]]) -> list[tuple[str, float, float]]:
    """Value of the repeated variable, left edge and width of each copy of a panel."""
    if "repeat" not in panel:
        return [("", panel["gridPos"]["x"], panel["gridPos"]["w"])]
    names = offered[panel["repeat"]][: panel["maxPerRow"]]
    width = 24 / len(names)
    return [(name, i * width, width) for i, name in enumerate(names)]


if __name__ == "__main__":
    raise SystemExit(main())
