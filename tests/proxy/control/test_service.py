"""The control port over real gRPC: who gets in, what is answered, and with which status."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from proxy.config import Config
from proxy.control.control import MAX_WATCHES
from proxy.control.hosting import ControlHost
from proxy.control.listener import MAX_ASK_BYTES
from proxy.control.policy_file import MAX_BYTES, digest_of
from proxy.control.service import READING
from proxy.errors import ConfigError
from proxy.pb.breakwater.v1 import control_pb2 as pb
from tests.proxy.control.ports import (
    LIMIT_S,
    POLICY,
    TOKEN,
    Certificates,
    Port,
    call,
    port,
    refusal,
    token_file,
    watch,
)
from tests.proxy.control.target import RECORD
from tests.proxy.running import until

SERVICE = pb.DESCRIPTOR.services_by_name["Control"]
UNARY = [m for m in SERVICE.methods if not m.server_streaming]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Port]:
    async with port(tmp_path, token_file=token_file(tmp_path)) as opened:
        yield opened


@pytest.fixture
async def channel(guarded: Port) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(guarded.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def request_of(method: Any) -> Any:
    return getattr(pb, method.input_type.name)()


async def ask(channel: grpc.aio.Channel, name: str, request: Any) -> Any:
    return await call(channel, name, request, token=TOKEN)


# -- who gets in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong-wrong-wrong-wrong", TOKEN[:-1]])
async def test_every_call_needs_the_token(
    guarded: Port, channel: grpc.aio.Channel, token: str | None
) -> None:
    for method in UNARY:
        code, text = await refusal(call(channel, method.name, request_of(method), token=token))
        assert code is StatusCode.UNAUTHENTICATED, method.name
        assert TOKEN not in text
    watching = watch(channel)
    assert await watching.code() is StatusCode.UNAUTHENTICATED
    assert not guarded.target.drained
    assert guarded.target.path.read_text() == POLICY


async def test_nothing_is_unpacked_for_whoever_has_not_shown_a_token(
    channel: grpc.aio.Channel,
) -> None:
    """Or a bomb would have its memory before it was asked for one."""
    policy = pb.SetPolicyRequest(text="#" * 100_000)
    asked = call(channel, "SetPolicy", policy, compression=grpc.Compression.Gzip)
    assert (await refusal(asked))[0] is StatusCode.UNIMPLEMENTED


async def test_two_tokens_are_none(channel: grpc.aio.Channel) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}"))
    asked = call(channel, "GetStatus", pb.GetStatusRequest(), metadata=metadata)
    assert (await refusal(asked))[0] is StatusCode.UNAUTHENTICATED


async def test_without_a_token_only_reading_is_open_on_loopback(tmp_path: Path) -> None:
    async with port(tmp_path) as opened, grpc.aio.insecure_channel(opened.address) as channel:
        for method in UNARY:
            request = request_of(method)
            if "model" in request.DESCRIPTOR.fields_by_name:
                request.model = "cnn"
            asked = call(channel, method.name, request)
            if method.name in READING:
                await asked
            else:
                code, text = await refusal(asked)
                assert code is StatusCode.PERMISSION_DENIED, method.name
                assert "control.token_file" in text
        opened.target.told.put_nowait(RECORD)
        assert (await watch(channel).read()).id == "r1:0"
        assert not opened.target.drained
        assert opened.target.path.read_text() == POLICY


async def test_a_certificate_gets_in_and_is_named_in_the_log(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="proxy.control")
    async with port(tmp_path, **tls(certificates), client_ca_file=certificates.authority) as opened:
        client, key = certificates.client, certificates.key_of(certificates.client)
        credentials = grpc.ssl_channel_credentials(
            certificates.authority.read_bytes(), key.read_bytes(), client.read_bytes()
        )
        async with grpc.aio.secure_channel(opened.address, credentials) as channel:
            change = pb.ChangePolicyRequest(model="cnn", settings={"fpr": "0.5"})
            assert (await call(channel, "ChangePolicy", change)).applied
        line = json.loads(caplog.records[-1].getMessage())
        assert (line["event"], line["who"]) == ("policy applied", "certificate alice")
        only_ca = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        for stranger in (
            grpc.aio.secure_channel(opened.address, only_ca),
            grpc.aio.insecure_channel(opened.address),
        ):
            async with stranger as channel:
                asked = call(channel, "GetStatus", pb.GetStatusRequest())
                assert (await refusal(asked))[0] is StatusCode.UNAVAILABLE


async def test_where_both_are_configured_both_are_needed(
    tmp_path: Path, certificates: Certificates
) -> None:
    settings = {**tls(certificates), "client_ca_file": certificates.authority}
    async with port(tmp_path, token_file=token_file(tmp_path), **settings) as opened:
        client, key = certificates.client, certificates.key_of(certificates.client)
        credentials = grpc.ssl_channel_credentials(
            certificates.authority.read_bytes(), key.read_bytes(), client.read_bytes()
        )
        async with grpc.aio.secure_channel(opened.address, credentials) as channel:
            asked = call(channel, "GetStatus", pb.GetStatusRequest())
            assert (await refusal(asked))[0] is StatusCode.UNAUTHENTICATED
            assert (await ask(channel, "GetStatus", pb.GetStatusRequest())).ready


def tls(certificates: Certificates) -> dict[str, Any]:
    server = certificates.server
    return {"cert_file": server, "key_file": certificates.key_of(server)}


async def test_certificates_that_are_none_are_refused_at_start(
    tmp_path: Path, certificates: Certificates
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    other = certificates.key_of(certificates.client)
    for settings, said in (
        ({"cert_file": nonsense, "key_file": other}, "not a certificate and its key"),
        ({"cert_file": certificates.server, "key_file": other}, "not a certificate and its key"),
        ({"cert_file": tmp_path / "none", "key_file": other}, "cert_file: .*No such file"),
        ({**tls(certificates), "client_ca_file": nonsense}, "client_ca_file: no certificates"),
    ):
        with pytest.raises(ConfigError, match=said):
            async with port(tmp_path, **settings):
                pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "0.0.0.0:9091"}, "not on loopback"),
        ({"cert_file": "a"}, "go together"),
        ({"client_ca_file": "a"}, "needs cert_file"),
    ],
)
def test_settings_that_guard_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config.model_validate({"control": settings})


async def test_a_token_without_tls_beyond_loopback_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with port(tmp_path, listen="0.0.0.0:0", token_file=token_file(tmp_path)):
        assert "the token crosses the network as it is" in caplog.text


async def test_without_the_section_there_is_no_port(guarded: Port) -> None:
    host = ControlHost(guarded.target, Config(), None)
    assert await host.start() == ""
    assert host.access.allows(None, write=True) is not None
    await host.stop()


async def test_a_taken_port_is_an_error(guarded: Port, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on .* \(control\)"):
        async with port(tmp_path, listen=guarded.address):
            pass


# -- the policy ------------------------------------------------------------------------------------


async def test_the_policy_is_shown_changed_and_taken_back(channel: grpc.aio.Channel) -> None:
    policy = await ask(channel, "GetPolicy", pb.GetPolicyRequest())
    assert (policy.text, policy.digest) == (POLICY, digest_of(POLICY))
    assert (policy.in_force, policy.writable, policy.has_previous) == (True, True, False)
    fresh = POLICY.replace("0.01", "0.02")
    dry = pb.SetPolicyRequest(text=fresh + "drain_seconds: 1\n", dry_run=True)
    answer = await ask(channel, "SetPolicy", dry)
    assert (list(answer.restart), answer.applied) == (["drain_seconds"], False)
    wanted = pb.SetPolicyRequest(text=fresh, if_digest=policy.digest)
    answer = await ask(channel, "SetPolicy", wanted)
    assert (list(answer.changes), answer.applied) == (["cnn.fpr: 0.01 -> 0.02"], True)
    assert await refusal(ask(channel, "SetPolicy", wanted)) == (
        StatusCode.ABORTED,
        f"the policy has changed meanwhile, its digest is now {digest_of(fresh)}: read it again",
    )
    assert (await ask(channel, "RollbackPolicy", pb.RollbackPolicyRequest())).applied
    assert (await ask(channel, "GetPolicy", pb.GetPolicyRequest())).text == POLICY


async def test_problems_have_places(channel: grpc.aio.Channel) -> None:
    answer = await ask(channel, "SetPolicy", pb.SetPolicyRequest(text="models:\n  cnn: {a: 1}\n"))
    assert [problem.rpartition("policy.yaml")[2] for problem in answer.problems] == [
        ":2:9: models.cnn.a: unknown key"
    ]
    settings = {"fpr": "0.1", "query_attacks": "{action: block}"}
    change = pb.ChangePolicyRequest(model="cnn", settings=settings, dry_run=True)
    (problem,) = (await ask(channel, "ChangePolicy", change)).problems
    assert "query_attacks needs the detector `history`" in problem


@pytest.mark.parametrize(
    ("name", "request_", "code"),
    [
        ("ChangePolicy", pb.ChangePolicyRequest(model="nn", settings={"a": "1"}), "NOT_FOUND"),
        ("ChangePolicy", pb.ChangePolicyRequest(model="cnn"), "INVALID_ARGUMENT"),
        (
            "ChangePolicy",
            pb.ChangePolicyRequest(model="cnn", settings={"fpr": "["}),
            "INVALID_ARGUMENT",
        ),
        ("RollbackPolicy", pb.RollbackPolicyRequest(), "FAILED_PRECONDITION"),
        ("SetPolicy", pb.SetPolicyRequest(text="#" * (MAX_BYTES + 1)), "RESOURCE_EXHAUSTED"),
        ("SetPolicy", pb.SetPolicyRequest(text="#" * MAX_ASK_BYTES), "RESOURCE_EXHAUSTED"),
        ("LabelRequest", pb.Label(id="r9:0", label="benign"), "NOT_FOUND"),
        ("LabelRequest", pb.Label(id="r1:0", label="evil"), "INVALID_ARGUMENT"),
        ("ListSuspicious", pb.ListSuspiciousRequest(limit=1001), "INVALID_ARGUMENT"),
        ("GetScores", pb.GetScoresRequest(model="nn"), "NOT_FOUND"),
        ("Explore", pb.ExploreRequest(model="cnn", candidate_json="["), "INVALID_ARGUMENT"),
        ("Explore", pb.ExploreRequest(model="cnn", candidate_json="[]"), "INVALID_ARGUMENT"),
        ("ClearHistory", pb.ClearHistoryRequest(), "INVALID_ARGUMENT"),
        ("ClearHistory", pb.ClearHistoryRequest(principal="a", everybody=True), "INVALID_ARGUMENT"),
    ],
)
async def test_statuses_are_what_grpc_means_by_them(
    guarded: Port, channel: grpc.aio.Channel, name: str, request_: Any, code: str
) -> None:
    assert (await refusal(ask(channel, name, request_)))[0] is StatusCode[code]
    assert guarded.target.path.read_text() == POLICY
    assert guarded.target.forgotten == []


async def test_a_config_map_is_changed_at_its_source(
    guarded: Port, channel: grpc.aio.Channel
) -> None:
    (guarded.target.path.parent / "..data").symlink_to(".")
    assert not (await ask(channel, "GetPolicy", pb.GetPolicyRequest())).writable
    code, text = await refusal(ask(channel, "SetPolicy", pb.SetPolicyRequest(text="{}")))
    assert code is StatusCode.FAILED_PRECONDITION
    assert "mounted from a ConfigMap" in text


async def test_a_deadline_that_passes_leaves_everything_as_it_was(
    guarded: Port, channel: grpc.aio.Channel
) -> None:
    guarded.target.check_gate.clear()
    asked = call(channel, "SetPolicy", pb.SetPolicyRequest(text="{}"), token=TOKEN, timeout=0.2)
    assert (await refusal(asked))[0] is StatusCode.DEADLINE_EXCEEDED
    guarded.target.check_gate.set()
    assert (await ask(channel, "GetPolicy", pb.GetPolicyRequest())).text == POLICY
    assert (await ask(channel, "SetPolicy", pb.SetPolicyRequest(text="{}"))).applied


async def test_a_defect_shows_no_details(
    guarded: Port, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.target.broken = True
    assert await refusal(ask(channel, "GetStatus", pb.GetStatusRequest())) == (
        StatusCode.INTERNAL,
        "internal error: the log says more",
    )
    assert "/etc/secret" in caplog.text


# -- records and life ------------------------------------------------------------------------------


async def test_records_come_whole_and_hostile_text_does_no_harm(
    channel: grpc.aio.Channel,
) -> None:
    records = (await ask(channel, "ListSuspicious", pb.ListSuspiciousRequest())).records
    assert [record.id for record in records] == ["r1:0", "r0:0"]
    first = records[0]
    assert first.principal == "eve\x1b[2J?"
    assert math.isnan(first.threshold)
    assert math.isnan(first.scores["energy"])
    assert (first.score, first.chain, first.stage_ms["total"]) == (3.5, 3, 2.5)
    differing = await ask(channel, "ListDisagreements", pb.ListDisagreementsRequest())
    assert [record.id for record in differing.records] == ["r1:0"]
    scores = json.loads((await ask(channel, "GetScores", pb.GetScoresRequest(model="cnn"))).text)
    assert scores == {"model": "cnn", "columns": {"fused": [0.5, None]}}
    asked = pb.ExploreRequest(model="cnn", candidate_json='{"fpr": 0.1}')
    found = json.loads((await ask(channel, "Explore", asked)).text)
    assert found["candidate"] == {"fpr": 0.1}


async def test_labels_reach_the_target(guarded: Port, channel: grpc.aio.Channel) -> None:
    await ask(channel, "LabelRequest", pb.Label(id="r1:0", label="adversarial"))
    assert guarded.target.labels == {"r1:0": "adversarial"}


async def test_a_watch_begins_at_once_and_ends_with_its_client(
    guarded: Port, channel: grpc.aio.Channel
) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    watching = watch(channel, metadata=metadata)
    await asyncio.wait_for(watching.initial_metadata(), LIMIT_S)  # with nothing to see yet
    guarded.target.told.put_nowait(RECORD)
    assert (await watching.read()).id == "r1:0"
    watching.cancel()
    await asyncio.wait_for(guarded.target.left.wait(), LIMIT_S)
    assert guarded.target.watching == 0


async def test_watchers_are_bounded(guarded: Port, channel: grpc.aio.Channel) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    watching = [watch(channel, metadata=metadata) for _ in range(MAX_WATCHES)]

    async def all_watch() -> bool:
        return guarded.target.watching == MAX_WATCHES

    await until(all_watch)
    assert await watch(channel, metadata=metadata).code() is StatusCode.RESOURCE_EXHAUSTED
    for each in watching:
        each.cancel()


async def test_status_history_and_drain(guarded: Port, channel: grpc.aio.Channel) -> None:
    status = await ask(channel, "GetStatus", pb.GetStatusRequest())
    assert (status.ready, status.in_flight, status.workers) == (True, 3, 1)
    history = await ask(channel, "ListHistory", pb.ListHistoryRequest())
    assert (history.remembered, history.shared) == (7, "up")
    assert [(p.principal, p.alarms) for p in history.principals] == [("eve", 2)]
    cleared = pb.ClearHistoryRequest(principal="eve", model="cnn")
    assert (await ask(channel, "ClearHistory", cleared)).cleared == 2
    await ask(channel, "ClearHistory", pb.ClearHistoryRequest(everybody=True))
    assert guarded.target.forgotten == [("eve", "cnn"), (None, None)]
    assert (await ask(channel, "Drain", pb.DrainRequest())).draining
    assert guarded.target.drained


async def test_health_and_reflection(guarded: Port, channel: grpc.aio.Channel) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    for service in ("", SERVICE.full_name):
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def services() -> list[str]:
        with grpc.insecure_channel(guarded.address) as plain:
            return list(ProtoReflectionDescriptorDatabase(plain).get_services())

    assert SERVICE.full_name in await asyncio.to_thread(services)


async def test_what_is_no_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    asked = channel.unary_unary(f"/{SERVICE.full_name}/Nothing")(b"", timeout=LIMIT_S)
    assert (await refusal(asked))[0] is StatusCode.UNIMPLEMENTED
