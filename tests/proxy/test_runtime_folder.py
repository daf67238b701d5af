"""Folders of supervisors that live, that end, and that were killed."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from proxy.runtime_folder import runtime_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from proxy.runtime_folder import runtime_folder
with runtime_folder(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_private_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    with runtime_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "metrics").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_supervisor_left_goes_at_the_next_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with runtime_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder != left


def test_those_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "breakwater-of-somebody").mkdir()
    (tmp_path / "other").mkdir()
    with runtime_folder(tmp_path) as first, runtime_folder(tmp_path) as second:
        assert first.exists()
        assert second.exists()
        assert len(list(tmp_path.iterdir())) == 4
    assert len(list(tmp_path.iterdir())) == 2
