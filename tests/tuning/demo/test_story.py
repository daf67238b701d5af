"""The demo end to end: what `make demo` shows, asserted."""

from __future__ import annotations

import itertools
import json
import re
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image

from proxy import configfile
from tuning.demo import digits, policy, run, story

pytestmark = [pytest.mark.triton, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "SEND", 60)
        assert run(folder, json_file=folder / "figures.json") == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> dict[str, dict[str, float]]:
    figures = json.loads((out / "figures.json").read_text())
    assert figures == json.loads((out / "results.json").read_text())
    return {row["traffic"]: row for row in figures["rows"]}


def test_benign_traffic_stays_right_and_mostly_quiet(rows: dict[str, dict[str, float]]) -> None:
    for name in ("clean", "noisy but benign"):
        assert rows[name]["accuracy_without"] > 0.9
        assert rows[name]["accuracy_with"] >= rows[name]["accuracy_without"] - 0.05
        assert rows[name]["flagged_low"] <= 0.02  # the rate it was calibrated to


def test_attacks_are_flagged_and_undone(rows: dict[str, dict[str, float]]) -> None:
    attacks = [row for row in rows.values() if not row["benign"]]
    assert len(attacks) == 4
    for row in attacks:
        assert row["flagged"] > 0.9
        assert row["accuracy_with"] > row["accuracy_without"]
    assert rows["PGD 0.1"]["accuracy_with"] > rows["PGD 0.1"]["accuracy_without"] + 0.3


def test_latency_is_measured_on_both_sides(rows: dict[str, dict[str, float]]) -> None:
    for row in rows.values():
        assert 0 < row["direct_p50_ms"] < row["breakwater_p50_ms"] <= row["breakwater_p99_ms"]


def test_leaves_a_picture_the_metrics_and_an_orderly_end(out: Path) -> None:
    with Image.open(out / "picture.png") as picture:
        assert min(picture.size) > 400
    metrics = (out / "metrics.txt").read_text()
    assert f'breakwater_samples_total{{model="{digits.MODEL}",verdict="suspicious"}}' in metrics
    log = (out / "breakwater.log").read_text()
    assert "draining, 0 in flight" in log
    assert re.search(r"console on http://127\.0\.0\.1:\d+/console/$", log, re.MULTILINE)


def test_the_console_can_be_tried_at_once(out: Path) -> None:
    config = configfile.load(out / "breakwater.yaml")
    assert config.control is not None
    token = out / policy.TOKEN_FILE
    assert config.control.token_file == token
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    first = token.read_text()
    policy.write(out, "127.0.0.1:1")
    assert token.read_text() != first
    assert len(first.strip()) >= 16


def test_the_parts_of_the_data_share_nothing() -> None:
    data = digits.load()
    parts = [{image.numpy().tobytes() for image in x} for x, _ in parts_of(data)]
    assert [len(x) for x, _ in parts_of(data)] == [800, 600, 397]
    for one, other in itertools.combinations(parts, 2):
        assert not one & other


def parts_of(data: digits.Digits) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [data.train, data.calibrate, data.test]
