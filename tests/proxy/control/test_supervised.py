"""The control API of real processes, alone and with workers, over real traffic."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from proxy.cli import main
from proxy.control.policy_file import digest_of
from proxy.pb.breakwater.v1 import control_pb2 as pb
from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.control.ports import TOKEN, call, refusal, token_file, watch
from tests.proxy.running import LIMIT_S, ask, until
from tests.proxy.test_cli import Process, served
from tuning.triton import EmbeddedTriton

MODEL = "digits_like"
WORKERS = [1, 2]
ODD = tampered(benign(1, seed=77))


@dataclass
class Scene:
    """A `breakwater serve`, its control port, its clients."""

    process: Process
    path: Path
    control: grpc.aio.Channel
    data: grpc.aio.Channel
    workers: int
    codes: list[grpc.StatusCode] = field(default_factory=list)

    async def ask(self, name: str, request_: Any) -> Any:
        return await call(self.control, name, request_, token=TOKEN, timeout=60.0)

    async def set(self, text: str) -> Any:
        return await self.ask("SetPolicy", pb.SetPolicyRequest(text=text))

    async def infer(self) -> grpc.StatusCode:
        return (await ask(self.data, "ModelInfer", request(MODEL, ODD))).code

    async def all_ready(self) -> bool:
        return f'"workers_ready": {self.workers}' in (await self.process.get("/ready"))[1]

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Requests one after the other, all the while; `codes` has how they ended."""
        done = asyncio.Event()

        async def run() -> None:
            while not done.is_set():
                self.codes.append(await self.infer())

        running = asyncio.ensure_future(run())
        try:
            yield
        finally:
            done.set()
            await running

    def a_worker(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    async def http(self, method: str, path: str, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"http://{self.process.admin}{path}", headers=headers
            ) as response,
        ):
            return response.status


@asynccontextmanager
async def scene(
    triton: EmbeddedTriton, calibrations: Path, folder: Path, workers: int
) -> AsyncIterator[Scene]:
    models = settings_of(calibrations, {MODEL: {"fpr": 0.05, "action": "flag"}})
    control = {"listen": "127.0.0.1:0", "token_file": str(token_file(folder))}
    document = json.loads(json.dumps({"models": models, "control": control}, default=str))
    path = folder / "breakwater.yaml"
    path.write_text("# Mine.\n" + yaml.safe_dump(document))
    arguments = ("--config", str(path), "--workers", str(workers))
    async with served(triton.grpc_address, *arguments) as (process, data):
        address = (await process.says(r"control on (\S+)$")).group(1)
        async with grpc.aio.insecure_channel(address) as channel:
            found = Scene(process, path, channel, data, workers)
            await until(found.all_ready, limit_s=30)
            yield found


@pytest.mark.triton
@pytest.mark.parametrize("workers", WORKERS)
async def test_policies_change_under_traffic_and_no_request_is_lost(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, workers: int
) -> None:
    async with scene(triton, calibrations, tmp_path, workers) as subject:
        text = subject.path.read_text()
        policy = await subject.ask("GetPolicy", pb.GetPolicyRequest())
        assert (policy.text, policy.in_force) == (text, True)
        async with subject.traffic():
            for fpr in ("0.02", "0.04"):
                change = pb.ChangePolicyRequest(model=MODEL, settings={"fpr": fpr})
                answer = await subject.ask("ChangePolicy", change)
                assert answer.applied, list(answer.problems)
                assert next(iter(answer.changes)).endswith(f"-> {fpr}")
            assert (await subject.ask("RollbackPolicy", pb.RollbackPolicyRequest())).applied
        assert set(subject.codes) == {grpc.StatusCode.OK}
        assert len(subject.codes) > 3
        policy = await subject.ask("GetPolicy", pb.GetPolicyRequest())
        assert policy.in_force
        assert policy.text == text.replace("fpr: 0.05", "fpr: 0.02")
        assert policy.text.startswith("# Mine.\n")


@pytest.mark.triton
@pytest.mark.parametrize("workers", WORKERS)
async def test_a_dry_run_finds_what_a_reload_would_refuse(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, workers: int
) -> None:
    async with scene(triton, calibrations, tmp_path, workers) as subject:
        text = subject.path.read_text()
        for settings, said in (
            ({"calibration": "nowhere"}, "nowhere"),
            ({"detectors": "[{name: strip}]"}, "strip"),
            ({"detectors": "[{name: no_such}]"}, "no_such"),
            ({"fpr": "1.0e-9"}, "a false-positive rate of 1e-09 needs"),
        ):
            change = pb.ChangePolicyRequest(model=MODEL, settings=settings, dry_run=True)
            problems = (await subject.ask("ChangePolicy", change)).problems
            assert said in "\n".join(problems), settings
            change.dry_run = False
            answer = await subject.ask("ChangePolicy", change)
            assert (list(answer.problems), answer.applied) == (list(problems), False)
        restart = await subject.set(text + "drain_seconds: 7\nupstream: 127.0.0.1:1\n")
        assert restart.applied
        assert list(restart.restart) == ["drain_seconds"]  # upstream is the command line's
        await subject.set(text)
        assert await subject.infer() is grpc.StatusCode.OK


@pytest.mark.triton
@pytest.mark.parametrize("workers", WORKERS)
async def test_verdicts_are_seen_and_labelled(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, workers: int
) -> None:
    async with scene(triton, calibrations, tmp_path, workers) as subject:
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        watching = watch(
            subject.control, pb.WatchVerdictsRequest(everything=True), metadata=metadata
        )
        await asyncio.wait_for(watching.initial_metadata(), LIMIT_S)
        async with subject.traffic():
            seen = await asyncio.wait_for(watching.read(), LIMIT_S)
        assert (seen.model, seen.verdict) == (MODEL, "suspicious")
        assert set(seen.p_values) == set(seen.scores) != set()
        listed = await subject.ask("ListSuspicious", pb.ListSuspiciousRequest(limit=1000))
        assert seen.id in [record.id for record in listed.records]
        await subject.ask("LabelRequest", pb.Label(id=seen.id, label="benign"))
        listed = await subject.ask("ListSuspicious", pb.ListSuspiciousRequest(limit=1000))
        labels = {record.id: record.label for record in listed.records}
        assert labels[seen.id] == "benign"
        kept = await subject.ask("GetScores", pb.GetScoresRequest(model=MODEL))
        assert json.loads(kept.text)["columns"]["fused"]
        asked = pb.ExploreRequest(model=MODEL, candidate_json='{"fpr": 0.2}')
        assert len(json.loads((await subject.ask("Explore", asked)).text)["fprs"]) == 60
        bad = pb.ExploreRequest(model=MODEL, candidate_json='{"detectors": ["no_such"]}')
        assert (await refusal(subject.ask("Explore", bad)))[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.triton
@pytest.mark.parametrize("workers", WORKERS)
async def test_the_admin_port_asks_for_the_token_too(
    triton: EmbeddedTriton,
    calibrations: Path,
    tmp_path: Path,
    workers: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with scene(triton, calibrations, tmp_path, workers) as subject:
        for path in ("/", "/metrics", "/live", "/ready"):
            assert await subject.http("GET", path) == 200
        for method, path in (
            *(("GET", "/config"), ("GET", "/history"), ("GET", "/records"), ("GET", "/policy")),
            *(("POST", "/reload"), ("POST", "/history/clear?all=1"), ("POST", "/policy/check")),
        ):
            assert await subject.http(method, path) == 401, path
            assert await subject.http(method, path, "wrong-wrong-wrong-wrong") == 401, path
            assert await subject.http(method, path, TOKEN) == 200, path
        history = ["history", "--admin", subject.process.admin]
        assert await asyncio.to_thread(main, history) == 1
        token = str(tmp_path / "token")
        assert await asyncio.to_thread(main, [*history, "--token-file", token]) == 0
        assert "Give the token with --token-file" in capsys.readouterr().err
        assert await subject.http("POST", "/drain") == 401
        assert (await subject.ask("Drain", pb.DrainRequest())).draining
        assert await subject.process.ended() == 0


@pytest.mark.triton
async def test_a_worker_that_is_away_is_told_and_catches_up(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    async with scene(triton, calibrations, tmp_path, 2) as subject:
        os.kill(subject.a_worker(), signal.SIGKILL)
        await subject.process.says("ended with code -9")
        policy = await subject.ask("GetPolicy", pb.GetPolicyRequest())
        assert (policy.in_force, policy.refusal) == (False, "1 of 2 workers do not answer")
        await until(subject.all_ready, limit_s=30)
        text = subject.path.read_text().replace("fpr: 0.05", "fpr: 0.03")
        assert (await subject.set(text)).applied
        policy = await subject.ask("GetPolicy", pb.GetPolicyRequest())
        assert (policy.in_force, policy.digest) == (True, digest_of(text))
