"""The words between the event loop and the device thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from proxy.case import IDENTITY
from purifiers import PURIFIERS


def test_the_event_loops_side_needs_no_torch() -> None:
    code = "import proxy.case, proxy.evidence, sys; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "False"


def test_no_view_can_be_taken_for_the_unchanged_copy() -> None:
    assert IDENTITY not in {purifier().key for purifier in PURIFIERS.values()}
    assert IDENTITY not in PURIFIERS
