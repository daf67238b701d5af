"""Reload: applied as a whole or not at all, and never from a half-written file."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from proxy.config import Config
from proxy.configfile import load
from proxy.errors import ConfigError
from proxy.watcher import RESTART_FIELDS, Watcher, needs_restart


class Scene:
    """A file, a watcher on it, and what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[int] = []
        self.generations: list[int] = []
        self.refused = 0
        self.error: Exception | None = None
        self.did_apply = asyncio.Event()
        self.watcher = Watcher(
            path,
            load(path),
            load=lambda: load(path),
            apply=self._apply,
            on_applied=self.generations.append,
            on_refused=self._on_refused,
            poll_s=0.001,
        )

    async def _apply(self, config: Config) -> None:
        if self.error is not None:
            raise self.error
        self.applied.append(config.max_in_flight)
        self.did_apply.set()

    def _on_refused(self) -> None:
        self.refused += 1

    def write(self, text: str) -> None:
        """Replace the file as editors do: the inode changes, whatever the clock's resolution."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    (tmp_path / "c.yaml").write_text("max_in_flight: 1\n")
    return Scene(tmp_path / "c.yaml")


async def test_a_change_is_applied_once_it_is_quiet(scene: Scene) -> None:
    await scene.watcher.poll()
    assert scene.applied == []
    scene.write("max_in_flight: 2\n")
    await scene.watcher.poll()
    assert scene.applied == []  # it may still be being written
    await scene.watcher.poll()
    await scene.watcher.poll()
    assert scene.applied == [2]
    assert scene.generations == [1, 2]
    assert scene.watcher.config.max_in_flight == 2


async def test_an_invalid_file_is_refused_once_and_the_old_one_kept(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.write("max_in_flight: -2\n")
    for _ in range(4):
        await scene.watcher.poll()
    assert (scene.refused, scene.applied, scene.generations) == (1, [], [1])
    assert scene.watcher.config.max_in_flight == 1
    assert "c.yaml:1:16: max_in_flight" in caplog.text
    scene.write("max_in_flight: 3\n")
    for _ in range(2):
        await scene.watcher.poll()
    assert scene.applied == [3]


@pytest.mark.parametrize("error", [ConfigError("stale calibration"), RuntimeError("a defect")])
async def test_what_cannot_be_applied_is_rolled_back(scene: Scene, error: Exception) -> None:
    scene.error = error
    assert not await scene.watcher.reload()
    assert scene.watcher.config.max_in_flight == 1
    assert (scene.refused, scene.watcher.generation) == (1, 1)
    scene.error = None
    assert await scene.watcher.reload()
    assert scene.watcher.generation == 2


async def test_a_missing_file_keeps_the_old_configuration(scene: Scene) -> None:
    scene.path.unlink()
    for _ in range(3):
        await scene.watcher.poll()
    assert (scene.refused, scene.applied) == (1, [])


async def test_a_configmap_swap_is_seen(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"v{version}").mkdir()
        (tmp_path / f"v{version}" / "c.yaml").write_text(f"max_in_flight: {version}\n")
        os.utime(tmp_path / f"v{version}" / "c.yaml", ns=(0, 0))
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "c.yaml").symlink_to("data/c.yaml")
    scene = Scene(tmp_path / "c.yaml")
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(tmp_path / "data")
    for _ in range(2):
        await scene.watcher.poll()
    assert scene.applied == [2]


async def test_fields_bound_at_start_keep_their_value_and_are_reported(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.write("max_in_flight: 5\nlisten: 127.0.0.1:1\n")
    with caplog.at_level(logging.WARNING):
        assert await scene.watcher.reload()
    assert scene.applied == [5]
    assert scene.watcher.config.listen == Config().listen
    assert "only a restart applies: listen" in caplog.text


async def test_run_polls_and_answers_requests(scene: Scene) -> None:
    running = asyncio.ensure_future(scene.watcher.run())
    scene.write("max_in_flight: 7\n")
    await scene.did_apply.wait()
    scene.did_apply.clear()
    scene.watcher.request()  # applies again although nothing changed: calibrations may have
    await scene.did_apply.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.applied == [7, 7]


def test_needs_restart_names_the_fields() -> None:
    changed = Config(listen="a:1", device="cpu", max_in_flight=3)
    assert needs_restart(Config(), changed) == ["listen", "device"]
    assert set(RESTART_FIELDS) <= set(Config.model_fields)
