"""The section `tracing` of the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy import configfile
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.watcher import needs_restart


def test_it_is_off_unless_the_section_is_there() -> None:
    assert Config().tracing is None
    tracing = Config.model_validate({"tracing": {}}).tracing
    assert tracing is not None
    assert (tracing.sample_ratio, tracing.parent_based, tracing.is_secure) == (0.01, True, False)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("127.0.0.1:4317", "http://127.0.0.1", "ftp://a:1", "http://:4317", "http://a:99999"),
        *("http://user:password@a:4317", "http://a:4317/v1/traces", "http://a:4317?x=1", ""),
        *("http://[::1", "http://a:b", "http://" + "a" * 600 + ":1"),
    ],
)
def test_an_endpoint_that_is_no_grpc_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"tracing": {"endpoint": endpoint}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_ratio": 1.01},
        {"sample_ratio": float("nan")},
        {"max_per_second": 0},
        {"max_per_second": float("inf")},
        {"queue": 1},
        {"service_name": ""},
        {"ca_file": "ca.pem"},
        {"insecure": True},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"tracing": wrong})


def test_files_are_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "breakwater.yaml"
    path.write_text("tracing: {endpoint: 'https://a:4317', ca_file: ca.pem, headers_file: keys}\n")
    tracing = configfile.load(path).tracing
    assert tracing is not None
    assert tracing.ca_file == tmp_path / "ca.pem"
    assert tracing.headers_file == tmp_path / "keys"


def test_an_unknown_field_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "breakwater.yaml"
    path.write_text("tracing:\n  endpoint: http://a:1\n  protocol: http\n")
    with pytest.raises(ConfigError, match=r"yaml:3.*protocol"):
        configfile.load(path)


def test_a_change_needs_a_restart() -> None:
    other = Config.model_validate({"tracing": {"sample_ratio": 0.5}})
    assert needs_restart(Config(), other) == ["tracing"]


def _run(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_a_server_without_tracing_loads_no_opentelemetry() -> None:
    code = (
        "import sys, proxy.cli, proxy.server\nfrom proxy.config import Config\nimport asyncio\n"
        "async def main(): proxy.server.Server(Config())\n"
        "asyncio.run(main())\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    assert _run(code) == "[]"


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys, asyncio, proxy.server\nfrom proxy.config import Config\n"
        "from proxy.errors import ConfigError\n"
        "sys.modules['opentelemetry'] = None\n"  # as if it were not installed
        "async def main():\n"
        "    try: proxy.server.Server(Config.model_validate({'tracing': {}}))\n"
        "    except ConfigError as error: print(error)\n"
        "asyncio.run(main())\n"
    )
    assert "pip install breakwater[tracing]" in _run(code)
