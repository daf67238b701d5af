"""The console's JSON over real HTTP: who may, what comes, and everything that can be wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from proxy.console import api
from proxy.control.policy_file import digest_of
from tests.proxy.console.shown import HOSTILE, POLICY, TOKEN, Shown, record
from tests.proxy.running import until

READ = ("/api/overview", "/api/suspicious", "/api/disagreements", "/api/policy", "/api/watch")
WRITE = {
    "/api/policy": {"model": "cnn", "settings": {"fpr": 0.02}, "if_digest": "x", "dry_run": False},
    "/api/rollback": {"if_digest": "x", "dry_run": False},
    "/api/label": {"id": "a:0", "label": "benign"},
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask(
    shown: Shown, path: str, body: Any = None, token: str | None = None, **headers: str
) -> tuple[int, Any]:
    sent = {**headers, **({} if token is None else bearer(token))}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(shown.url) as session,
        session.request(method, path, json=body, headers=sent) as response,
    ):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        return response.status, await response.json()


@pytest.mark.parametrize("path", READ)
async def test_with_a_token_configured_nothing_is_read_without_it(
    guarded: Shown, path: str
) -> None:
    for token in (None, "wrong-but-long-enough"):
        status, body = await ask(guarded, path, token=token)
        assert (status, "token" in body["error"]) == (401, True)


@pytest.mark.parametrize("path", WRITE)
async def test_without_a_token_configured_nothing_is_changed(shown: Shown, path: str) -> None:
    shown.target.push(record(1, id="a:0"))
    for token in (None, "anything-at-all-goes"):
        status, body = await ask(shown, path, WRITE[path], token=token)
        assert (status, "token_file" in body["error"]) == (403, True)
    assert shown.target.labels == {}
    assert shown.target.generation == 1


@pytest.mark.parametrize("path", WRITE)
async def test_a_wrong_token_changes_nothing(guarded: Shown, path: str) -> None:
    guarded.target.push(record(1, id="a:0"))
    status, _ = await ask(guarded, path, WRITE[path], token="wrong-but-long-enough")
    assert status == 401
    assert (guarded.target.labels, guarded.target.generation) == ({}, 1)


async def test_a_name_given_to_our_address_reads_nothing(shown: Shown, guarded: Shown) -> None:
    for host in ("evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io"):
        for token in (None, "a page may send any header to its own name"):
            status, _ = await ask(shown, "/api/overview", token=token, Host=host)
            assert status == 403
    for host in ("localhost:9090", "127.0.0.1:1", "[::1]:9090", "[::1]", "10.0.0.7"):
        status, _ = await ask(shown, "/api/overview", Host=host)
        assert status == 200
    status, _ = await ask(guarded, "/api/overview", token=TOKEN, Host="console.example")
    assert status == 200


async def test_overview(shown: Shown) -> None:
    status, body = await ask(shown, "/api/overview")
    assert status == 200
    assert set(body["models"]) == {"cnn", "plain"}
    assert body["models"]["cnn"]["policy"]["fpr"] == 0.01
    assert body["models"]["cnn"]["policy"]["parts"] == [
        {"name": name} for name in ("residual", "margin", "energy")
    ]
    assert body["status"]["workers_ready"] == 2


async def test_many_pages_cost_one_scrape(shown: Shown) -> None:
    bodies = await asyncio.gather(*(ask(shown, "/api/overview") for _ in range(8)))
    assert len({body["time_s"] for _, body in bodies}) == 1


async def test_a_defect_shows_no_details(shown: Shown) -> None:
    shown.target.broken = True
    status, body = await ask(shown, "/api/overview")
    assert (status, "secret" in json.dumps(body)) == (500, False)


async def test_suspicious_newest_first(shown: Shown) -> None:
    for i in range(3):
        shown.target.push(record(i, principal=HOSTILE))
    _, body = await ask(shown, "/api/suspicious?limit=2")
    assert [each["client_id"] for each in body["records"]] == ["c2", "c1"]
    assert body["records"][0]["principal"] == HOSTILE
    assert body["principals"][0]["longest_chain"] == 41


@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "", "1e2", "٣", "9" * 400])
async def test_a_limit_is_a_small_number(shown: Shown, limit: str) -> None:
    status, body = await ask(shown, f"/api/suspicious?limit={limit}")
    assert (status, body["error"]) == (400, "limit: a number from 1 to 200")


async def test_disagreements_are_those_where_the_shadow_says_otherwise(shown: Shown) -> None:
    for i, shadow in enumerate(("", "suspicious", "pass")):
        shown.target.push(record(i, shadow=shadow))
    _, body = await ask(shown, "/api/disagreements")
    assert [each["client_id"] for each in body["records"]] == ["c2", "c1"]


async def test_explore(shown: Shown) -> None:
    _, body = await ask(shown, "/api/explore", {"model": "cnn"})
    assert len(body["fprs"]) == len(body["thresholds"]) == 60
    await ask(shown, "/api/explore", {"model": "cnn", "candidate": {"detectors": ["margin"]}})
    assert shown.target.explored == [None, {"detectors": ["margin"]}]
    status, _ = await ask(shown, "/api/explore", {"model": HOSTILE})
    assert status == 404


@pytest.mark.parametrize("path", ["/api/explore", *WRITE])
@pytest.mark.parametrize(
    "body", [[], 7, "x", {}, {"model": 7}, {"unknown": 1}, {"model": "cnn", "x": 1}]
)
async def test_a_body_that_makes_no_sense_is_refused(guarded: Shown, path: str, body: Any) -> None:
    status, answer = await ask(guarded, path, body, token=TOKEN)
    assert status == 400
    assert answer["error"]


async def test_a_form_of_another_site_is_no_json(guarded: Shown) -> None:
    async with aiohttp.ClientSession(guarded.url, headers=bearer(TOKEN)) as session:
        text = json.dumps(WRITE["/api/label"])
        async with session.post("/api/label", data=text) as response:
            assert response.status == 415
        wrong = {"Content-Type": "application/json"}
        async with session.post("/api/label", data="{", headers=wrong) as response:
            assert response.status == 400


@pytest.mark.parametrize("path", ["/api/policy", "/api/rollback"])
async def test_a_dry_run_needs_the_right_to_change(shown: Shown, guarded: Shown, path: str) -> None:
    body = {**WRITE[path], "dry_run": True}
    assert (await ask(shown, path, body))[0] == 403
    for token in (None, "wrong-but-long-enough"):
        assert (await ask(guarded, path, body, token=token))[0] == 401
    assert shown.target.checked == guarded.target.checked == 0


async def test_a_dry_run_says_what_would_change(guarded: Shown) -> None:
    body = {**WRITE["/api/policy"], "if_digest": digest_of(POLICY), "dry_run": True}
    status, answer = await ask(guarded, "/api/policy", body, token=TOKEN)
    assert (status, answer["changes"]) == (200, ["cnn.fpr: 0.01 -> 0.02"])
    assert (guarded.target.generation, guarded.target.checked) == (1, 1)


async def test_change_and_roll_back(guarded: Shown) -> None:
    _, before = await ask(guarded, "/api/policy", token=TOKEN)
    body = {**WRITE["/api/policy"], "if_digest": before["digest"]}
    _, answer = await ask(guarded, "/api/policy", body, token=TOKEN)
    assert answer["applied"] is True
    status, conflict = await ask(guarded, "/api/policy", body, token=TOKEN)
    assert (status, "read it again" in conflict["error"]) == (409, True)
    rollback = {"if_digest": answer["digest"], "dry_run": False}
    _, back = await ask(guarded, "/api/rollback", rollback, token=TOKEN)
    assert back["digest"] == before["digest"]


async def test_labels(guarded: Shown) -> None:
    guarded.target.push(record(1, id="a:0"))
    body = {"id": "a:0", "label": "adversarial"}
    assert await ask(guarded, "/api/label", body, token=TOKEN) == (200, body)
    assert guarded.target.labels == {"a:0": "adversarial"}
    status, _ = await ask(guarded, "/api/label", {**body, "id": "gone:0"}, token=TOKEN)
    assert status == 404
    status, _ = await ask(guarded, "/api/label", {**body, "label": "<b>"}, token=TOKEN)
    assert status == 400


async def test_watch_tells_each_sample_and_ends_with_the_page(shown: Shown) -> None:
    async with aiohttp.ClientSession(shown.url) as session, session.get("/api/watch") as response:
        assert response.content_type == "application/x-ndjson"
        assert await response.content.readline() == b"\n"
        await until(lambda: _is(shown.target.followed == 1))
        shown.target.push(record(5, score=float("nan"), principal="a\nb"))
        line = json.loads(await response.content.readline())
        assert (line["client_id"], line["score"], line["principal"]) == ("c5", None, "a\nb")


async def test_only_so_many_pages_follow(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_WATCHING", 1)
    async with aiohttp.ClientSession(shown.url) as session, session.get("/api/watch") as response:
        await response.content.readline()
        status, body = await ask(shown, "/api/watch")
        assert (status, "close one" in body["error"]) == (429, True)


async def _is(value: bool) -> bool:
    return value
