"""`breakwater policy`, `watch`, `suspicious` and `label` against a real control port."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.control.policy_file import digest_of
from tests.proxy.control.ports import POLICY, TOKEN, Certificates, Port, port, token_file
from tests.proxy.control.target import RECORD
from tests.proxy.running import until

NEW = POLICY.replace("0.01", "0.02")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Port]:
    async with port(tmp_path, token_file=token_file(tmp_path)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


async def run(at: Port, *arguments: str, token: bool = True) -> int:
    """The command's exit status."""
    known = ["--token-file", str(at.target.path.parent / "token")] if token else []
    line = [*arguments, "--control", at.address, *known]
    return await asyncio.to_thread(main, line)


async def test_show_prints_the_text_to_the_byte(
    guarded: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(guarded, "policy", "show") == 0
    out, err = capsys.readouterr()
    assert out == POLICY
    assert "in force, generation 1" in err
    assert await run(guarded, "policy", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest_of(POLICY)


async def test_set_change_and_roll_back(
    guarded: Port, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh.yaml"
    fresh.write_text(NEW + "drain_seconds: 1\n")
    assert await run(guarded, "policy", "set", str(fresh), "--dry-run") == 0
    out = capsys.readouterr().out
    assert "cnn.fpr: 0.01 -> 0.02" in out
    assert "Only a restart puts these in force: drain_seconds." in out
    assert "This is a dry run" in out
    assert guarded.target.path.read_text() == POLICY
    assert await run(guarded, "policy", "change", "cnn", "fpr=0.02", "mode=enforce") == 0
    assert "In force. Digest" in capsys.readouterr().out
    assert guarded.target.running.models["cnn"].mode == "enforce"
    assert await run(guarded, "policy", "rollback", "--json") == 0
    assert json.loads(capsys.readouterr().out)["applied"] is True
    assert guarded.target.path.read_text() == POLICY
    assert await run(guarded, "policy", "set", str(fresh), "--if-digest", "0" * 64) == 1
    assert "the policy has changed meanwhile" in capsys.readouterr().err


async def test_problems_are_told_with_their_places(
    guarded: Port, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh.yaml"
    fresh.write_text("models:\n  cnn: {fprr: 1}\n")
    assert await run(guarded, "policy", "set", str(fresh)) == 1
    out = capsys.readouterr().out
    assert "policy.yaml:2:9: models.cnn.fprr: unknown key; did you mean 'fpr'?" in out
    assert "Nothing was changed." in out
    assert await run(guarded, "policy", "set", str(tmp_path / "none.yaml")) == 2
    assert "cannot be read" in capsys.readouterr().err


async def test_the_token_may_come_from_the_environment(
    guarded: Port, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(guarded, "policy", "show", token=False) == 1
    assert "Give the token with --token-file" in capsys.readouterr().err
    monkeypatch.setenv("BREAKWATER_TOKEN", TOKEN)
    assert await run(guarded, "policy", "show", token=False) == 0
    monkeypatch.setenv("BREAKWATER_TOKEN", "é")
    assert await run(guarded, "policy", "show", token=False) == 2
    assert "holds no token" in capsys.readouterr().err


async def test_without_a_token_it_says_how_to_configure_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with port(tmp_path) as opened:
        assert await run(opened, "label", "r1:0", "benign", token=False) == 1
    assert "set control.token_file in the configuration" in capsys.readouterr().err


async def test_where_nobody_answers_it_says_how_to_turn_it_on(
    guarded: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    await guarded.host.stop()
    assert await run(guarded, "suspicious") == 1
    err = capsys.readouterr().err
    assert "with a `control:` section in its configuration" in err
    assert "Connection refused" in err


async def test_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates = Certificates(tmp_path / "certificates")
    server, alice = certificates.server, certificates.client
    settings = {"cert_file": server, "key_file": certificates.key_of(server)}
    async with port(tmp_path, **settings, client_ca_file=certificates.authority) as opened:
        ours = ("--cert", str(alice), "--key", str(certificates.key_of(alice)))
        known = ("--ca", str(certificates.authority))
        assert await run(opened, "policy", "show", *known, *ours, token=False) == 0
        name = ("--server-name", "localhost")
        assert await run(opened, "policy", "show", *known, *ours, *name, token=False) == 0
        assert await run(opened, "policy", "show", *known, token=False) == 1
        assert await run(opened, "policy", "show", token=False) == 1
        assert "--cert and --key where" in capsys.readouterr().err
        assert await run(opened, "policy", "show", *known, *ours[:2], token=False) == 2
        assert "--cert and --key go together" in capsys.readouterr().err
        assert await run(opened, "policy", "show", "--ca", "none.pem", token=False) == 2
        assert "none.pem: No such file" in capsys.readouterr().err


async def test_suspicious_samples_are_listed_and_hostile_names_escaped(
    guarded: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(guarded, "suspicious") == 0
    out = capsys.readouterr().out
    assert "eve\\x1b[2J?" in out
    assert "chain of 3" in out
    assert "\x1b" not in out
    assert await run(guarded, "suspicious", "--model", "nn") == 0
    assert "Nothing suspicious of late." in capsys.readouterr().out
    assert await run(guarded, "suspicious", "--disagreements", "--json", "--limit", "5") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["id"], record["threshold"]) == ("r1:0", None)
    assert record["scores"] == {"margin": 0.5, "energy": None}


@pytest.mark.parametrize("as_json", [False, True])
async def test_watch_prints_a_line_each_until_the_server_stops(
    guarded: Port, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    options = ["--json"] if as_json else []
    running = asyncio.ensure_future(run(guarded, "watch", "--all", *options))
    guarded.target.told.put_nowait(RECORD)
    guarded.target.told.put_nowait({**RECORD, "id": "r2:0\x1b]0;x\x07"})

    async def all_told() -> bool:
        return guarded.target.told.empty()

    await until(all_told)
    await guarded.host.stop()
    assert await running == 1
    out, err = capsys.readouterr()
    assert "no answer" in err or "stopped" in err
    lines = out.splitlines()
    assert len(lines) == 2
    if as_json:
        assert [json.loads(line)["id"] for line in lines] == ["r1:0", "r2:0\x1b]0;x\x07"]
    else:
        assert re.match(r"\d\d:\d\d:\d\d  suspicious  cnn  3.5 of -  block  eve\\x1b", lines[0])
        assert "2.5 ms" in lines[0]
    assert "\x1b" not in out


async def test_labels(guarded: Port, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(guarded, "label", "r1:0", "adversarial") == 0
    assert guarded.target.labels == {"r1:0": "adversarial"}
    assert await run(guarded, "label", "r1:0", "none") == 0
    assert capsys.readouterr().out == "Noted.\nTaken back.\n"
    assert await run(guarded, "label", "r9:\\x1b0", "benign") == 1
    assert "there is no such sample" in capsys.readouterr().err
    assert guarded.target.labels["r9:\x1b0"] == "benign"  # named as it was printed


def test_what_is_not_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["policy"], ["policy", "change", "cnn"], ["policy", "change", "cnn", "fpr"]):
        with pytest.raises(SystemExit):
            main(line)
    assert "'fpr' is not KEY=VALUE" in capsys.readouterr().err
