"""What a control host says at start of listeners that are open to the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config
from proxy.control.hosting import ControlHost
from proxy.errors import ConfigError
from tests.proxy.control.ports import POLICY, token_file
from tests.proxy.control.target import PolicyTarget


@pytest.mark.parametrize(
    ("admin", "with_token", "refused"),
    [("0.0.0.0:9090", False, True), ("0.0.0.0:9090", True, False), ("127.0.0.1:1", False, False)],
)
async def test_an_admin_port_open_to_the_network_without_a_token_is_refused(
    tmp_path: Path, admin: str, with_token: bool, refused: bool
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    control = {"token_file": str(token_file(tmp_path))} if with_token else None
    config = Config.model_validate({"admin": admin, "control": control})
    target = PolicyTarget(tmp_path / "policy.yaml")
    if refused:
        with pytest.raises(ConfigError, match=f"admin: {admin} is not on loopback"):
            ControlHost(target, config, None)
    else:
        await ControlHost(target, config, None).stop()
