"""What can happen to disks, the configuration and the calibration."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from loadtests.chaos.fault import Fault
from loadtests.chaos.meanwhile import again_and_again
from loadtests.chaos.scene import Scene
from loadtests.soak.traffic import PURIFYING, REFUSING

_KEPT = "refused and logged; the old policy stays in force, everything is judged"
_RELOAD_S = 3.0


@contextlib.asynccontextmanager
async def _full(scene: Scene, *, folder: str) -> AsyncIterator[None]:
    """No byte more fits on the file system."""
    place = scene.inside(scene.folder / folder) / "filler"
    with place.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    try:
        yield
    finally:
        place.unlink()


@contextlib.asynccontextmanager
async def _small_files(scene: Scene) -> AsyncIterator[None]:
    """No file may grow any more: what a quota does."""
    pids = scene.workers
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[pid][1]))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before[pid])


@contextlib.asynccontextmanager
async def _stuck_audit(scene: Scene) -> AsyncIterator[None]:
    """The audit file becomes a pipe that nobody empties: a disk that does not answer."""
    place = scene.inside(scene.disk) / "audit.jsonl"
    kept = place.with_name("audit.kept")
    place.rename(kept)
    os.mkfifo(place)
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield
    finally:
        kept.rename(place)
        os.close(reader)


@contextlib.asynccontextmanager
async def _configured(scene: Scene, *, spoil: Callable[[Path], None]) -> AsyncIterator[None]:
    spoil(scene.config)
    try:
        yield
    finally:
        if scene.config.is_dir():
            scene.config.rmdir()
        scene.write()


@contextlib.asynccontextmanager
async def _to_and_fro(scene: Scene) -> AsyncIterator[None]:
    """Spoiled and whole, twenty times a second, each in place and in one step."""
    spoil = partial(scene.config.write_text, "models: {")
    try:
        async with again_and_again((lambda: spoil() and None, 0.05), (scene.write, 0.05)):
            yield
    finally:
        scene.write()


@contextlib.asynccontextmanager
async def _hangups(scene: Scene) -> AsyncIterator[None]:
    """A SIGHUP to everybody, two hundred times a second."""

    def hang_up() -> None:
        for pid in (scene.sidecar.pid, *scene.workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    async with again_and_again((hang_up, 0.005)):
        yield


def _calibration(scene: Scene, model: str = PURIFYING) -> Path:
    return Path(scene.settings["models"][model]["calibration"])


@contextlib.asynccontextmanager
async def _calibrated(scene: Scene, *, spoil: Callable[[Scene], None]) -> AsyncIterator[None]:
    """The calibration is spoiled, and everybody reads everything again."""
    place = _calibration(scene)
    kept = place.with_name("calibration-kept")
    shutil.copytree(place, kept)
    try:
        spoil(scene)
        os.kill(scene.sidecar.pid, signal.SIGHUP)
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)
        kept.rename(place)
        os.kill(scene.sidecar.pid, signal.SIGHUP)


def _truncate(scene: Scene) -> None:
    for file in _calibration(scene).iterdir():
        if file.is_file():
            with file.open("r+b") as each:
                each.truncate(file.stat().st_size // 2)


def _swap(scene: Scene) -> None:
    shutil.rmtree(_calibration(scene))
    shutil.copytree(_calibration(scene, REFUSING), _calibration(scene))


def _tear(scene: Scene) -> None:
    """Other numbers in its tensors: what is read in the middle of a replacement."""
    for file in sorted(_calibration(scene).glob("**/*.safetensors")):
        body = bytearray(file.read_bytes())
        body[-64:] = bytes(each ^ 0x11 for each in body[-64:])
        file.write_bytes(body)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def faults(scene: Scene) -> list[Fault]:
    """All of them; those that this machine allows."""
    config: list[tuple[str, Callable[[Path], None]]] = [
        ("corrupted", lambda path: path.write_bytes(os.urandom(2000)) and None),
        ("emptied", lambda path: path.write_text("") and None),
        ("cut in half", lambda path: path.write_bytes(path.read_bytes()[:700]) and None),
        ("deleted", lambda path: path.unlink()),
        ("replaced by a folder", _directory),
    ]
    calibration: list[tuple[str, Callable[[Scene], None]]] = [
        ("missing", lambda each: shutil.rmtree(_calibration(each))),
        ("truncated", _truncate),
        ("of another model", _swap),
        ("torn: half of it replaced", _tear),
    ]
    lines = "audit lines are dropped and counted; requests see nothing; whole lines afterwards"
    found = [
        *(Fault(f"configuration {name}", _KEPT, partial(_configured, spoil=spoil), unready=False,
                metric="breakwater_config_reload_failures_total", lasts_s=_RELOAD_S)
          for name, spoil in config),
        Fault("configuration spoiled and whole in turn", _KEPT, _to_and_fro, unready=False),
        Fault("SIGHUP storm", "at most one reload at a time; requests see nothing", _hangups,
              unready=False),
        *(Fault(f"calibration {name}", _KEPT, partial(_calibrated, spoil=spoil), unready=False,
                metric="breakwater_config_reload_failures_total", lasts_s=_RELOAD_S)
          for name, spoil in calibration),
        Fault("file size limit (EFBIG)", lines, _small_files, unready=False,
              metric="breakwater_audit_dropped"),
        Fault("audit disk hangs", "requests see nothing; lines over the bound are dropped",
              _stuck_audit, unready=False),
    ]  # fmt: skip
    if scene.namespaced:
        found += [
            Fault("audit disk full", lines, partial(_full, folder="disk"), unready=False,
                  metric="breakwater_audit_dropped"),
            Fault("disk of temporary files full", "requests see nothing",
                  partial(_full, folder="tmp"), unready=False),
        ]  # fmt: skip
    return found
