"""The scene and the sections for real: Triton, calibration, a sidecar, attackers and others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from loadtests.harness import Report
from loadtests.query_attacks import ordinary
from loadtests.query_attacks.runs import Attack
from loadtests.query_attacks.scene import Scene, Site
from loadtests.query_attacks.stage import QUICK, Stage
from loadtests.query_attacks.suite import SUITE
from tests.loadtests.query_attacks.victims import untrained
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

SIZES = replace(QUICK, independent=10, sequences=1, frames=2, static=2)
BUDGET = 20


@pytest.fixture(scope="module")
def stage(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A calibrated scene, less exact than the study's. (The fixture triton skips without one.)"""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    progress = Progress(console=Console(quiet=True))
    with Scene(tmp_path_factory.mktemp("scene"), untrained(), fpr=0.2) as scene:
        made = Stage(scene, SIZES, Report("test"), progress)
        made.set_up()
        yield made
    torch.set_num_threads(threads)


def _square(stage: Stage, site: Site, *, is_sybil: bool = False) -> None:
    plan = replace(SUITE["square"], budget=BUDGET)
    spec = Attack("square", lambda identities: plan, is_sybil)
    runs = stage.attacked(spec, stage.targets(0), 2, site, lambda: None, undefended=True)
    stage.searches("detect", "square", runs)
    for run in runs:
        assert run.queries <= BUDGET
        assert (run.detected_at > 0) == (run.alarms > 0)
        assert run.undefended_at is not None


def test_attackers_and_others(stage: Stage) -> None:
    with stage.scene.site(action="block") as site:
        _square(stage, site)
    ordinary.benign_traffic(stage)
    rows = stage.report.rows
    assert rows[0]["section"] == "set up"
    assert [row["attack"] for row in rows if "detected_at" in row] == ["square"]
    figures = {str(row["figure"]): row for row in rows if "figure" in row}
    assert set(figures) >= {"false alarms, independent, %", "false alarms, similar, %"}
    assert figures["false alarms, independent, %"]["of"] == 4 * SIZES.independent


def test_sidecars_that_share_their_history_are_asked_in_turn(stage: Stage) -> None:
    image = next(stage.targets(50)).clean
    with stage.scene.site(2, action="block") as site, site.oracle() as oracle:
        for step in range(4):
            oracle.ask(image.clip(0, 1 - step / 100))
        assert site.count("breakwater_requests_total") == oracle.queries == 4
        assert len({*site.addresses}) == 2
