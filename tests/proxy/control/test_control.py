"""What is passed on, and what is refused before."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from proxy.control.access import Access
from proxy.control.control import MAX_RECORDS, MAX_WATCHES, Control
from proxy.control.errors import (
    ControlError,
    ImpossibleError,
    InvalidAskError,
    TooLargeError,
    UnknownNameError,
)
from proxy.control.policy_file import PolicyFile
from proxy.errors import GRPC_CODES
from tests.proxy.control.target import RECORD, PolicyTarget


@pytest.fixture
def target(tmp_path: Path) -> PolicyTarget:
    path = tmp_path / "policy.yaml"
    path.write_text("models: {cnn: {}}\n")
    return PolicyTarget(path)


@pytest.fixture
def control(target: PolicyTarget) -> Control:
    return Control(target, PolicyFile(target.path), Access())


def test_every_error_has_statuses_that_exist() -> None:
    for kind in (ControlError, *ControlError.__subclasses__()):
        assert kind.code in GRPC_CODES
        assert 400 <= kind.http < 600


async def test_the_policy_by_way_of_its_file(control: Control, target: PolicyTarget) -> None:
    digest = (await control.get_policy())["digest"]
    answer = await control.change("cnn", {"fpr": 0.5}, if_digest=digest)
    assert answer["applied"]
    assert (await control.rollback(answer["digest"]))["applied"]
    assert (await control.set_policy("{}", dry_run=True))["changes"] == [
        "cnn: removed: its requests pass as those of an unlisted model"
    ]
    assert target.path.read_text() == "models: {cnn: {}}\n"
    await control.close()


async def test_without_a_file_there_is_no_policy_to_change(target: PolicyTarget) -> None:
    control = Control(target, None, Access())
    for ask in (
        control.get_policy(),
        control.set_policy("{}"),
        control.change("cnn", {"fpr": 0.5}),
        control.rollback(),
    ):
        with pytest.raises(ImpossibleError, match="without --config"):
            await ask
    await control.close()


async def test_records_and_disagreements(control: Control) -> None:
    assert [r["id"] for r in await control.suspicious()] == ["r1:0", "r0:0"]
    assert [r["id"] for r in await control.suspicious("cnn", 1)] == ["r1:0"]
    assert await control.disagreements() == [dict(RECORD)]
    for limit in (0, -1, MAX_RECORDS + 1):
        with pytest.raises(InvalidAskError, match="from 1 to 1000"):
            await control.suspicious(None, limit)
        with pytest.raises(InvalidAskError):
            await control.disagreements(None, limit)


async def test_labels(control: Control, target: PolicyTarget) -> None:
    await control.label("r1:0", "adversarial")
    assert target.labels == {"r1:0": "adversarial"}
    with pytest.raises(UnknownNameError, match="no such sample"):
        await control.label("r9:0", "")
    with pytest.raises(InvalidAskError, match="benign, adversarial"):
        await control.label("r1:0", "evil")


async def test_scores_and_what_if_of_configured_models(control: Control) -> None:
    assert (await control.scores("cnn"))["model"] == "cnn"
    assert (await control.explore("cnn", {"fpr": 0.1}))["candidate"] == {"fpr": 0.1}
    for ask in (control.scores("nn"), control.explore("nn", None)):
        with pytest.raises(UnknownNameError, match="no such model"):
            await ask


async def test_watchers_are_bounded_and_leave_no_trace(
    control: Control, target: PolicyTarget
) -> None:
    target.told.put_nowait(RECORD)
    async with aclosing(control.watch()) as watch:
        assert await anext(watch) == RECORD
    assert target.watching == 0
    watches: list[Any] = []
    for _ in range(MAX_WATCHES):
        target.told.put_nowait(RECORD)
        watches.append(control.watch())
        await anext(watches[-1])
    with pytest.raises(TooLargeError, match="watch already"):
        await anext(control.watch())
    for watch in watches:
        await watch.aclose()
    target.told.put_nowait(RECORD)
    async with aclosing(control.watch()) as watch:
        await anext(watch)


async def test_its_life(control: Control, target: PolicyTarget) -> None:
    assert (await control.status()).ready
    assert (await control.drain()).draining
    assert (await control.history())["remembered"] == 7
    assert await control.forget("eve", None) == 2
    assert target.forgotten == [("eve", None)]
