"""Builds the wheel so that anybody who builds it from the same commit gets the same bytes.

    .venv/bin/python deploy/supply/wheel.py [FOLDER]

The time in the archive is the commit's; `pip` and `setuptools` are those of this environment.
Prints the SHA-256 and the file's name, as `sha256sum` does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, folder: Path, *, epoch: str) -> Path:
    """Build the wheel of a source tree into a folder and return its path.

    Args:
        source: left as it is: setuptools would take up what an earlier build left in `build/`.
        epoch: seconds since 1970 that the archive's members carry (SOURCE_DATE_EPOCH).

    Raises:
        subprocess.CalledProcessError: it cannot be built; the reason is on standard error.
    """
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        clean = Path(scratch) / "source"
        clean.mkdir()
        for name in _tracked(source):
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, clean / name)
            (clean / name).chmod(0o644)
        subprocess.run(
            [*command, "--no-build-isolation", "--wheel-dir", str(folder), str(clean)],
            env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
            check=True,
            umask=0o022,  # the archive has the files' modes
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _tracked(source: Path) -> list[str]:
    return _git(source, "ls-files").splitlines()


def _git(source: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(source), *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    made = build(ROOT, target, epoch=_git(ROOT, "log", "-1", "--format=%ct"))
    print(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  {made}")
