"""The section `capture`."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.capture.settings import Capture
from proxy.config import Config
from proxy.watcher import needs_restart


@pytest.mark.parametrize(
    "changed",
    [{"max_mb": 0}, {"keep_hours": 0}, {"share": 0}, {"share": 1.1}, {"inputs": "raw"}, {"s3": 1}],
)
def test_what_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Capture.model_validate({"folder": "x", **changed})


def test_it_is_off_by_default_and_wants_a_restart(tmp_path: Path) -> None:
    changed = Config.model_validate({"capture": {"folder": tmp_path}})
    assert Config().capture is None
    assert needs_restart(Config(), changed) == ["capture"]
