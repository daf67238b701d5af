"""What a control host says at start of listeners that are open to the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config
from proxy.control.hosting import ControlHost
from tests.proxy.control.ports import POLICY, token_file
from tests.proxy.control.target import PolicyTarget


@pytest.mark.parametrize(
    ("admin", "with_token", "warned"),
    [("0.0.0.0:9090", False, True), ("0.0.0.0:9090", True, False), ("127.0.0.1:1", False, False)],
)
async def test_an_admin_port_open_to_the_network_without_a_token_is_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    admin: str,
    with_token: bool,
    warned: bool,
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    control = {"token_file": str(token_file(tmp_path))} if with_token else None
    config = Config.model_validate({"admin": admin, "control": control})
    host = ControlHost(PolicyTarget(tmp_path / "policy.yaml"), config, None)
    assert (f"whoever reaches the admin port on {admin} can stop" in caplog.text) is warned
    await host.stop()
