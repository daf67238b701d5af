"""The section about cost: what remembering a query takes, in process and in Redis.

Each is measured in a process of its own: memory that this one has used and let go would be used
again, and not be seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests.harness import CHECKOUT, Report

_MODULES = {"in process": "memory", "Redis": "redis_cost"}


def measure(report: Report, *, is_quick: bool) -> None:
    """Add the rows of both; up to a million queries in either, unless it is to be quick.

    Raises:
        RuntimeError: a measurement failed; the text is the end of what it said.
    """
    for store, module in _MODULES.items():
        more = ["--quick"] if is_quick else ["--large"] if module == "redis_cost" else []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            command = [sys.executable, "-m", f"loadtests.query_attacks.{module}"]
            ran = subprocess.run(
                [*command, "--json", str(file), *more], cwd=CHECKOUT, capture_output=True, text=True
            )
            if not file.exists():
                raise RuntimeError(f"{module}: {(ran.stdout + ran.stderr)[-2000:]}")
            for row in json.loads(file.read_text())["rows"]:
                where = {} if "figure" in row else {"section": "memory", "store": store}
                report.add(**where, **row)
